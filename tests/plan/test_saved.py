"""The plan file: what is saved is what is read back, and it tells what has moved since."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, Severity, SourceRange
from llmctl.core.errors import InvalidInput
from llmctl.core.policies import PolicyResult, Waiver
from llmctl.core.resources import ALL, Environment, Reading, Rejection
from llmctl.live import LiveState
from llmctl.plan import Plan, build_plan, load_plan, moved, plan_digest, plan_json, read_plan, sealed
from llmctl.plan.planfile import body_digest
from tests.plan.builders import application, desired, live, recorded, without

SCHEMA = json.loads((Path(__file__).parents[2] / "schema" / "plan.schema.json").read_text())
for _shown in ("made_at", "gist", "seal"):  # the command line adds them
    SCHEMA["required"].remove(_shown)
VALID = jsonschema.Draft202012Validator(SCHEMA)
TARGETS = (Address("route", "help"), Address("endpoint", "spare"))


def everything() -> Plan:
    """A plan with something in every field."""
    before = application(fallback=True, protected=("policy.open",))
    names = {"route.support": "help"}
    after = application(names=names, aliases=("support",), minimum=0.5, system="Be kind.", canary=(10, 100), hold_s=5)
    after = without(after, "policy.open")
    help_ = Address("route", "help")
    rejection = Rejection(help_, after[help_].revision, 3, "wrong answers")
    seen = live(before)
    seen = LiveState({**seen.readings, "dataset": Reading(unreadable={ALL: Diagnostic("it hangs")})}, seen.gateway)
    seen = LiveState({**seen.readings, "model": Reading()}, seen.gateway)
    plan = build_plan(
        desired(after, ("route.support", "route.help")),
        recorded(before, rejections=(rejection,)),
        seen,
        targets=TARGETS,
        base=application(),
        base_name="main",
        source_commit="c0ffee" * 6 + "c0ff",
    )
    waived = PolicyResult(
        "open", "deny", Address("model", "tiny"), False, "no", waiver=Waiver("model.tiny", "2027-01-31", "soon", "me")
    )
    warning = Diagnostic("unset", Severity.WARNING, SourceRange("llmops.yaml", 3, 5), Address("model", "tiny"))
    return replace(plan, policies=(waived,), warnings=(warning,))


def plans() -> list[Plan]:
    before, after = application(), application(minimum=0.5, system="Be kind.", canary=(10, 100), hold_s=5.0)
    names = {"route.support": "help"}
    moving = desired(application(names=names, aliases=("support",)), ("route.support", "route.help"))
    return [
        everything(),
        build_plan(desired(after), recorded(before), live(before)),
        build_plan(desired(application(fallback=True)), recorded(before), None),
        build_plan(moving, recorded(before), live(before)),
        build_plan(desired({}), recorded(before), live(before), action="destroy", gated=False),
        build_plan(desired(before), recorded(after), live(after), action="rollback", gated=False, rollback_to=1),
    ]


@pytest.mark.parametrize("plan", plans())
def test_a_saved_plan_is_as_the_schema_says_and_reads_back_the_same(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "a plan.json"
    data = plan_json(plan)
    assert [e.message for e in VALID.iter_errors(data)] == []
    path.write_text(json.dumps(sealed(data)))
    again = load_plan(path)
    assert plan_json(again) == data
    assert again.steps == plan.steps
    assert again.changes == plan.changes
    saved = read_plan(path)
    assert (saved.digest, saved.targets, saved.rollback_to) == (plan_digest(plan), plan.targets, plan.rollback_to)


def test_what_a_policy_of_another_revision_had_against_it_is_read_back(tmp_path: Path) -> None:
    """Whoever applies it does not know that revision any more."""
    tiny = Address("model", "tiny")
    allowed = PolicyResult("open", "deny", tiny, True, "no", basis="base")
    denied = PolicyResult("licence", "deny", tiny, False, "no", basis="base", note="apply it first")
    path = tmp_path / "plan.json"
    plan = replace(everything(), policies=(allowed, denied, replace(denied, basis="head")))
    path.write_text(json.dumps(sealed(plan_json(plan))))
    saved = read_plan(path)
    assert saved.before == (allowed, denied)
    assert {w.against for w in saved.weakened} == {"main"}


def test_every_field_of_the_rich_plan_says_something() -> None:
    plan = everything()
    assert plan.targets == TARGETS
    assert plan.blocked
    assert plan.waiting
    assert plan.weakened
    assert plan.warnings
    assert plan.policies


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[:100], "not a plan"),
        (lambda _: "", "not a plan"),
        (lambda _: "[1]", "not a plan"),
        (lambda text: text.replace('"prompt.answer"', '"prompt.other"'), "does not match its digest"),
        (lambda text: text.replace('"format": 1', '"format": 99'), "its format is 99"),
    ],
)
def test_a_file_that_is_no_plan_is_refused(damage: object, said: str, tmp_path: Path) -> None:
    before, after = application(), application(system="Be kind.")
    path = tmp_path / "plan.json"
    text = json.dumps(sealed(plan_json(build_plan(desired(after), recorded(before), live(before)))))
    path.write_text(damage(text))  # type: ignore[operator]
    for reads in (read_plan, load_plan):
        with pytest.raises(InvalidInput, match=said):
            reads(path)


@pytest.mark.parametrize(
    "edit",
    [
        {"environment": 3},
        {"project": None},
        *({"inputs": {field: wrong}} for field in ("settings", "desired", "live") for wrong in (None, [1], "x")),
        {"inputs": {"another": 1}},
    ],
)
def test_a_file_that_was_made_up_with_its_digest_is_refused(edit: dict[str, Any], tmp_path: Path) -> None:
    before, after = application(), application(system="Be kind.")
    plan = plan_json(build_plan(desired(after), recorded(before), live(before)))
    plan |= {k: plan[k] | v if isinstance(v, dict) else v for k, v in edit.items()}
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(sealed(plan | {"digest": body_digest(plan)})))
    for reads in (read_plan, load_plan):
        with pytest.raises(InvalidInput, match="it is not a plan"):
            reads(path)


def test_a_path_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        load_plan(tmp_path / "nothing.json")


def test_what_moved_since_is_named() -> None:
    before, after = application(), application(system="Be kind.")
    saved = build_plan(desired(after), recorded(before), live(before)).inputs
    assert moved(saved, saved) == []

    def lines(want: object, state: object, seen: object) -> list[str]:
        return moved(saved, build_plan(want, state, seen).inputs)  # type: ignore[arg-type]

    same = (recorded(before), live(before))
    where = "llmops.yaml or a file that it refers to"
    assert lines(desired(application(system="Be rude.")), *same) == [
        f"prompt.answer: changed in {where}",
        f"route.support: changed in {where}",
    ]
    assert lines(desired(without(after, "policy.open")), *same) == [f"policy.open: gone from {where}"]
    assert lines(desired(before), *same) == [
        f"prompt.answer: changed in {where}",
        f"route.support: changed in {where}",
    ]
    assert lines(desired(after), recorded(before, serial=2), live(before))[0].startswith("the record: serial 1")
    gone = lines(desired(after), recorded(before), LiveState())
    assert any(line.startswith("endpoint.main@") and line.endswith("is absent now") for line in gone)


def test_a_setting_of_the_environment_that_moved_is_named() -> None:
    before, after = application(), application(system="Be kind.")
    saved = build_plan(desired(after), recorded(before), live(before)).inputs
    other = Environment("dev", "local", gateway_port=8081, promote_from="test")
    now = build_plan(replace(desired(after), environment=other), recorded(before), live(before)).inputs
    assert moved(saved, now) == [
        "`gateway.port` of the environment: was not set when planned, is 8081 now",
        "`promote_from` of the environment: was not set when planned, is test now",
    ]
    assert moved(now, replace(now, settings={**now.settings, "gateway.port": "8082"})) == [
        "`gateway.port` of the environment: was 8081 when planned, is 8082 now"
    ]


def test_a_plan_of_before_settings_were_saved_is_shown_and_not_applied(tmp_path: Path) -> None:
    before, after = application(), application(system="Be kind.")
    data = plan_json(build_plan(desired(after), recorded(before), live(before)))
    inputs = dict(data["inputs"])
    del inputs["settings"]
    old = {**data, "inputs": inputs}
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(sealed({**old, "digest": body_digest(old)})))
    assert load_plan(path).steps
    now = build_plan(desired(after), recorded(before), live(before)).inputs
    assert moved(read_plan(path).inputs, now) == [
        "the environment's settings: the plan is of an earlier llmctl, which did not save them"
    ]


def test_a_file_is_not_blamed_for_what_another_apply_recorded() -> None:
    before, after = application(), application(system="Be kind.")
    saved = build_plan(desired(after), recorded(before), live(before)).inputs
    lines = moved(saved, build_plan(desired(after), recorded(after, serial=2), live(after)).inputs)
    assert lines[0] == "the record: serial 1 when planned, 2 now"
    assert not [line for line in lines if "llmops.yaml" in line]


def test_a_deletion_that_is_taken_back_is_named() -> None:
    before = application()
    saved = build_plan(desired(without(before, "policy.open")), recorded(before), live(before)).inputs
    now = build_plan(desired(before), recorded(before), live(before)).inputs
    assert moved(saved, now) == ["policy.open: back in llmops.yaml or a file that it refers to"]
