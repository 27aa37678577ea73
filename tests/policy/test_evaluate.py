"""Judging resources."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from llmctl.core.address import Address
from llmctl.core.policies import Waiver
from llmctl.core.resources import Environment, Resource
from llmctl.core.steps import Action, Promote, Provision
from llmctl.plan import Drift, Plan, ResourceChange, build_plan
from llmctl.policy import PolicyResult, evaluate, evaluate_base, evaluate_plan
from tests.plan.builders import application, desired, live, recorded

DEV = Environment("dev", "local")
TODAY = date(2026, 11, 21)


def model(name: str = "tiny", **spec: Any) -> Resource:
    given = {"source": "models/tiny.gguf", "license": "MIT", "weights": {"digest": "sha256:1", "adapters": []}}
    return Resource(Address("model", name), {**given, **spec}, revision="abc")


def judge(require: str, *resources: Resource, severity: str = "deny", **more: Any) -> tuple[PolicyResult, ...]:
    policy = {"applies_to": "model", "require": require, "severity": severity, "message": "Say why.", **more}
    return evaluate({"p": policy}, {r.address: r for r in resources}, DEV, project="acme", today=TODAY)


def test_a_rule_that_holds_and_one_that_does_not() -> None:
    good, bad = judge('resource.license == "MIT"', model("a"), model("b", license="GPL-3.0"))
    assert (good.ok, good.denies, good.error, good.message) == (True, False, "", "Say why.")
    assert (bad.ok, bad.denies, bad.error, bad.address) == (False, True, "", Address("model", "b"))


def test_a_warning_does_not_deny_but_an_error_always_does() -> None:
    (failed,) = judge('resource.license == "GPL-3.0"', model(), severity="warn")
    assert not failed.ok
    assert not failed.denies
    (broken,) = judge(
        "resource.lineage.hyperparameters.rank < 9", model(lineage={"hyperparameters": {}}), severity="warn"
    )
    assert broken.denies
    assert broken.error == "a key is not there: rank"


@pytest.mark.parametrize(
    ("require", "error"),
    [
        ("resource.name", "the rule gives a value of type str, not true or false"),
        ("resource.lineage", "the rule gives null, not true or false"),
        ("resource.lineage.base == 'x'", "No such overload"),
        ("resource.name > 1", "No such overload"),
        ("resource.name.matches('(')", "unclosed group"),
        ("resource.licence == 'x' || true", "resource has no field licence"),
        ("resource.license ==", "the rule does not parse"),
    ],
)
def test_what_cannot_be_told_is_a_denial(require: str, error: str) -> None:
    (result,) = judge(require, model())
    assert result.denies
    assert not result.ok
    assert error in result.error


def test_a_number_beyond_64_bits_still_compares() -> None:
    large = model(lineage={"hyperparameters": {"n": 2**80}})
    assert judge("resource.lineage.hyperparameters.n > 1", large)[0].ok
    assert judge("resource.lineage.hyperparameters.n < 1", large)[0].denies


def test_every_field_is_there_and_null_when_not_set() -> None:
    (result,) = judge("resource.lineage == null && resource.api_key == null && resource.files == null", model())
    assert result.ok


def test_an_object_that_is_set_has_all_its_fields() -> None:
    (local,) = judge("resource.weights.remote == null && resource.weights.digest == 'sha256:1'", model())
    assert local.ok
    (partly,) = judge("resource.lineage.base == null", model(lineage={"method": "lora"}))
    assert partly.ok


def test_name_kind_revision_environment_and_project() -> None:
    rule = (
        "resource.name == 'tiny' && resource.kind == 'model' && resource.revision == 'abc'"
        " && environment.name == 'dev' && environment.target == 'local' && project == 'acme'"
    )
    (result,) = judge(rule, model())
    assert result.ok, result.error


def test_only_the_kind_it_applies_to_and_in_order() -> None:
    prompt = Resource(Address("prompt", "answer"), {}, revision="1")
    resources = {r.address: r for r in (model("z"), prompt, model("a"))}
    rule = {"applies_to": "model", "require": "true", "severity": "warn", "message": "m"}
    results = evaluate({"q": rule, "p": rule}, resources, DEV, project="acme", today=TODAY)
    assert [(r.policy, str(r.address)) for r in results] == [
        ("p", "model.a"),
        ("p", "model.z"),
        ("q", "model.a"),
        ("q", "model.z"),
    ]


def test_an_unknown_severity_denies() -> None:
    (result,) = judge("false", model(), severity="warning")
    assert result.denies


def waiver(resource: str = "model.tiny", until: str = "2027-01-31") -> dict[str, str]:
    return {"resource": resource, "until": until, "reason": "fallback only", "approved_by": "security"}


@pytest.mark.parametrize(
    ("until", "denies", "note"),
    [
        ("2027-01-31", False, ""),
        ("2026-12-06", False, ""),
        ("2026-12-05", False, "14 days are left"),
        ("2026-11-21", False, "today is its last day"),
        ("2026-11-20", True, "its waiver ran out on 2026-11-20 (fallback only, approved by security)"),
        ("soon", True, "its waiver ran out on soon (fallback only, approved by security)"),
    ],
)
def test_a_waiver_holds_to_the_end_of_its_last_day(until: str, denies: bool, note: str) -> None:
    (result,) = judge("false", model(), waivers=[waiver(until=until)])
    assert (result.ok, result.denies, result.note) == (False, denies, note)
    expected = None if denies else Waiver("model.tiny", until, "fallback only", "security")
    assert result.waiver == expected


def test_a_waiver_is_for_one_resource_and_the_longest_counts() -> None:
    terms = [waiver(until="2026-11-01"), waiver(until="2027-06-30"), waiver("model.b", "2026-11-01")]
    other, mine = judge("false", model("b"), model(), waivers=terms)
    assert other.denies
    assert "ran out on 2026-11-01" in other.note
    assert mine.waiver is not None
    assert (mine.waiver.until, mine.note) == ("2027-06-30", "")


def test_an_error_is_never_waived_and_what_holds_needs_no_waiver() -> None:
    (broken,) = judge("resource.api_key.env == ''", model(), waivers=[waiver()])
    assert broken.denies
    assert broken.waiver is None
    (good,) = judge("true", model(), waivers=[waiver(until="2026-01-01")])
    assert (good.ok, good.waiver, good.note) == (True, None, "")


# -- the plan as a whole ------------------------------------------------------------------------


def policy(require: str, applies_to: str = "model", severity: str = "deny", **more: Any) -> dict[str, Any]:
    return {"applies_to": applies_to, "require": require, "severity": severity, "message": "Say why.", **more}


def over(plan: Plan, require: str, severity: str = "deny") -> PolicyResult:
    (result,) = evaluate_plan({"p": policy(require, "plan", severity), "q": policy("false")}, plan, today=TODAY)
    return result


def plan_of_an_edit() -> Plan:
    """A prompt and its route change, a gate is loosened, a policy goes."""
    old, new = application(), application(system="Be kind.", minimum=0.8)
    del new[Address("policy", "open")]
    return build_plan(desired(new), recorded(old), live(old))


@pytest.mark.parametrize(
    "require",
    [
        "plan.action == 'apply' && environment.name == 'dev' && project == 'acme'",
        "plan.counts.update == 2 && plan.counts.replace == 1 && plan.counts.delete == 1 && plan.counts.create == 0",
        "plan.deletions == ['policy.open'] && plan.drift == 0 && plan.counts.restore == 0 && plan.counts.move == 0",
        "plan.changes.exists(c, c.address == 'prompt.answer' && c.kind == 'prompt' && c.name == 'answer'"
        " && c.action == 'update' && c.reason != '')",
        "plan.changes.filter(c, c.kind == 'route').size() == 1 && plan.gates > 0",
    ],
)
def test_what_a_rule_can_read_of_a_plan(require: str) -> None:
    result = over(plan_of_an_edit(), require)
    assert result.ok, result.error
    assert result.address == Address("plan", "dev")


def test_a_plan_that_breaks_a_rule_and_one_that_cannot_be_judged() -> None:
    plan = plan_of_an_edit()
    assert over(plan, "plan.counts.delete == 0").denies
    assert not over(plan, "plan.counts.delete == 0", "warn").denies
    beyond = over(plan, "plan.changes[99].kind == 'x'", "warn")
    assert beyond.denies
    assert beyond.error


def test_drift_moves_and_restores_are_counted() -> None:
    route = Address("route", "support")
    moved = ResourceChange(route, Action.MOVE, "renamed", "1", "1", moved_from=Address("route", "help"))
    steps = (
        Provision("provision:endpoint.main@1", Address("endpoint", "main"), (), "1", Action.RESTORE, restores=True),
        Promote("restore:route.support@1", route, (), "1", Action.RESTORE),
        Promote("promote:route.support@2", route, (), "2", Action.REPLACE),
    )
    plan = replace(plan_of_an_edit(), changes=(moved,), steps=steps, drift=(Drift(route, "gone"),))
    result = over(
        plan, "plan.counts.move == 1 && plan.counts.restore == 2 && plan.drift == 1 && size(plan.changes) == 1"
    )
    assert result.ok, result.error


# -- as the policies were before a change -------------------------------------------------------

OPEN = Address("policy", "open")
STRICT = policy("resource.license == 'MIT'")


def change(before: dict[str, Any] | None, after: dict[str, Any] | None, **edits: Any) -> tuple[PolicyResult, ...]:
    """What the earlier text of a policy says of a plan that changes the policy and, by ``edits``, the application."""
    old, new = application(), application(**edits)
    for resources, spec in ((old, before), (new, after)):
        del resources[OPEN]
        if spec is not None:
            resources[OPEN] = Resource(OPEN, spec, str(spec))
    plan = build_plan(desired(new), recorded(old), live(old))
    head = {} if after is None else {"open": after}
    base = {} if before is None else {"open": before}
    judged = evaluate(head, new, DEV, project="acme", today=TODAY) + evaluate_plan(head, plan, today=TODAY)
    return evaluate_base(base, head, plan, judged, today=TODAY)


@pytest.mark.parametrize(
    "after",
    [
        None,
        policy("true"),
        policy("resource.license == 'MIT'", severity="warn"),
        policy("true", applies_to="prompt"),
        policy("resource.license == 'MIT'", waivers=[waiver("model.tiny")]),
    ],
    ids=["removed", "another rule", "only a warning", "another kind", "a waiver"],
)
def test_a_change_that_loosens_a_policy_and_uses_it_is_refused(after: dict[str, Any] | None) -> None:
    (refused,) = change(STRICT, after, license="GPL-3.0")
    assert (refused.policy, refused.address, refused.basis, refused.denies) == (
        "open",
        Address("model", "tiny"),
        "base",
        True,
    )
    assert refused.note == "apply the loosened policy in a change of its own first"
    assert change(STRICT, after) == ()  # by itself it goes through


def test_what_the_change_does_not_touch_is_not_judged_by_the_earlier_text() -> None:
    assert change(policy("false"), policy("true")) == ()
    assert change(policy("false"), policy("true"), system="Be kind.") == ()  # a prompt changes, the model does not


def test_a_policy_that_gets_stricter_or_stays_is_judged_once() -> None:
    assert change(policy("resource.license == 'MIT'", severity="warn"), STRICT, license="GPL-3.0") == ()
    assert change(STRICT, STRICT, license="GPL-3.0") == ()
    assert change(STRICT, {**STRICT, "message": "Other words."}, license="GPL-3.0") == ()
    assert change(None, STRICT, license="GPL-3.0") == ()
    new, other = policy("resource.license != 'GPL-3.0'"), policy("resource.license != 'MIT'")
    assert change(new, other, license="Apache-2.0") == ()


def test_a_warning_that_is_loosened_away_is_kept_as_one() -> None:
    (kept,) = change(policy("resource.license == 'MIT'", severity="warn"), None, license="GPL-3.0")
    assert (kept.basis, kept.denies, kept.ok) == ("base", False, False)


def test_a_rule_over_the_plan_cannot_be_loosened_and_used_at_once() -> None:
    no_updates = policy("plan.counts.update == 0", "plan")
    (refused,) = change(no_updates, None, system="Be kind.")
    assert (refused.address, refused.basis, refused.denies) == (Address("plan", "dev"), "base", True)
    assert change(policy("plan.counts.delete == 0", "plan"), None) == ()


def test_a_policy_over_policies_can_be_loosened_by_itself() -> None:
    strict = policy("resource.severity == 'deny'", "policy")
    assert change(strict, policy("resource.severity == 'deny'", "policy", severity="warn")) == ()
