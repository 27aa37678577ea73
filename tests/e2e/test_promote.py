"""Environments side by side: what reaches the second has passed in the first, and neither disturbs the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.core.digests import Json
from tests.e2e.project import ONE_SENTENCE, SYSTEM, Project

pytestmark = pytest.mark.e2e
BOTH = "{dev: {target: local}, staging: {target: local, promote_from: dev}}"


@pytest.fixture
def two() -> Iterator[Project]:
    """A project with two environments, the second fed from the first."""
    project = Project.make(small=True)
    try:
        project.edit("environments:", f"environments: {BOTH}")
        project.edit("  dev: {target: local}", "")
        project.commit("two environments")
        yield project
    finally:
        project.end()


def test_what_has_not_passed_in_dev_does_not_reach_staging(two: Project) -> None:
    before = two.refs()
    first = two.llmctl("apply", "--yes", "-e", "staging")
    assert first.code == 3
    assert "have not passed in dev" in first.err
    assert "llmctl apply -e dev" in first.err
    assert two.llmctl("plan", "-e", "staging").code == 3
    assert (two.refs(), two.processes()) == (before, [])

    two.ok("plan", "-e", "dev", "--out", "dev.plan")
    two.ok("apply", "dev.plan", "--yes")  # the plan knows its environment
    promoted = two.ok("promote", "dev", "staging", "--yes")
    assert promoted.out.startswith("From dev to staging:\n  route.support: model.support-tiny@")
    assert "passed faq in dev, as route.support@" in promoted.out
    proof = _proof(two)
    head = two.git("rev-parse", "llmctl/dev").strip()
    assert (proof["from"], proof["serial"], proof["head"], proof["anchor"]) == ("dev", 1, head, "unanchored")
    (evidence,) = proof["routes"]["route.support"]["evidence"]
    gate, _, digest = evidence.partition(" ")
    path = f"evidence/{gate}/{digest.removeprefix('sha256:')}.json"
    assert json.loads(two.git("show", f"{head}:{path}"))["verdict"] == "PASS"
    revision = two.answers("dev").revision
    assert two.answers("staging").revision == revision
    assert two.base_url("dev") != two.base_url("staging")
    dev, staging = two.one_of_each(environment="dev"), two.one_of_each(environment="staging")
    assert dev.keys() == staging.keys()
    assert not set(dev.values()) & set(staging.values())
    assert two.plan_code("-e", "dev") == two.plan_code("-e", "staging") == 0

    two.edit(SYSTEM, ONE_SENTENCE)
    refused = two.llmctl("promote", "dev", "staging", "--yes")
    assert refused.code == 3
    assert "prompt.answer@" in refused.err
    assert "model.support-tiny@" not in refused.err.split("has not passed")[0]
    assert two.answers("staging").revision == revision
    two.ok("apply", "--yes", "-e", "dev")
    shown = two.ok("promote", "dev", "staging", "--yes", "--json").json()
    assert (shown["environment"], shown["exit_code"], shown["changed"]) == ("staging", 0, True)
    assert two.answers("staging").revision == two.answers("dev").revision != revision
    again = two.ok("promote", "dev", "staging", "--yes")
    assert "Nothing changes" in again.out

    two.ok("destroy", "--yes", "-e", "dev")
    assert two.processes("dev/") == []
    two.answers("staging")
    two.one_of_each(environment="staging")
    two.destroy()


def test_what_passed_in_another_clone(two: Project) -> None:
    """Its record is named by path, by address and as a bundle; what was changed in it by hand does not count."""
    other = Project.make(small=True)
    try:
        other.edit("environments:", f"environments: {BOTH}")
        other.edit("  dev: {target: local}", "")
        other.commit("two environments")
        other.ok("apply", "--yes", "-e", "dev")
        bundle = other.base / "dev.bundle"
        other.git("bundle", "create", "-q", str(bundle), "llmctl/dev")
        nowhere = two.llmctl("promote", "dev", "staging", "--yes")
        assert nowhere.code == 3
        assert "--from-record PATH-OR-URL" in nowhere.err
        for place in (str(other.root), f"file://{other.root}", str(bundle)):
            assert two.llmctl("plan", "-e", "staging", "--from-record", place).code == 0
        two.variables["LLMCTL_PROMOTE_RECORD"] = str(other.root)
        assert two.llmctl("plan", "-e", "staging").code == 0
        del two.variables["LLMCTL_PROMOTE_RECORD"]
        unanchored = _edited(other)
        refused = two.llmctl("promote", "dev", "staging", "--yes", "--from-record", str(other.root))
        assert refused.code == 3
        assert "the record of dev does not verify, so it vouches for nothing" in refused.err
        assert two.processes() == []
        other.git("update-ref", "refs/heads/llmctl/dev", unanchored)
        two.ok("plan", "-e", "staging", "--from-record", str(bundle), "--out", "staging.plan")
        two.ok("apply", "staging.plan", "--yes", "--from-record", str(bundle))
        assert _proof(two)["head"] == unanchored
        assert "refs/heads/llmctl/dev" not in two.refs()
        two.destroy()
    finally:
        other.end()


def _proof(project: Project) -> Json:
    """On what the first apply to staging rested, as it is recorded."""
    return json.loads(project.git("show", "llmctl/staging:decisions/1.json"))["promotion"]


def _edited(project: Project) -> str:
    """Loosen a threshold in the record of dev by hand; returns the head from before."""
    head = project.git("rev-parse", "llmctl/dev").strip()
    folder = Path(project.base / "by-hand")
    project.git("worktree", "add", "-q", "--detach", str(folder), head)
    (path,) = folder.glob("evidence/faq/*.json")
    path.write_text(path.read_text().replace('"verdict": "PASS"', '"verdict": "FAIL"'))
    project.git("-C", str(folder), "commit", "-q", "-a", "--amend", "--no-edit")
    project.git("update-ref", "refs/heads/llmctl/dev", project.git("-C", str(folder), "rev-parse", "HEAD").strip())
    project.git("worktree", "remove", "--force", str(folder))
    return head


def test_a_password_in_an_address_is_not_shown(both: Project) -> None:
    refused = both.llmctl("plan", "-e", "staging", "--from-record", "http://ci:CANARY@127.0.0.1:9/x.git")
    assert refused.code == 1
    assert "could not be fetched from http://127.0.0.1:9/x.git" in refused.err
    assert "CANARY" not in refused.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("dev", "dev"), "dev cannot be promoted from itself"),
        (("staging", "dev"), "Nothing is applied in staging yet."),
        (("dev", "stagin"), "there is no environment 'stagin'"),
        (("nothing", "dev"), "there is no environment 'nothing'"),
        (("test", "staging"), "staging is promoted from dev, not from test"),
        (("dev", "staging", "-e", "dev"), "no such option '-e'"),
        (("dev",), "missing argument 'TO'"),
    ],
)
def test_what_cannot_be_promoted(both: Project, words: tuple[str, ...], said: str) -> None:
    before = both.refs()
    refused = both.llmctl("promote", *words, "--yes")
    assert refused.code == (3 if "applied" in said else 1)
    assert said in refused.err
    assert (both.refs(), both.processes()) == (before, [])


@pytest.fixture(scope="module")
def both() -> Iterator[Project]:
    """The same, for tests that change nothing."""
    project = Project.make(small=True)
    try:
        project.edit("environments:", f"environments: {BOTH}")
        project.edit("  dev: {target: local}", "")
        yield project
    finally:
        project.end()


def test_two_projects_on_one_machine_do_not_meet() -> None:
    """The same names in both, in one runtime folder; each has its own gateway, record and end."""
    first, second = Project.make(small=True), Project.make(small=True)
    try:
        second.variables["XDG_RUNTIME_DIR"] = str(first.run)
        first.apply()
        second.edit(SYSTEM, ONE_SENTENCE)
        second.apply()
        assert first.base_url() != second.base_url()
        assert first.answers().revision != second.answers().revision
        assert first.plan_code() == second.plan_code() == 0
        second.ok("destroy", "--yes")
        assert second.processes() == []
        first.answers()
        first.one_of_each()
        first.destroy()
    finally:
        first.end()
        second.end()
