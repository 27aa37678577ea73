"""A saved plan is applied as it is, or refused with what moved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llmctl.plan.planfile import body_digest, sealed
from tests.e2e.project import ONE_SENTENCE, SYSTEM, Project

pytestmark = pytest.mark.e2e
SMALL = True
PLAN = "saved.plan.json"


def _save(project: Project, *options: str) -> Path:
    project.edit(SYSTEM, ONE_SENTENCE)
    result = project.llmctl("plan", "--out", PLAN, *options)
    assert result.code == 0
    assert ("it cannot be applied" if "--offline" in options else f"llmctl apply {PLAN}") in result.out
    return project.root / PLAN


def test_a_saved_plan_is_applied_once(applied: Project) -> None:
    plan = json.loads(_save(applied).read_text())
    result = applied.ok("apply", PLAN, "--yes", "--json").json()
    assert result["plan"] == plan["digest"]
    assert applied.answers().revision == plan["gates"][0]["revision"]
    assert applied.plan_code() == 0
    again = applied.llmctl("apply", PLAN, "--yes")
    assert again.code == 6
    assert "the record: serial" in again.err


def _dataset(project: Project) -> None:
    path = project.root / "data/faq_eval.jsonl"
    path.write_text(path.read_text().replace("Which payment methods are there?", "Which ways to pay are there?"))


def _prompt(project: Project) -> None:
    project.edit(ONE_SENTENCE, SYSTEM + " Answer briefly.")


def _another_apply(project: Project) -> None:
    text = project.file.read_text()
    project.edit("card: {intended_use: Answer", "card: {intended_use: Always answer")
    project.apply()
    project.file.write_text(text)


def _gateway(project: Project) -> None:
    _, served = project.admin("GET", "/config")
    config = served["config"]
    config["routes"]["shadow"] = config["routes"]["support"]
    assert project.admin("PUT", "/config", {"expected": served["revision"], "config": config})[0] == 200


@pytest.mark.parametrize(
    ("moved", "named"),
    [
        (_dataset, "dataset.faq-eval: changed in llmops.yaml or a file that it refers to"),
        (_prompt, "prompt.answer: changed in llmops.yaml or a file that it refers to"),
        (_another_apply, "the record: serial"),
        (_gateway, "route.shadow: live was absent when planned"),
    ],
    ids=["the dataset", "the prompt", "another apply", "what is live"],
)
def test_a_stale_plan_is_refused_and_what_moved_is_named(
    applied: Project, moved: Callable[[Project], None], named: str
) -> None:
    dataset = (applied.root / "data/faq_eval.jsonl").read_bytes()
    _save(applied)
    moved(applied)
    refs, served = applied.refs(), applied.answers().revision
    refused = applied.llmctl("apply", PLAN, "--yes")
    (applied.root / "data/faq_eval.jsonl").write_bytes(dataset)
    assert refused.code == 6
    assert named in refused.err
    assert applied.refs() == refs
    assert applied.answers().revision == served


def test_an_edited_plan_is_refused(applied: Project) -> None:
    path = _save(applied)
    plan = json.loads(path.read_text())
    plan["steps"] = [step for step in plan["steps"] if step["type"] != "RunGate"]
    path.write_text(json.dumps(plan))
    refs = applied.refs()
    refused = applied.llmctl("apply", PLAN, "--yes")
    assert refused.code == 1
    assert "it was edited or damaged" in refused.err
    assert applied.refs() == refs


@pytest.mark.parametrize("field", ["offline", "environment", "project", "action"])
def test_a_plan_with_another_head_is_refused(applied: Project, field: str) -> None:
    path = _save(applied, "--offline") if field == "offline" else _save(applied)
    plan = json.loads(path.read_text())
    path.write_text(json.dumps(plan | {field: False if field == "offline" else "other"}))
    refs = applied.refs()
    refused = applied.llmctl("apply", PLAN, "--yes")
    assert refused.code in (1, 6), refused.text
    assert applied.refs() == refs


def test_a_plan_for_another_project_or_environment_says_where_to_apply_it(applied: Project) -> None:
    path = _save(applied)
    plan = json.loads(path.read_text())
    for field, hint in (("project", "Apply it in other; this is acme-support."), ("environment", "with -e other.")):
        edited = plan | {field: "other"}
        path.write_text(json.dumps(sealed(edited | {"digest": body_digest(edited)})))
        refused = applied.llmctl("apply", PLAN, "-e", "dev", "--yes")
        assert (refused.code, hint in refused.err) == (1, True), refused.text


def test_an_offline_plan_is_refused(applied: Project) -> None:
    _save(applied, "--offline")
    refused = applied.llmctl("apply", PLAN, "--yes")
    assert refused.code == 1
    assert "is an offline plan; it cannot be applied" in refused.err
