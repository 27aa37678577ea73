"""Desired × recorded × live → changes, drift, steps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import GatewayReading
from llmctl.core.resources import ALL, Key, Reading, Rejection
from llmctl.core.steps import Action, Destroy, Promote, Provision, Retire, RunGate, Shift, Stage
from llmctl.live import LiveState
from llmctl.plan import Plan, build_plan
from tests.plan.builders import NOTHING, application, desired, live, recorded, without


def steps_of(plan: Plan) -> list[str]:
    """Step ids without revisions, in order."""
    return [step.id.split("@")[0] for step in plan.steps]


def actions(plan: Plan) -> dict[str, str]:
    return {str(c.address): c.action.value for c in plan.changes}


def test_first_apply_creates_everything_and_proves_before_it_promotes() -> None:
    plan = build_plan(desired(application()), recorded({}, 0), NOTHING)
    assert set(actions(plan).values()) == {"create"}
    order = steps_of(plan)
    for earlier, later in (
        ("provision:model.tiny", "provision:endpoint.main"),
        ("provision:endpoint.main", "stage:route.support"),
        ("provision:prompt.answer", "stage:route.support"),
        ("provision:dataset.faq", "gate:faq:route.support"),
        ("stage:route.support", "gate:faq:route.support"),
        ("gate:faq:route.support", "shift:route.support"),
        ("shift:route.support", "promote:route.support"),
        ("gate:faq:route.support", "provision:gate.faq"),
    ):
        assert order.index(earlier) < order.index(later)
    assert not [s for s in plan.steps if isinstance(s, Retire | Destroy)]


def test_nothing_to_do_is_an_empty_plan() -> None:
    resources = application()
    plan = build_plan(desired(resources), recorded(resources), live(resources))
    assert plan.is_empty
    assert not plan.changes
    assert not plan.drift


def test_a_changed_prompt_rolls_the_route_out_and_leaves_the_endpoint_alone() -> None:
    before, after = application(), application(system="Be kind.")
    plan = build_plan(desired(after), recorded(before), live(before))
    assert actions(plan) == {"prompt.answer": "update", "route.support": "replace"}
    gate = next(s for s in plan.steps if isinstance(s, RunGate))
    assert gate.baseline == before[Address("route", "support")].revision
    shift = next(s for s in plan.steps if isinstance(s, Shift))
    assert dict(shift.weights) == {gate.baseline: 0, gate.revision: 100}
    assert steps_of(plan)[-1] == "retire:route.support"
    assert plan.impact == ("prompt.answer changed: gate.faq runs; route.support rolls out a new revision",)
    diff = next(d for c in plan.changes if c.address.kind == "prompt" for d in c.diffs)
    assert (diff.path, diff.before, diff.after) == ("messages[0].content", "Be brief.", "Be kind.")


def test_a_changed_model_runs_beside_the_old_one_and_the_old_one_goes_last() -> None:
    before, after = application(), application(weights="w2")
    plan = build_plan(desired(after), recorded(before), live(before))
    assert actions(plan) == {"endpoint.main": "replace", "model.tiny": "update", "route.support": "replace"}
    retired = [s for s in plan.steps if isinstance(s, Retire)]
    assert [str(s.address) for s in retired] == ["route.support", "endpoint.main"]
    assert retired[0].id in retired[1].needs
    assert next(s for s in plan.steps if isinstance(s, Promote)).id in retired[0].needs
    assert any("runs twice during the rollout" in line for line in plan.impact)


def test_a_changed_dataset_reruns_its_gate_on_what_serves() -> None:
    before, after = application(), application(rows="d2")
    plan = build_plan(desired(after), recorded(before), live(before))
    assert actions(plan) == {"dataset.faq": "update", "gate.faq": "update"}
    assert steps_of(plan) == ["provision:dataset.faq", "gate:faq:route.support", "provision:gate.faq"]
    assert plan.impact[0] == "dataset.faq changed: gate.faq runs; route.support unaffected"


def test_an_operating_field_changes_in_place() -> None:
    before, after = application(), application(license="Apache-2.0")
    plan = build_plan(desired(after), recorded(before), live(before))
    assert actions(plan) == {"model.tiny": "update"}
    assert steps_of(plan) == ["provision:model.tiny"]


def test_content_that_comes_back_gets_its_old_version() -> None:
    first, second = application(), application(system="Be kind.")
    state = recorded(second)
    address = Address("prompt", "answer")
    known = (first[address].revision, second[address].revision)
    state = replace(
        state, resources={**state.resources, address: replace(state.resources[address], version=2, revisions=known)}
    )
    plan = build_plan(desired(first), state, live(second))
    change = next(c for c in plan.changes if c.address == address)
    assert (change.version_before, change.version_after) == (2, 1)
    assert "back to v1" in change.reason


def test_deleting_everything_goes_dependents_first() -> None:
    before = application()
    plan = build_plan(desired({}), recorded(before), live(before), action="destroy", gated=False)
    order = [str(s.address) for s in plan.steps]
    assert all(isinstance(s, Destroy) for s in plan.steps)
    for user, used in (
        ("gate.faq", "route.support"),
        ("route.support", "endpoint.main"),
        ("endpoint.main", "model.tiny"),
    ):
        assert order.index(user) < order.index(used)


def test_a_dropped_fallback_is_deleted_after_the_route_stopped_using_it() -> None:
    before, after = application(fallback=True), application()
    plan = build_plan(desired(after), recorded(before), live(before))
    destroy = next(s for s in plan.steps if isinstance(s, Destroy))
    assert destroy.address == Address("endpoint", "spare")
    assert {s.id for s in plan.steps if isinstance(s, Retire | Promote)} <= set(destroy.needs)


def test_a_dead_engine_is_drift_and_is_restored_with_its_route() -> None:
    resources = application()
    seen = live(resources)
    seen = LiveState({**seen.readings, "endpoint": Reading()}, seen.gateway)
    plan = build_plan(desired(resources), recorded(resources), seen)
    assert not plan.changes
    assert [(str(d.address), d.summary) for d in plan.drift] == [("endpoint.main", "it does not run")]
    assert steps_of(plan) == ["provision:endpoint.main", "restore:route.support"]
    assert isinstance(plan.steps[0], Provision)
    assert plan.steps[0].restores


def test_a_meddled_gateway_is_drift_and_is_put_back_before_anything_new() -> None:
    before, after = application(), application(system="Be kind.")
    seen = live(before)
    config = seen.gateway.configs["local"]
    route = replace(config.routes["support"], weights={})
    meddled = replace(config, routes={"support": route, "other": replace(route, name="other")})
    seen = LiveState(seen.readings, replace(seen.gateway, configs={"local": meddled}))
    plan = build_plan(desired(after), recorded(before), seen)
    assert [(str(d.address), d.summary) for d in plan.drift] == [
        ("route.support", "traffic is nothing, recorded is 100 % " + before[Address("route", "support")].revision[:8]),
        ("route.other", "unmanaged: the gateway serves it, and nobody recorded it"),
    ]
    restore = next(s for s in plan.steps if isinstance(s, Promote) and s.action is Action.RESTORE)
    stage = next(s for s in plan.steps if isinstance(s, Stage))
    assert restore.id in stage.after
    assert "retire:route.other" in [s.id for s in plan.steps]


def test_unreadable_is_never_absent() -> None:
    resources = application()
    seen = live(resources)
    reading = Reading[object](unreadable={ALL: Diagnostic("supervisord does not answer")})
    seen = LiveState({**seen.readings, "endpoint": reading}, seen.gateway)
    plan = build_plan(desired(application(weights="w2")), recorded(resources), seen)
    assert steps_of(plan) == ["provision:model.tiny"]
    assert [str(d.address) for d in plan.blocked] == ["endpoint.main"]
    assert [str(a) for a in plan.waiting] == ["endpoint.main", "route.support"]
    assert not plan.is_empty


def test_a_gateway_that_is_known_to_be_down_is_restored() -> None:
    resources = application()
    seen = LiveState(live(resources).readings, GatewayReading(running=False))
    plan = build_plan(desired(resources), recorded(resources), seen)
    assert steps_of(plan) == ["restore:route.support"]


def test_a_stray_engine_is_taken_away() -> None:
    resources = application()
    seen = live(resources)
    endpoint = seen.readings["endpoint"]
    (known,) = endpoint.found.values()
    stray = Key("main", "feedfacefeedface")
    seen = LiveState(
        {**seen.readings, "endpoint": Reading({**endpoint.found, stray: replace(known, key=stray)})}, seen.gateway
    )
    plan = build_plan(desired(resources), recorded(resources), seen)
    assert [s.id for s in plan.steps] == ["retire:endpoint.main@feedfacefeedface"]


def test_what_is_live_but_not_recorded_is_adopted_and_still_proven() -> None:
    resources = application()
    seen = LiveState(live(resources).readings, GatewayReading(True, {"local": GatewayConfig("dev")}))
    plan = build_plan(desired(resources), recorded({}, 0), seen)
    assert actions(plan)["endpoint.main"] == "adopt"
    assert "gate:faq:route.support" in steps_of(plan)


def test_a_rejected_revision_is_denied() -> None:
    before, after = application(), application(system="Be kind.")
    route = Address("route", "support")
    rejected = Rejection(route, after[route].revision, 3, "wrong answers")
    plan = build_plan(desired(after), recorded(before, rejections=(rejected,)), live(before))
    assert len(plan.denials) == 1
    assert "rejected" in plan.denials[0].summary
    assert "unreject" in plan.denials[0].hint


def test_a_rollback_runs_no_gate() -> None:
    old, new = application(), application(system="Be kind.", minimum=0.5)
    plan = build_plan(desired(old), recorded(new), live(new), action="rollback", gated=False, rollback_to=1)
    assert not [s for s in plan.steps if isinstance(s, RunGate)]
    assert "promote:route.support" in steps_of(plan)
    gate = next(s for s in plan.steps if s.address.kind == "gate")
    assert gate.needs == tuple(s.id for s in plan.steps if isinstance(s, Promote))


@pytest.mark.parametrize(
    "change", [{"system": "x"}, {"weights": "w2"}, {"rows": "d2"}, {"fallback": True}, {"minimum": 0.5}]
)
def test_every_need_names_a_step_and_ids_are_unique(change: dict[str, object]) -> None:
    before, after = application(), application(**change)  # type: ignore[arg-type]
    plan = build_plan(desired(after), recorded(before), live(before))
    ids = [s.id for s in plan.steps]
    assert len(ids) == len(set(ids))
    assert {need for s in plan.steps for need in s.needs} <= set(ids)


def test_an_engine_stays_while_a_route_that_nobody_recorded_runs_on_it() -> None:
    """An apply that died between publishing a route and recording it leaves such a one."""
    before, after = application(), application(weights="w2")
    known = {a: r for a, r in before.items() if a.kind not in ("route", "gate")}
    plan = build_plan(desired(after), recorded(known), live(before))
    retire = next(s for s in plan.steps if isinstance(s, Retire) and s.address.kind == "endpoint")
    assert {s.id for s in plan.steps if isinstance(s, Promote)} <= set(retire.needs)


def test_an_endpoint_revision_that_comes_back_is_changed_where_a_route_still_runs_on_it() -> None:
    """The endpoint went on and its route could not follow: going back must not start anything anew."""
    old, new = application(replicas=3), application(weights="w2")
    endpoint, route = Address("endpoint", "main"), Address("route", "support")
    stuck = {**new, route: old[route]}
    seen = live(old)
    plan = build_plan(desired(application()), recorded(stuck), seen)
    step = next(s for s in plan.steps if isinstance(s, Provision) and s.address == endpoint)
    assert (step.revision, step.action) == (old[endpoint].revision, Action.UPDATE)
    assert [s.id for s in plan.steps if s.address == route and s.id in step.needs]
    targeted = build_plan(desired(application()), recorded(stuck), seen, targets=(endpoint,))
    assert route in {c.address for c in targeted.changes}


def test_what_a_killed_apply_gave_traffic_to_stays_until_its_route_is_put_right() -> None:
    """It had recorded the endpoint and not the route; the split stands until its lease lapses."""
    old, new = application(), application(weights="w2")
    route, endpoint = Address("route", "support"), Address("endpoint", "main")
    killed = {**new, route: old[route]}
    config = live(new).gateway.configs["local"]
    both = {**live(old).gateway.configs["local"].routes["support"].revisions, **config.routes["support"].revisions}
    split = replace(config.routes["support"], revisions=both, promoted=old[route].revision)
    seen = live(new)
    engines = {**live(old).readings["endpoint"].found, **seen.readings["endpoint"].found}
    seen = LiveState(
        {**seen.readings, "endpoint": Reading(engines)},
        replace(seen.gateway, configs={"local": replace(config, routes={"support": split})}),
    )
    for after in (application(weights="w3"), without(application(weights="w3"), "route.support", "gate.faq")):
        plan = build_plan(desired(after), recorded(killed), seen)
        step = next(
            s
            for s in plan.steps
            if isinstance(s, Retire) and s.revision == new[endpoint].revision and s.address == endpoint
        )
        ended = f"promote:route.support@{after[route].revision}" if route in after else "destroy:route.support"
        assert ended in step.needs


def test_replicas_stay_while_a_route_that_nobody_recorded_may_know_them() -> None:
    before = application(replicas=3)
    seen = live(before)
    config = seen.gateway.configs["local"]
    stray = replace(config, routes={**config.routes, "zz": replace(config.routes["support"], name="zz")})
    seen = LiveState(seen.readings, replace(seen.gateway, configs={"local": stray}))
    plan = build_plan(desired(application()), recorded(before), seen)
    assert "retire:route.zz" in next(s for s in plan.steps if s.address.kind == "endpoint").needs
