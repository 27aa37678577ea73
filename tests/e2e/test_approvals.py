"""Approvals and break-glass with the real command: people with keys of their own, and a bot that applies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from llmctl.core.digests import Json
from tests.e2e.project import MODEL, ONE_SENTENCE, SYSTEM, WORSE_MODEL, Project
from tests.people import Person, allowed
from tests.results import Result

pytestmark = pytest.mark.e2e
WHY = "support is down since ten, the provider withdrew the model"
TARGET = "dev: {target: local}"


@dataclass
class Team:
    """Dora writes, Ann and Bob approve, the bot applies what main has."""

    project: Project
    people: dict[str, Person]

    def run(self, name: str, *arguments: str) -> Result:
        self.project.variables.update(self.people[name].variables())
        return self.project.llmctl(*arguments)

    def ok(self, name: str, *arguments: str) -> Result:
        result = self.run(name, *arguments)
        assert result.code == 0, f"{name}: llmctl {' '.join(arguments)} exited {result.code}:\n{result.text}"
        return result

    def change(self, old: str, new: str) -> None:
        self.project.variables.update(self.people["dora"].variables())
        self.project.edit(old, new)
        self.project.commit(f"{old} becomes {new}")

    def approved(self, *command: str) -> None:
        """What the bot would do now, saved, and approved by Ann and Bob."""
        self.ok("bot", *command, "--out", "plan.json")
        for name in ("ann", "bob"):
            self.ok(name, "approve", "plan.json", "--yes")

    def plan(self) -> Json:
        return self.ok("bot", "plan", "--json").json()

    def state(self) -> Json:
        return json.loads(self.project.git("show", "llmctl/dev:state.json"))

    def decisions(self) -> Json:
        return json.loads(self.project.git("show", f"llmctl/dev:decisions/{self.state()['serial']}.json"))

    def entry(self) -> str:
        return self.project.git("log", "-1", "--format=%B", "llmctl/dev")

    def settled(self) -> None:
        """Nothing is open, nothing is left to do, and the record holds."""
        assert "break_glass" not in self.state()
        done = self.run("bot", "plan", "--detailed-exitcode")
        assert (done.code, "BREAK-GLASS" in done.text) == (0, False), done.text
        assert "BREAK-GLASS" not in self.ok("bot", "status").text
        self.ok("bot", "audit", "verify")


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    project = Project.make(small=True)
    try:
        people = {name: Person.make(project.base / "people", name) for name in ("ann", "bob", "dora", "bot")}
        people["bot"].configure("commit.gpgsign", "true")  # so that the record can be verified by whose keys count
        signers = allowed(project.base / "signers", *((p.email, p.key) for p in people.values() if p.key))
        project.variables["LLMCTL_ALLOWED_SIGNERS"] = str(signers)
        made = Team(project, people)
        made.change(TARGET, TARGET.replace("}", ", approvals: 2}"))
        yield made
    finally:
        project.end()


def test_nothing_is_applied_before_two_others_have_approved_it(team: Team) -> None:
    refused = team.run("bot", "apply", "--yes")
    assert refused.code == 3
    assert "2 approvals of this plan are missing" in refused.err
    assert team.project.refs().keys() == {"refs/heads/main"}
    team.ok("bot", "plan", "--out", "plan.json")
    team.ok("ann", "approve", "plan.json", "--yes")
    team.ok("dora", "approve", "plan.json", "--yes")
    refused = team.run("bot", "apply", "plan.json", "--yes")
    assert refused.code == 3
    assert "it needs 2 and has 1" in refused.err
    assert "dora@example.org is an author of the change" in refused.err
    assert "llmctl approve plan.json" in refused.err
    assert team.plan()["approvals"]["given"] == ["ann@example.org"]
    assert "needs 2 approvals, has 1: ann@example.org" in team.ok("bot", "plan", "--markdown").out
    team.ok("bob", "approve", "plan.json", "--yes")
    done = team.ok("bot", "apply", "--yes", "--json").json()  # a fresh plan is the same plan
    assert done["approvals"] == {"required": 2, "given": ["ann@example.org", "bob@example.org"]}
    decided = team.decisions()
    assert decided["approvals"]["required"] == 2
    assert [a["signer"] for a in decided["approvals"]["given"]] == ["ann@example.org", "bob@example.org"]
    assert decided["applied_source"] == team.project.git("rev-parse", "HEAD").strip()
    assert team.entry().count("Llmctl-Approval: ") == 2
    assert not [ref for ref in team.project.refs() if "approvals" in ref], "they are in the record now"
    assert team.project.answers().status == 200
    team.settled()


def test_in_an_emergency_the_glass_is_broken_and_everybody_sees_it_until_it_is_put_right(team: Team) -> None:
    before = team.project.answers().revision
    team.change(MODEL, WORSE_MODEL)
    team.ok("bot", "plan", "--out", "plan.json")
    team.ok("ann", "approve", "plan.json", "--yes")
    team.ok("bot", "apply", "plan.json", "--yes", "--break-glass", WHY)
    assert team.decisions()["approvals"]["given"] == [], "Ann approved the plan in which the gate runs"
    serial = team.state()["serial"]
    assert team.project.ask().revision != before
    still = team.state()["break_glass"]
    assert [(b["serial"], b["reason"], b["gates"], b["approvals"]) for b in still] == [(serial, WHY, ["gate.faq"], 2)]
    assert team.entry().startswith("apply (break-glass): ")
    assert f"Llmctl-Break-Glass: {WHY}" in team.entry()
    assert team.decisions()["break_glass"] == still[0]
    plan = team.plan()
    assert (plan["empty"], plan["reconciles"], plan["open_break_glass"]) == (False, [serial], still)
    assert [(g["gate"], g["why"]) for g in plan["gates"]] == [
        ("gate.faq", f"the break-glass of serial {serial} skipped it")
    ]
    for command in (("plan",), ("plan", "--markdown"), ("status",), ("audit", "log")):
        shown = team.ok("bot", *command).out
        assert "BREAK-GLASS" in shown, command
        assert WHY in shown, command
    assert team.run("bot", "plan", "--detailed-exitcode").code == 2
    team.ok("bot", "audit", "verify")


def test_a_gate_that_does_not_pass_leaves_it_open(team: Team) -> None:
    served, still = team.project.ask().revision, team.state()["break_glass"]
    team.ok("bot", "plan", "--out", "plan.json")
    team.ok("dora", "approve", "plan.json", "--yes")
    assert "is an author of the change" in team.run("bot", "apply", "--yes").err, "who wrote it before the emergency"
    team.approved("plan")
    failed = team.run("bot", "apply", "--yes")
    assert failed.code == 4, failed.text
    assert team.state()["break_glass"] == still
    assert team.project.ask().revision == served


def test_a_new_revision_that_passes_closes_it(team: Team) -> None:
    serial = team.state()["break_glass"][0]["serial"]
    team.change(WORSE_MODEL, MODEL)
    team.approved("plan")
    team.ok("bot", "apply", "plan.json", "--yes")
    assert team.decisions()["reconciles"] == [serial]
    assert f"Llmctl-Reconciles: {serial}" in team.entry()
    team.settled()


def test_the_gate_that_was_skipped_passes_on_what_serves(team: Team) -> None:
    team.change(SYSTEM, ONE_SENTENCE)
    team.ok("bot", "apply", "--yes", "--break-glass", WHY)
    served = team.project.ask().revision
    serial = team.state()["serial"]
    team.approved("plan")
    team.ok("bot", "apply", "plan.json", "--yes")
    assert team.project.ask().revision == served
    assert team.decisions()["reconciles"] == [serial]
    assert team.entry().startswith(f"apply: break-glass of serial {serial} put right")
    team.settled()


def test_a_rollback_is_approved_too_and_closes_what_it_replaces(team: Team) -> None:
    team.change(ONE_SENTENCE, SYSTEM + " Be brief.")
    team.ok("bot", "apply", "--yes", "--break-glass", WHY)
    refused = team.run("bot", "rollback", "--yes")
    assert (refused.code, "llmctl rollback --to" in refused.err) == (3, True), refused.text
    team.approved("rollback")
    team.ok("bot", "rollback", "--yes", "--reason", "the answers were wrong")
    team.change(SYSTEM + " Be brief.", ONE_SENTENCE)
    team.settled()


def test_a_policy_forbids_it(team: Team) -> None:
    policy = (
        "  glass:\n    applies_to: plan\n"
        '    require: plan.break_glass == ""\n    severity: deny\n    message: not in this environment\n'
    )
    text = team.project.file.read_text()
    assert text.count("\npolicies:\n") == 1
    team.project.file.write_text(text.replace("\npolicies:\n", f"\npolicies:\n{policy}"))
    team.project.commit("no break-glass here")
    team.approved("plan")
    team.ok("bot", "apply", "plan.json", "--yes")
    refs = team.project.refs()
    team.change(ONE_SENTENCE, SYSTEM + " Be kind.")
    refused = team.run("bot", "apply", "--yes", "--break-glass", WHY)
    assert refused.code == 3
    assert "not in this environment" in refused.err
    assert {k: v for k, v in team.project.refs().items() if "main" not in k} == {
        k: v for k, v in refs.items() if "main" not in k
    }
    assert team.run("bot", "apply", "--yes").code == 3, "nor without approvals"


def test_a_destroy_needs_them_and_ends_all(team: Team) -> None:
    assert team.run("bot", "destroy", "--yes").code == 3
    assert team.project.processes()
    team.approved("destroy")
    team.ok("bot", "destroy", "--yes")
    assert team.project.processes() == []
    assert "break_glass" not in team.state()
    team.ok("bot", "audit", "verify")
