"""``--json``: always JSON with a format, and plans as ``schema/plan.schema.json`` says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from llmctl.core.digests import Json
from tests.cli.project import REPOSITORY, Project

pytestmark = pytest.mark.e2e

SCHEMA: Json = json.loads((REPOSITORY / "schema" / "plan.schema.json").read_text())
VALID = jsonschema.Draft202012Validator(SCHEMA)
PROMPT = "You are Acme's support assistant."
TEMPLATE = 'Say {{ 7 * 7 }} and {% raw %} and {{ question.__class__ }} "quoted"'


def _checked(plan: Json) -> Json:
    """The plan, when the schema allows it."""
    wrong = [f"{list(e.absolute_path)}: {e.message}" for e in VALID.iter_errors(plan)]
    assert wrong == []
    return plan


@pytest.fixture
def back(applied: Project) -> Iterator[Project]:
    """The applied project, whose file is put back afterwards."""
    text = applied.file.read_text()
    yield applied
    applied.file.write_text(text)


def test_the_schema_is_one_and_closed() -> None:
    VALID.check_schema(SCHEMA)
    objects = [SCHEMA, *(d for d in SCHEMA["$defs"].values() if d.get("type") == "object")]
    assert all("additionalProperties" in d and set(d.get("required", ())) == set(d["properties"]) for d in objects)


@pytest.mark.parametrize("options", [(), ("--offline",)], ids=["live", "offline"])
def test_a_first_plan(project: Project, options: tuple[str, ...]) -> None:
    plan = _checked(project.run("plan", "--json", *options).json())
    assert plan["offline"] is bool(options)
    assert {c["action"] for c in plan["changes"]} == {"create"}
    kinds = {"Provision", "Stage", "RunGate", "Shift", "Promote"}
    assert {s["type"] for s in plan["steps"]} == kinds
    ids = [s["id"] for s in plan["steps"]]
    assert all(ids.index(need) < at for at, s in enumerate(plan["steps"]) for need in (*s["needs"], *s["after"]))


def test_a_plan_that_a_policy_denies_or_warns_about(project: Project) -> None:
    project.replace("license: Apache-2.0", "license: GPL-3.0")
    done = project.run("plan", "--json")
    plan = _checked(done.json())
    assert done.code == 3
    assert [(p["address"], p["ok"]) for p in plan["policies"]] == [("model.support-tiny", False)]
    project.replace("gates:", "unknown:")
    assert project.run("plan", "--json").json()["format"] == 1


def test_a_plan_of_an_update_and_a_saved_one(back: Project) -> None:
    back.replace(PROMPT, PROMPT + " Be brief.")
    saved = back.root.parent / "plan.json"
    done = back.run("plan", "--json", "--detailed-exitcode", "--out", str(saved))
    plan = _checked(done.json())
    assert done.code == 2
    assert {c["address"]: c["action"] for c in plan["changes"]} == {
        "prompt.answer": "update",
        "route.support": "replace",
    }
    assert "Retire" in {s["type"] for s in plan["steps"]}
    assert json.loads(saved.read_text()) == plan


def test_a_saved_plan_is_shown_as_it_was(back: Project, tmp_path: Path) -> None:
    """From a folder without a file or a repository, and after what it was made from has moved."""
    back.replace(PROMPT, PROMPT + " Be brief.")
    saved = tmp_path / "plan.json"
    human = back.run("plan", "--out", str(saved))
    told = back.run("plan", "--explain", "route.support")
    comment = back.run("plan", "--markdown")
    back.replace(" Be brief.", " Be quick.")
    made = json.loads(saved.read_text())

    again = back.run("plan", str(saved), cwd=tmp_path)
    notice, _, shown = again.out.partition("\n")
    assert notice == (
        f"saved plan {saved}, made {made['made_at'][:16].replace('T', ' ')} UTC from commit "
        f"{made['source_commit'][:12]}; it may be stale by now, and `llmctl apply` would say so"
    )
    assert (again.code, shown) == (0, human.out.partition("\n\nSaved to")[0] + "\n")
    assert back.run("plan", str(saved), "--json", cwd=tmp_path).json() == made
    as_comment = back.run("plan", str(saved), "--markdown", cwd=tmp_path).out
    assert notice in as_comment
    assert as_comment.replace(f"```text\n{notice}\n```\n\n", "") == comment.out
    explained = back.run("plan", str(saved), "--explain", "route.support", cwd=tmp_path)
    assert explained.out.split("\n")[1] == told.out.split("\n")[0]
    other = back.run("plan", str(saved), "-e", "prod", cwd=tmp_path)
    assert (other.code, "is a plan for dev, not for prod" in other.err) == (1, True)

    saved.write_text(saved.read_text().replace("Provision", "Destroy"))
    edited = back.run("plan", str(saved), "--json", cwd=tmp_path)
    assert edited.code == 1
    assert "it was edited or damaged" in edited.json()["errors"][0]["summary"]


def test_a_target_says_what_it_leaves_out(back: Project) -> None:
    back.replace(PROMPT, PROMPT + " Be brief.")
    back.replace("license: Apache-2.0", "license: MIT")
    done = back.run("plan", "--json", "--target", "model.support-tiny")
    plan = _checked(done.json())
    assert [c["address"] for c in plan["changes"]] == ["model.support-tiny"]
    assert plan["left_out"] == ["prompt.answer", "route.support"]
    assert "only model.support-tiny, 2 other changes left out" in plan["gist"]["verdict"]
    shown = back.run("plan", "--target", "model.support-tiny").out.split("\n")
    assert shown[1] == plan["gist"]["verdict"]
    assert "left out by --target, though it would change too: prompt.answer, route.support" in shown[2]


def test_an_explanation(applied: Project) -> None:
    told = applied.run("plan", "--json", "--explain", "endpoint.support").json()
    assert (told["format"], told["address"], told["change"]) == (1, "endpoint.support", None)
    assert set(told["dependents"]) == {"route.support", "gate.faq"}


def test_a_plan_that_deletes(back: Project) -> None:
    text = back.file.read_text()
    back.file.write_text(text[: text.index("policies:")])
    plan = _checked(back.run("plan", "--json").json())
    assert [(c["address"], c["action"]) for c in plan["changes"]] == [("policy.open-licence", "delete")]


def test_a_plan_with_warnings(back: Project) -> None:
    hosted = '  hosted: {source: "openai:some", license: MIT, api_key: "${env:LLMCTL_TEST_KEY}"}\n'
    back.replace("models:\n", "models:\n" + hosted)
    plan = _checked(back.run("plan", "--json").json())
    assert [w["address"] for w in plan["warnings"]] == ["model.hosted"]
    assert plan["warnings"][0]["where"]["line"] == 30


def test_a_plan_of_drift(applied: Project) -> None:
    assert applied.run("local", "stop").code == 0
    try:
        done = applied.run("plan", "--json", "--detailed-exitcode")
        plan = _checked(done.json())
        assert (done.code, plan["changes"]) == (2, [])
        assert plan["drift"]
        drift = applied.run("drift", "--json")
        assert (drift.code, drift.json()["format"]) == (2, 1)
        assert drift.json()["drift"] == plan["drift"]
    finally:
        assert applied.run("apply", "--yes").code == 0
    assert applied.run("drift", "--json").json()["drift"] == []


@pytest.mark.parametrize(
    "line",
    ["validate", "plan", "status", "drift", "apply --yes", "audit log", "audit show 1", "audit verify"],
)
def test_every_json_has_a_format(applied: Project, line: str) -> None:
    done = applied.run(*line.split(), "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json()["format"] == 1
    by_variable = applied.run(*line.split(), env={"LLMCTL_JSON": "1"})
    assert by_variable.json()["format"] == 1


@pytest.mark.parametrize("line", ["plan", "status", "drift", "apply --yes", "audit show 1", "unreject 3 --reason x"])
def test_every_error_is_json_too(applied: Project, line: str) -> None:
    done = applied.run(*line.split(), "--json", "-e", "nothing")
    shown = done.json()
    assert (done.code, done.err, shown["format"], shown["exit_code"]) == (1, "", 1, 1)
    assert "nothing" in shown["errors"][0]["summary"]
    assert shown["errors"][0]["hint"]


def test_a_question_is_data(applied: Project) -> None:
    """Template syntax in a question reaches the model as it is, and is never rendered."""
    asked = applied.run("chat", "support", TEMPLATE)
    assert asked.code == 0
    assert asked.out.strip()
    assert "49" not in asked.out
    assert "support@" in asked.err


def test_a_question_in_a_dataset_is_data(back: Project) -> None:
    path = back.root / "data" / "faq_eval.jsonl"
    before = path.read_text()
    row = {**json.loads(before.splitlines()[0]), "id": "template", "question": TEMPLATE}
    path.write_text(before + json.dumps(row) + "\n")
    try:
        assert back.run("validate").code == 0
        done = back.run("apply", "--yes", "--json")
        shown = done.json()
        assert [(g["gate"], g["samples"]) for g in shown["gates"]] == [("faq", 211)]
        assert done.code in (0, 4)
    finally:
        path.write_text(before)
        assert back.run("apply", "--yes").code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["Hello", "--var", "tone=calm"], "unknown prompt variable: tone; declared: question"),
        (["Hello", "--var", "tone"], "write NAME=VALUE"),
        ([" "], "it is empty; ask something"),
    ],
    ids=["too many", "no value", "empty"],
)
def test_a_question_that_does_not_fit_the_prompt(applied: Project, options: list[str], said: str) -> None:
    done = applied.run("chat", "support", *options)
    assert (done.code, done.out) == (1, "")
    assert said in done.err


def test_a_route_that_is_not_there(applied: Project) -> None:
    done = applied.run("chat", "suport", "Hello")
    assert done.code == 1
    assert "there is no route 'suport'" in done.err
    assert "did you mean `support`?" in done.err


@pytest.mark.parametrize(
    ("options", "before", "after", "named"),
    [
        (
            (),
            "dev: {target: local}",
            "dev: {target: local, gateway: {port: 18191}}",
            "`gateway.port` of the environment",
        ),
        (
            ("--target", "prompt.short"),
            "prompts:\n  short: {messages: [{role: user, content: Hello}]}\n  answer:",
            "prompts:\n  answer:",
            "prompt.short: a target of the plan, and neither declared nor recorded any more",
        ),
        ((), "dev: {target: local}", "test: {target: local}", "environment dev: the file does not have it any more"),
    ],
    ids=["a setting of the environment", "a target that is gone", "an environment that is gone"],
)
def test_a_saved_plan_is_refused_as_stale(
    project: Project, tmp_path: Path, options: tuple[str, ...], before: str, after: str, named: str
) -> None:
    saved = str(tmp_path / "plan.json")
    if "short" in before:
        project.replace("prompts:\n  answer:", before)
    assert project.run("plan", "--out", saved, *options).code == 0
    project.replace(before, after)
    refused = project.run("apply", saved, "--yes")
    assert (refused.code, f"{saved} is stale" in refused.err) == (6, True), refused.text
    assert named in refused.err
