"""Canary, what changes in place and what is proven anew, replicas, protection, weakened gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from llmctl.core.address import Address
from llmctl.core.resources import RecordState, Resource
from llmctl.core.steps import Destroy, Move, Promote, Provision, Retire, RunGate, Shift, Stage
from llmctl.plan import Plan, build_plan
from tests.plan.builders import NOTHING, application, desired, live, recorded, without

ROUTE = Address("route", "support")
CANARY: dict[str, Any] = {"canary": (10, 50, 100), "hold_s": 30.0}


def planned(before: Mapping[Address, Resource], after: Mapping[Address, Resource], **more: Any) -> Plan:
    return build_plan(desired(after), recorded(before), live(before), **more)


# -- canary -----------------------------------------------------------------------------------------


def test_a_canary_is_a_step_a_percentage_each_after_the_former() -> None:
    before, after = application(**CANARY), application(system="Be kind.", **CANARY)
    plan = planned(before, after)
    shifts = [s for s in plan.steps if isinstance(s, Shift)]
    old, new = before[ROUTE].revision, after[ROUTE].revision
    assert [dict(s.weights) for s in shifts] == [{old: 90, new: 10}, {old: 50, new: 50}, {old: 0, new: 100}]
    assert [s.hold_s for s in shifts] == [30.0, 30.0, 0.0]
    assert [s.id for s in shifts] == [
        f"shift:route.support:10@{new}",
        f"shift:route.support:50@{new}",
        f"shift:route.support@{new}",
    ]
    assert [s.needs for s in shifts[1:]] == [(shifts[0].id,), (shifts[1].id,)]
    assert {s.id for s in plan.steps if isinstance(s, Stage | RunGate)} == set(shifts[0].needs)
    assert next(s for s in plan.steps if isinstance(s, Promote)).needs == (shifts[2].id,)
    assert "route.support shifts 10 → 50 → 100 %, 30 s each" in plan.impact


def test_the_first_revision_of_a_route_takes_all_traffic_at_once() -> None:
    after = application(**CANARY)
    plan = build_plan(desired(after), recorded({}, 0), NOTHING)
    (shift,) = [s for s in plan.steps if isinstance(s, Shift)]
    assert (dict(shift.weights), shift.hold_s) == ({after[ROUTE].revision: 100}, 0.0)


def test_a_rollback_takes_all_traffic_at_once() -> None:
    before, after = application(**CANARY), application(system="Be kind.", **CANARY)
    plan = planned(before, after, action="rollback", gated=False, rollback_to=1)
    (shift,) = [s for s in plan.steps if isinstance(s, Shift)]
    assert (dict(shift.weights)[after[ROUTE].revision], shift.hold_s) == (100, 0.0)
    assert not any("shifts" in line for line in plan.impact)


def test_a_record_of_before_there_were_canaries_shifts_at_once() -> None:
    before, after = application(), application(system="Be kind.")
    del after[ROUTE].spec["rollout"]
    (shift,) = [s for s in planned(before, after).steps if isinstance(s, Shift)]
    assert dict(shift.weights) == {before[ROUTE].revision: 0, after[ROUTE].revision: 100}


# -- in place ---------------------------------------------------------------------------------------


def edited(address: str, **fields: Any) -> dict[Address, Resource]:
    """An application with other fields in one resource, and in what repeats it."""
    found = application()
    key = Address.parse(address)
    spec = {**found[key].spec, **fields}
    found[key] = replace(found[key], spec=spec)
    if key.kind == "endpoint":
        chain = [{**link, "spec": spec} for link in found[ROUTE].spec["chain"]]
        found[ROUTE] = replace(found[ROUTE], spec={**found[ROUTE].spec, "chain": chain})
    return found


@pytest.mark.parametrize(
    ("address", "fields", "touched"),
    [
        ("route.support", {"rollout": {"canary": [50, 100], "hold_s": 60.0}}, {"route.support"}),
        ("route.support", {"rollout": {"canary": [100], "hold_s": 1.0}}, {"route.support"}),
        ("route.support", {"aliases": ["help"]}, {"route.support"}),
        ("route.support", {"protect": True}, {"route.support"}),
        ("endpoint.main", {"replicas": {"min": 2, "max": 2}}, {"endpoint.main", "route.support"}),
        ("endpoint.main", {"timeouts": {"ready_s": 9.0, "drain_s": 1.0}}, {"endpoint.main", "route.support"}),
        ("endpoint.main", {"protect": True}, {"endpoint.main", "route.support"}),
        ("model.tiny", {"card": {"limitations": "knows little"}}, {"model.tiny"}),
        ("gate.faq", {"concurrency": 4}, {"gate.faq"}),
        ("gate.faq", {"timeouts": {"request_s": 1.0, "run_s": 2.0}}, {"gate.faq"}),
        ("policy.open", {"waivers": [{"resource": "model.tiny", "until": "2027-01-31"}]}, {"policy.open"}),
    ],
)
def test_an_operating_field_changes_in_place_and_rolls_nothing_out(
    address: str, fields: dict[str, Any], touched: set[str]
) -> None:
    plan = planned(application(), edited(address, **fields))
    assert {str(c.address): c.action.value for c in plan.changes} == dict.fromkeys(touched, "update")
    assert all(isinstance(s, Provision) for s in plan.steps)
    assert {str(s.address) for s in plan.steps} == touched


def order(plan: Plan) -> list[str]:
    return [s.id.partition("@")[0] for s in plan.steps]


def test_more_replicas_come_before_the_gateway_hears_of_them() -> None:
    plan = planned(application(), application(replicas=3))
    assert order(plan) == ["provision:endpoint.main", "provision:route.support"]
    assert plan.steps[0].id in plan.steps[1].needs


def test_fewer_replicas_go_after_the_gateway_has_forgotten_them() -> None:
    plan = planned(application(replicas=3), application())
    assert order(plan) == ["provision:route.support", "provision:endpoint.main"]
    assert plan.steps[1].needs == (plan.steps[0].id,)


def test_fewer_replicas_wait_for_the_revision_that_still_uses_them() -> None:
    plan = planned(application(replicas=3), application(system="Be kind."))
    endpoint = next(s for s in plan.steps if s.address.kind == "endpoint")
    retired = next(s for s in plan.steps if isinstance(s, Retire))
    assert retired.id in endpoint.needs
    assert endpoint.id not in next(s for s in plan.steps if isinstance(s, Stage)).needs


def test_fewer_replicas_of_what_does_not_run_are_only_started_anew() -> None:
    before, after = application(replicas=3), application()
    seen = live(before)
    seen = replace(
        seen,
        readings={k: r for k, r in seen.readings.items() if k != "endpoint"}
        | {"endpoint": NOTHING.readings["endpoint"]},
    )
    plan = build_plan(desired(after), recorded(before), seen)
    assert order(plan) == ["provision:endpoint.main", "provision:route.support"]


def test_what_else_changes_with_the_number_of_replicas_is_published_afterwards() -> None:
    before, after = application(replicas=3), edited("endpoint.main", api_key={"env": "KEY"})
    plan = planned(before, after)
    assert order(plan) == ["provision:route.support", "provision:endpoint.main", "publish:route.support"]
    # Also after an apply that recorded the route, and failed at the endpoint.
    stuck = {**before, ROUTE: after[ROUTE]}
    plan = build_plan(desired(after), recorded(stuck), live(before))
    assert order(plan)[-2:] == ["provision:endpoint.main", "publish:route.support"]


# -- protect ----------------------------------------------------------------------------------------


def test_what_the_record_protects_is_not_deleted_even_when_this_change_lifts_it() -> None:
    before = application(protected=("prompt.answer", "policy.open"))
    after = without(application(names={"prompt.answer": "other"}), "policy.open")
    plan = planned(before, after)
    assert [(str(d.address), d.summary) for d in plan.denials] == [
        ("policy.open", "it is protected, and this plan would delete it"),
        ("prompt.answer", "it is protected, and this plan would delete it"),
    ]
    assert [d.hint for d in plan.denials] == [
        "Keep it, with `protect: false`, and apply that first; then remove it in a change of its own."
    ] * 2


@pytest.mark.parametrize("more", [{}, {"action": "rollback", "gated": False, "rollback_to": 1}])
def test_a_protected_endpoint_is_not_replaced(more: dict[str, Any]) -> None:
    before, after = application(protected=("endpoint.main",)), application(weights="w2")
    denied = planned(before, after, **more).denials
    assert [d.summary for d in denied] == ["it is protected, and this plan would replace it"]


def test_protection_stops_destroy_and_neither_changes_in_place_nor_renames() -> None:
    before = application(protected=("model.tiny", "prompt.answer"))
    gone = build_plan(desired({}), recorded(before), live(before), action="destroy", gated=False)
    assert [str(d.address) for d in gone.denials] == ["model.tiny", "prompt.answer"]
    assert not planned(before, application(license="Apache-2.0", weights="w2")).denials
    after = application(names={"prompt.answer": "reply"}, protected=("model.tiny", "prompt.answer"))
    plan = build_plan(desired(after, ("prompt.answer", "prompt.reply")), recorded(before), live(before))
    assert not plan.denials
    assert [s for s in plan.steps if isinstance(s, Move)]


def test_protection_is_not_lost_by_a_rename_that_replaces() -> None:
    before = application(protected=("endpoint.main",))
    names, moved = {"endpoint.main": "primary"}, ("endpoint.main", "endpoint.primary")
    same = build_plan(desired(application(names=names), moved), recorded(before), live(before))
    assert not same.denials
    other = build_plan(desired(application(names=names, weights="w2"), moved), recorded(before), live(before))
    assert [(str(d.address), d.summary) for d in other.denials] == [
        ("endpoint.main", "it is protected, and this plan would delete it")
    ]
    assert other.denials[0].hint == (
        "Rename it without another change, which is allowed. "
        "Or keep the name main and apply `protect: false` for it; then rename it."
    )


# -- weakened ---------------------------------------------------------------------------------------

MATCH = {"exact_match": {"min": 0.9, "max_drop": 0.02}}
LATENCY = {"latency_p95_ms": {"max": 500}}
LOAD: dict[str, Any] = {"concurrency": 16, "timeouts": {"request_s": 60.0, "run_s": 600.0}}
STRICT: dict[str, Any] = {"metrics": {**MATCH, **LATENCY}, "slices": {"language": MATCH}, **LOAD}
LOOSE = {"exact_match": {"min": 0.5, "max_drop": 0.02}}


def exact(**rules: Any) -> dict[str, Any]:
    """The strict gate with other rules for one of its metrics."""
    return {"metrics": {"exact_match": rules, **LATENCY}}


WAIVER = {"resource": "model.tiny", "until": "2027-01-31", "reason": "soon", "approved_by": "me"}


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"metrics": MATCH}, ("latency_p95_ms is no longer measured",)),
        (exact(min=0.8, max_drop=0.02), ("exact_match min 0.9 → 0.8",)),
        (exact(min=0.9, max_drop=0.1), ("exact_match max_drop 0.02 → 0.1",)),
        (exact(min=0.9), ("exact_match max_drop 0.02 is removed",)),
        (
            exact(min=0.9, max_drop=0.02, decide="point"),
            ("exact_match is decided by the measured point, no longer by an interval",),
        ),
        ({"slices": {}}, ("the slices of language are no longer judged",)),
        ({"slices": {"language": LOOSE}}, ("for each language: exact_match min 0.9 → 0.5",)),
        ({"confidence": 0.9}, ("confidence 0.95 → 0.9",)),
        ({"expected": "draft"}, ("expects another column now: answer → draft",)),
        (
            {"inputs": {"question": "answer"}},
            ("question is filled from another column now: question → answer",),
        ),
        ({"inputs": {"question": "question", "tone": "tone"}}, ()),
        ({"confidence": 0.99}, ()),
        ({"metrics": {**STRICT["metrics"], "rouge_l": {"min": 0.5}}}, ()),
        (exact(min=0.95, max_drop=0.01), ()),
    ],
)
def test_a_gate_that_asks_for_less_is_said_to_be_weakened(fields: dict[str, Any], what: tuple[str, ...]) -> None:
    plan = planned(application(gate=STRICT), application(gate={**STRICT, **fields}))
    assert tuple(w.what for w in plan.weakened) == ((what,) if what else ())
    # The route does not change: the gate runs once, as it is declared now.
    assert [s.as_recorded for s in plan.steps if isinstance(s, RunGate)] == [False]


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"concurrency": 4}, ("latency and errors are measured among fewer requests at a time: 16 → 4",)),
        ({"concurrency": 32}, ()),
        ({"timeouts": {"request_s": 90.0, "run_s": 60.0}}, ("a request fails later: after 60 s → 90 s",)),
        ({"timeouts": {"request_s": 30.0, "run_s": 900.0}}, ()),
        ({"metrics": MATCH, "concurrency": 4}, ("latency_p95_ms is no longer measured",)),
    ],
)
def test_a_gate_that_asks_more_gently_is_weakened_and_proves_a_new_revision_as_it_was_too(
    fields: dict[str, Any], what: tuple[str, ...]
) -> None:
    after = application(gate={**STRICT, **fields}, system="Be kind.")
    plan = planned(application(gate=STRICT), after)
    assert tuple(w.what for w in plan.weakened) == ((what,) if what else ())
    runs = sorted(s.as_recorded for s in plan.steps if isinstance(s, RunGate))
    assert runs == ([False, True] if what else [False])


def test_fewer_requests_at_a_time_do_not_weaken_a_gate_of_quality_alone() -> None:
    strict = {"metrics": MATCH, **LOAD}
    assert not planned(application(gate=strict), application(gate={**strict, "concurrency": 1})).weakened
    before_it_was_a_setting = application(gate={"metrics": LATENCY})
    assert not planned(before_it_was_a_setting, application(gate={"metrics": LATENCY, **LOAD})).weakened
    assert not planned(application(gate={"metrics": LATENCY, **LOAD}), before_it_was_a_setting).weakened


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"severity": "warn"}, ("severity deny → warn",)),
        ({"applies_to": "prompt"}, ("applies to other resources now: model → prompt",)),
        ({"require": "1 == 1"}, ("its rule changed and cannot be compared; read it",)),
        ({"waivers": [WAIVER]}, ("a waiver for model.tiny until 2027-01-31",)),
        ({"message": "other"}, ()),
    ],
)
def test_a_policy_that_asks_for_less_is_said_to_be_weakened(fields: dict[str, Any], what: tuple[str, ...]) -> None:
    plan = planned(application(), application(policy=fields))
    assert tuple(w.what for w in plan.weakened) == ((what,) if what else ())


def test_a_waiver_that_is_extended_weakens_and_one_that_is_shortened_does_not() -> None:
    longer = {**WAIVER, "until": "2028-01-31"}
    short, long = application(policy={"waivers": [WAIVER]}), application(policy={"waivers": [longer]})
    (found,) = planned(short, long).weakened
    assert found.what == ("the waiver for model.tiny lasts longer: 2027-01-31 → 2028-01-31",)
    assert not planned(long, short).weakened


def test_a_new_revision_must_also_pass_a_gate_that_the_same_change_weakens() -> None:
    before, after = application(), application(minimum=0.5, system="Be kind.")
    plan = planned(before, after)
    declared, strict = sorted((s for s in plan.steps if isinstance(s, RunGate)), key=lambda s: s.as_recorded)
    assert (declared.as_recorded, strict.as_recorded) == (False, True)
    assert strict.after == (declared.id,)
    assert strict.id == f"gate:faq(recorded):route.support@{after[ROUTE].revision}"
    shift = next(s for s in plan.steps if isinstance(s, Shift))
    assert {declared.id, strict.id} <= set(shift.needs)
    forecast = next(g for g in plan.gates if g.as_recorded)
    assert "exact_match ≥ 0.9" in forecast.rules
    assert forecast.why.startswith("weakened by this change")
    # Recorded only once the route has passed it as it was: a second apply must not know the weaker one alone.
    promote = next(s for s in plan.steps if isinstance(s, Promote))
    assert promote.id in next(s for s in plan.steps if s.id.startswith("provision:gate.faq")).needs


def test_a_new_revision_must_pass_a_gate_that_the_same_change_deletes() -> None:
    before, after = application(), without(application(system="Be kind."), "gate.faq")
    plan = planned(before, after)
    (strict,) = [s for s in plan.steps if isinstance(s, RunGate)]
    assert strict.as_recorded
    assert strict.id in next(s for s in plan.steps if isinstance(s, Shift)).needs
    destroy = next(s for s in plan.steps if isinstance(s, Destroy))
    assert {s.id for s in plan.steps if isinstance(s, Promote)} <= set(destroy.needs)
    assert [(str(w.address), w.what) for w in plan.weakened] == [("gate.faq", ("it is deleted",))]


def test_a_rollback_asks_no_gate_as_it_was() -> None:
    plan = planned(application(), application(minimum=0.5, system="x"), action="rollback", gated=False, rollback_to=1)
    assert not [s for s in plan.steps if isinstance(s, RunGate)]


def test_what_is_weaker_than_another_revision_of_the_file_is_said_too() -> None:
    known: RecordState = recorded({}, 0)
    plan = build_plan(desired(application(minimum=0.5)), known, None, base=application(), base_name="main")
    assert [(w.what, w.against) for w in plan.weakened] == [(("exact_match min 0.9 → 0.5",), "main")]
    both = planned(application(), application(minimum=0.5), base=application(), base_name="main")
    assert [w.against for w in both.weakened] == ["the record"]
