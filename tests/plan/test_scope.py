"""What a plan leaves alone: what no target asks for, and what hangs on something that cannot be read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.resources import ALL, Key, Reading, Resource
from llmctl.core.steps import Destroy, Promote, Retire, RunGate, Stage
from llmctl.live import LiveState
from llmctl.plan import Plan, build_plan
from tests.plan.builders import NOTHING, application, desired, live, recorded, without

HANGS = Diagnostic("it does not answer")


def targets(*addresses: str) -> tuple[Address, ...]:
    return tuple(Address.parse(a) for a in addresses)


def changed(plan: Plan) -> set[str]:
    return {str(c.address) for c in plan.changes}


def named(addresses: tuple[Address, ...]) -> set[str]:
    return {str(a) for a in addresses}


def unreadable(seen: LiveState, *kinds: str) -> LiveState:
    readings = {**seen.readings, **{k: Reading(unreadable={ALL: HANGS}) for k in kinds if k != "route"}}
    gateway = replace(seen.gateway, configs={}, unreadable="it hangs") if "route" in kinds else seen.gateway
    return LiveState(readings, gateway)


def untouched(plan: Plan, *kinds: str) -> bool:
    return not [s for s in plan.steps if s.address.kind in kinds]


# -- targets ----------------------------------------------------------------------------------------


def test_a_target_takes_along_what_it_needs_and_leaves_out_the_rest() -> None:
    before, after = application(), application(system="Be kind.", license="Apache-2.0", rows="d2")
    plan = build_plan(desired(after), recorded(before), live(before), targets=targets("prompt.answer"))
    assert changed(plan) == {"prompt.answer"}
    assert named(plan.left_out) == {"route.support", "model.tiny", "dataset.faq", "gate.faq"}
    assert plan.targets == targets("prompt.answer")
    route = Address("route", "support")
    assert plan.desired.resources[route].spec == before[route].spec
    assert plan.impact == ("prompt.answer changed: route.support stays as it is recorded",)
    assert not [s for s in plan.steps if s.address.kind != "prompt"]


def test_a_targeted_route_brings_its_gates_and_their_datasets() -> None:
    before, after = application(), application(system="Be kind.", rows="d2", policy={"message": "other"})
    plan = build_plan(desired(after), recorded(before), live(before), targets=targets("route.support"))
    assert changed(plan) == {"prompt.answer", "route.support", "gate.faq", "dataset.faq"}
    assert named(plan.left_out) == {"policy.open"}
    assert [s.address.name for s in plan.steps if isinstance(s, RunGate)] == ["faq"]


@pytest.mark.parametrize("gone", [True, False])
def test_a_gate_that_is_weakened_brings_the_route_that_it_must_still_prove(gone: bool) -> None:
    """Otherwise that route could follow, proven by the weaker gate alone or by none, without another change."""
    before, after = application(), application(system="Be kind.", minimum=0.5)
    wanted = without(after, "gate.faq") if gone else after
    plan = build_plan(desired(wanted), recorded(before), live(before), targets=targets("gate.faq"))
    assert {s.as_recorded for s in plan.steps if isinstance(s, RunGate)} == ({True} if gone else {True, False})
    assert [str(s.address) for s in plan.steps if isinstance(s, Promote)] == ["route.support"]
    all_gone = build_plan(desired({}), recorded(before), live(before), targets=targets("gate.faq"))
    assert changed(all_gone) == {"gate.faq"}


def test_a_route_that_nobody_recorded_goes_before_the_endpoint_that_a_target_deletes() -> None:
    before = application(fallback=True)
    seen = live(before)
    config = seen.gateway.configs["local"]
    stray = replace(config, routes={**config.routes, "zz": replace(config.routes["support"], name="zz")})
    seen = LiveState(seen.readings, replace(seen.gateway, configs={"local": stray}))
    plan = build_plan(desired(application()), recorded(before), seen, targets=targets("endpoint.spare"))
    destroy = next(s for s in plan.steps if isinstance(s, Destroy))
    assert "retire:route.zz" in destroy.needs
    fewer = build_plan(
        desired(application(fallback=True)),
        recorded(application(fallback=True, replicas=3)),
        seen,
        targets=targets("endpoint.spare"),
    )
    spare = Address("endpoint", "spare")
    assert "retire:route.zz" in next(s for s in fewer.steps if s.address == spare).needs
    other = build_plan(desired(application()), recorded(before), seen, targets=targets("policy.open"))
    assert not other.steps
    assert "route.zz" in named(other.left_out)


def test_a_new_application_can_be_made_target_by_target() -> None:
    after = application()
    plan = build_plan(desired(after), recorded({}, 0), NOTHING, targets=targets("endpoint.main"))
    assert changed(plan) == {"endpoint.main", "model.tiny"}
    assert set(plan.desired.resources) == set(targets("endpoint.main", "model.tiny"))


def test_what_is_only_recorded_may_be_a_target_and_its_users_let_go_of_it_first() -> None:
    before, after = application(fallback=True), application(policy={"message": "other"})
    plan = build_plan(desired(after), recorded(before), live(before), targets=targets("endpoint.spare"))
    assert changed(plan) == {"endpoint.spare", "route.support"}
    assert named(plan.left_out) == {"policy.open"}
    destroy = next(s for s in plan.steps if isinstance(s, Destroy))
    assert {s.id for s in plan.steps if isinstance(s, Promote)} <= set(destroy.needs)


def test_drift_is_brought_back_for_targets_only() -> None:
    resources = application(fallback=True)
    seen = live(resources)
    seen = LiveState({**seen.readings, "endpoint": Reading(), "dataset": Reading()}, seen.gateway)
    plan = build_plan(desired(resources), recorded(resources), seen, targets=targets("endpoint.main"))
    assert {str(s.address) for s in plan.steps} == {"endpoint.main"}
    assert named(plan.left_out) == {"endpoint.spare", "dataset.faq"}
    assert [str(d.address) for d in plan.drift] == ["endpoint.main"]


def test_an_engine_that_is_brought_back_for_others_gets_its_old_model() -> None:
    before, after = application(), application(names={"model.tiny": "small"}, weights="w2")
    seen = live(before)
    seen = LiveState({**seen.readings, "model": Reading(), "endpoint": Reading()}, seen.gateway)
    plan = build_plan(desired(after), recorded(before), seen, targets=targets("endpoint.main"))
    assert "route.support" in named(plan.left_out)
    old = before[Address("endpoint", "main")].revision
    step = next(s for s in plan.steps if s.id == f"provision:endpoint.main@{old}")
    assert [need.partition("@")[0] for need in step.needs] == ["provision:model.tiny"]


def test_a_target_of_a_drifted_route_brings_what_it_runs_on() -> None:
    before = application()
    after = application(names={"endpoint.main": "other"})
    seen = live(before)
    seen = LiveState({**seen.readings, "endpoint": Reading(), "model": Reading()}, seen.gateway)
    plan = build_plan(desired({**before, **after}), recorded(before), seen, targets=targets("route.support"))
    restored = {str(s.address) for s in plan.steps if getattr(s, "restores", False)}
    assert restored == {"endpoint.main", "model.tiny"}


def test_a_rename_is_made_only_when_a_target_asks_for_it() -> None:
    before = application()
    after = application(names={"prompt.answer": "reply"}, policy={"message": "other"})
    want = desired(after, ("prompt.answer", "prompt.reply"))
    left = build_plan(want, recorded(before), live(before), targets=targets("policy.open"))
    assert changed(left) == {"policy.open"}
    assert left.desired.moved == ()
    assert Address("prompt", "answer") in left.desired.resources
    made = build_plan(want, recorded(before), live(before), targets=targets("prompt.reply"))
    assert changed(made) == {"prompt.reply", "route.support"}
    assert build_plan(want, recorded(before), live(before), targets=targets("prompt.answer")).steps == made.steps


# -- unreadable -------------------------------------------------------------------------------------


def test_what_cannot_be_read_holds_its_dependents_and_nothing_else() -> None:
    before = application()
    after = application(weights="w2", system="Be kind.", policy={"message": "other"})
    plan = build_plan(desired(after), recorded(before), unreadable(live(before), "endpoint"))
    assert changed(plan) == {"model.tiny", "prompt.answer", "policy.open"}
    assert named(plan.waiting) == {"endpoint.main", "route.support"}
    assert untouched(plan, "endpoint", "route", "gate")
    assert not plan.is_empty


@pytest.mark.parametrize("kind", ["dataset", "model", "prompt", "endpoint", "route"])
def test_an_unreadable_kind_is_never_touched(kind: str) -> None:
    before = application(fallback=True)
    after = application(weights="w2", rows="d2", system="Be kind.", names={"prompt.answer": "reply"})
    seen = unreadable(live(before), kind)
    for want in (desired(after), desired(after, ("prompt.answer", "prompt.reply")), desired({})):
        plan = build_plan(want, recorded(before), seen)
        assert untouched(plan, kind)
        assert plan.blocked
        assert {d.address.kind for d in plan.blocked if d.address} == {kind}


def test_a_new_gate_that_cannot_be_run_keeps_its_route_from_serving_unproven() -> None:
    before = without(application(), "gate.faq", "dataset.faq")
    plan = build_plan(desired(application(system="Be kind.")), recorded(before), unreadable(live(before), "dataset"))
    assert changed(plan) == {"prompt.answer"}
    assert not [s for s in plan.steps if isinstance(s, Stage)]
    assert named(plan.waiting) == {"dataset.faq", "gate.faq", "route.support"}


def test_a_blocked_route_keeps_its_endpoints() -> None:
    before, after = application(fallback=True), application(weights="w2")
    plan = build_plan(desired(after), recorded(before), unreadable(live(before), "route"))
    assert {"endpoint.main", "model.tiny"} <= changed(plan)
    assert not [s for s in plan.steps if isinstance(s, Retire | Destroy)]
    assert "endpoint.spare" in named(plan.waiting)


def test_one_unreadable_revision_blocks_only_who_uses_it() -> None:
    before = application(fallback=True)
    spare = before[Address("endpoint", "spare")]
    seen = live(before)
    found = {k: v for k, v in seen.readings["endpoint"].found.items() if k.name != "spare"}
    reading = Reading(found, {Key("spare", spare.revision): HANGS})
    after = application(fallback=True, policy={"message": "other"}, license="Apache-2.0")
    plan = build_plan(desired(after), recorded(before), LiveState({**seen.readings, "endpoint": reading}, seen.gateway))
    assert [str(d.address) for d in plan.blocked] == ["endpoint.spare"]
    assert changed(plan) == {"policy.open", "model.tiny"}
    assert not plan.waiting


def test_a_stray_engine_is_left_alone_while_nobody_knows_what_the_gateway_serves() -> None:
    resources = application()
    seen = live(resources)
    (known,) = seen.readings["endpoint"].found.values()
    stray = Key("main", "feedfacefeedface")
    reading = Reading({**seen.readings["endpoint"].found, stray: replace(known, key=stray)})
    seen = unreadable(LiveState({**seen.readings, "endpoint": reading}, seen.gateway), "route")
    assert build_plan(desired(resources), recorded(resources), seen).steps == ()


def test_destroy_waits_for_nothing_and_a_kind_that_nobody_uses_blocks_nothing() -> None:
    resources = application()
    seen = unreadable(live(resources), "endpoint", "route")
    plan = build_plan(desired({}), recorded(resources), seen, action="destroy", gated=False)
    assert len(plan.steps) == len(resources)
    prompts: dict[Address, Resource] = {a: r for a, r in resources.items() if a.kind == "prompt"}
    plan = build_plan(desired(prompts), recorded(prompts), seen)
    assert plan.is_empty


def test_a_target_is_not_blocked_by_what_it_does_not_need() -> None:
    before, after = application(), application(weights="w2", policy={"message": "other"})
    seen = unreadable(live(before), "endpoint")
    plan = build_plan(desired(after), recorded(before), seen, targets=targets("policy.open"))
    assert (changed(plan), plan.blocked, plan.waiting) == ({"policy.open"}, (), ())
    plan = build_plan(desired(after), recorded(before), seen, targets=targets("route.support"))
    assert [str(d.address) for d in plan.blocked] == ["endpoint.main"]
    assert named(plan.waiting) == {"endpoint.main", "route.support"}
    assert named(plan.left_out) == {"policy.open"}
