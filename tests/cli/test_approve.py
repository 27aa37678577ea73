"""``llmctl approve``, and the questions of a break-glass: what is asked, refused and printed. Nothing runs here."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.conftest import InProcess
from tests.cli.project import Project
from tests.people import Person
from tests.terminal import on_terminal

ASKS = ("dev: {target: local}", "dev: {target: local, approvals: 1}")


@pytest.fixture
def ann(project: Project, tmp_path: Path) -> Person:
    """Who approves: the project is hers to run from here on."""
    person = Person.make(tmp_path / "people", "ann")
    project.replace(*ASKS)
    project.env.update(person.variables())
    return person


def test_approve_prints_what_was_signed(ann: Person, here: InProcess) -> None:
    saved = here("plan", "--out", "plan.json", "--json").json()
    assert saved["approvals"] == {"required": 1, "declared": 1, "given": [], "refused": []}
    done = here("approve", "plan.json", "--yes", "--json", "--expires", "12h")
    assert done.code == 0, done.text
    said = done.json()
    assert (said["format"], said["environment"], said["project"]) == (1, "dev", "acme-support")
    assert said["plan"] == saved["digest"]
    assert said["key"].startswith("SHA256:")
    assert said["ref"].startswith(f"refs/llmctl/dev/approvals/{saved['digest'].removeprefix('sha256:')}/ssh-")
    assert (said["signer"], said["pushed"]) == ("", False)
    assert ann.key
    text = here("approve", "plan.json", "--yes").out
    assert text.startswith("saved plan plan.json, made ")
    assert "route.support" in text
    assert f"Approved {saved['digest'][:19]}… for dev, until " in text
    assert "approvals" not in text.partition("Approved")[0], "who approved when it was made says nothing of now"


@pytest.mark.parametrize("lasts", ["", "7", "0d", "-1d", "1y", "400d", "1.5h", "99999999d"])
def test_a_time_that_is_none_is_refused(lasts: str, here: InProcess) -> None:
    done = here("approve", "plan.json", "--expires", lasts)
    assert done.code == 1
    assert "say how long it holds" in done.err


def test_what_is_no_plan_is_not_approved(ann: Person, project: Project, here: InProcess) -> None:
    assert here("approve", "plan.json", "--yes").code == 1
    here("plan", "--out", "plan.json")
    path = project.root / "plan.json"
    plan = json.loads(path.read_text())
    for edited in (plan | {"warnings": []}, plan | {"impact": ["nothing"]}, {**plan, "seal": ""}):
        path.write_text(json.dumps(edited | {"made_at": "2026-01-01T00:00:00+00:00"}))
        done = here("approve", "plan.json", "--yes")
        assert (done.code, "it was edited or damaged" in done.err) == (1, True), done.text
    here("plan", "--out", "off.json", "--offline")
    done = here("approve", "off.json", "--yes")
    assert (done.code, "is an offline plan" in done.err) == (1, True)
    assert "refs/llmctl" not in project.git("for-each-ref")
    assert ann.key


def test_a_plan_is_approved_for_its_own_environment(ann: Person, project: Project, here: InProcess) -> None:
    project.replace("approvals: 1}", "approvals: 1}\n  prod: {target: local}")
    here("plan", "--out", "plan.json", "-e", "dev")
    done = here("approve", "plan.json", "-e", "prod", "--yes")
    assert (done.code, "is a plan for acme-support, environment dev" in done.err) == (1, True), done.text
    assert here("approve", "plan.json", "--yes").code == 0, "the plan says for which"
    assert ann.key


def test_json_does_not_ask(here: InProcess) -> None:
    done = here("approve", "plan.json", "--json")
    assert (done.code, "Add --yes" in done.text) == (1, True)


def test_nothing_signs(ann: Person, project: Project, here: InProcess) -> None:
    here("plan", "--out", "plan.json")
    assert ann.key
    os.remove(ann.key)
    done = here("approve", "plan.json", "--yes")
    assert done.code == 1
    assert "the commit could not be signed" in done.err
    assert "user.signingkey" in done.err
    assert "refs/llmctl" not in project.git("for-each-ref")


def test_approve_asks(ann: Person, project: Project) -> None:
    assert project.run("plan", "--out", "plan.json").code == 0
    code, shown = on_terminal(project.root, project.env, "approve", "plan.json", answer=b"n\n")
    assert (code, "Nothing was approved." in shown) == (0, True), shown
    assert "refs/llmctl" not in project.git("for-each-ref")
    code, shown = on_terminal(project.root, project.env, "approve", "plan.json", answer=b"y\n")
    assert (code, "Approved sha256:" in shown) == (0, True), shown
    assert "refs/llmctl/dev/approvals/" in project.git("for-each-ref")
    assert ann.key


def test_a_break_glass_asks_once_more_and_names_what_it_skips(ann: Person, project: Project) -> None:
    line = ("apply", "--break-glass", "support is down since ten")
    code, shown = on_terminal(project.root, project.env, *line, answer=b"y\nn\n")
    assert (code, "Nothing was changed." in shown) == (0, True), shown
    assert "This skips gate.faq and 1 approval" in shown.replace("\r\n", " ")
    assert not (project.root / ".llmctl" / "dev" / "runtime.json").exists()
    assert ann.key


@pytest.mark.parametrize("reason", ["", "fire", "         .         "])
def test_a_break_glass_needs_a_reason(reason: str, here: InProcess) -> None:
    done = here("apply", "--yes", "--break-glass", reason)
    assert done.code == 1
    assert "--break-glass needs a reason" in done.err


def test_a_break_glass_is_not_saved(here: InProcess) -> None:
    done = here("rollback", "--out", "x.json", "--break-glass", "support is down since ten")
    assert (done.code, "--out saves an ordinary plan" in done.err) == (1, True)


def test_a_destroy_is_saved_and_not_done(project: Project, here: InProcess) -> None:
    done = here("destroy", "--out", "llmops.yaml")
    assert (done.code, "is no saved plan" in done.err) == (1, True)
    done = here("destroy", "--out", "gone.json", "--json")
    assert done.code == 0, done.text
    saved = json.loads((project.root / "gone.json").read_text())
    assert (saved["action"], done.json()["digest"]) == ("destroy", saved["digest"])
    done = here("apply", "gone.json", "--yes")
    assert (done.code, "is a plan for a destroy" in done.err) == (1, True), done.text
