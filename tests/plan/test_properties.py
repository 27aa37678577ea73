"""Properties of plan and apply together: random applications, edits, faults and drift on a target in memory.

The real plan is interpreted by the real engine. Steps are shuffled before they run: the engine starts any
step whose needs are met, so that an order which only happened to be right does not hide a missing need.
Verdicts of gates are drawn; what they are made from is the gates' own business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hypothesis import event, given, note
from hypothesis import strategies as st

from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import GatewayReading
from llmctl.core.resources import ALL, Reading
from llmctl.core.steps import Destroy, Retire
from llmctl.live import LiveState
from llmctl.plan import back_to, build_plan
from llmctl.plan.routes import chain_keys
from tests.plan.applications import App, applications, renames
from tests.plan.builders import ENVIRONMENT, recorded
from tests.plan.world import EXAMPLES, Faults, World, applied, told, well_formed

_ORDERS = st.integers(0, 2**16)


@EXAMPLES
@given(st.data(), _ORDERS)
def test_after_any_apply_the_plan_is_empty_and_nothing_that_serves_was_taken_away(
    data: st.DataObject, order: int
) -> None:
    first = data.draw(applications(), "first")
    second = data.draw(applications(first), "second")
    world = applied(first, order)
    world.converge(second.desired(), order)
    world.converge(App({}, {}, {}, {}, {}, {}, {}).desired(), order)


@EXAMPLES
@given(st.data(), _ORDERS)
def test_a_refused_revision_gets_no_traffic_and_what_served_still_serves(data: st.DataObject, order: int) -> None:
    first = data.draw(applications(), "first")
    second = data.draw(applications(first), "second")
    failing = data.draw(st.sets(st.sampled_from(sorted(second.gates))) if second.gates else st.just(set()), "failing")
    world = applied(first, order)
    for _ in range(2):  # the second time the refused ones alone are left
        plan = world.plan(second.desired())
        well_formed(plan)
        world.apply(plan, order, Faults(failing_gates=frozenset(failing)))
        world.check()
        _what_is_recorded_serves(world)
    third = data.draw(applications(second), "third")
    world.converge(third.desired(), order)


@EXAMPLES
@given(st.data(), _ORDERS)
def test_whatever_fails_what_served_still_serves_and_the_next_apply_converges(data: st.DataObject, order: int) -> None:
    first = data.draw(applications(), "first")
    second = data.draw(applications(first), "second")
    numbers = st.frozensets(st.integers(1, 40), max_size=3)
    faults = Faults(before=data.draw(numbers, "before"), after=data.draw(numbers, "after"))
    world = applied(first, order)
    result = world.apply(world.plan(second.desired()), order, faults)
    event(f"ok: {result.ok}")
    note(told(result))
    world.check()
    third = data.draw(st.one_of(st.just(second), applications(second)), "third")
    world.converge(third.desired(), order)


@EXAMPLES
@given(st.data(), _ORDERS, st.integers(0, 40))
def test_stopped_at_any_effect_the_next_apply_converges(data: st.DataObject, order: int, dies_at: int) -> None:
    first = data.draw(st.one_of(st.none(), applications()), "first")
    second = data.draw(applications(first), "second")
    world = applied(first, order) if first else World()
    world.apply(world.plan(second.desired()), order, Faults(dies_at=dies_at))
    world.check()
    third = data.draw(st.one_of(st.just(second), applications(second)), "third")
    world.converge(third.desired(), order)


@EXAMPLES
@given(st.data(), _ORDERS)
def test_whatever_is_taken_away_is_restored(data: st.DataObject, order: int) -> None:
    first = data.draw(applications(), "first")
    second = data.draw(st.one_of(st.just(first), applications(first)), "second")
    world = applied(first, order)
    _meddle(data, world)
    world.converge(second.desired(), order)


@EXAMPLES
@given(st.data(), _ORDERS)
def test_renames_lose_no_request_whatever_else_changes_fails_or_drifts(data: st.DataObject, order: int) -> None:
    first = data.draw(applications(), "first")
    second = data.draw(renames(first), "second")
    if data.draw(st.booleans(), "edited"):
        edited = data.draw(applications(second), "edit")
        second = replace(edited, moved=second.moved)
    world = applied(first, order)
    numbers = st.frozensets(st.integers(1, 20), max_size=2)
    trouble = data.draw(st.sampled_from(("none", "faults", "drift", "killed")), "trouble")
    if trouble == "faults":
        world.apply(world.plan(second.desired()), order, Faults(before=data.draw(numbers), after=data.draw(numbers)))
        world.check()
    elif trouble == "killed":
        world.apply(world.plan(second.desired()), order, Faults(dies_at=data.draw(st.integers(0, 20))))
        world.check()
        second = data.draw(st.sampled_from((second, first)), "or back")
    elif trouble == "drift":
        _meddle(data, world)
    world.converge(second.desired(), order)
    world.converge(replace(second, moved=()).desired(), order)


@EXAMPLES
@given(st.data(), _ORDERS)
def test_a_rollback_across_renames_loses_no_request(data: st.DataObject, order: int) -> None:
    first = data.draw(applications(), "first")
    second = data.draw(renames(first), "second")
    if data.draw(st.booleans(), "edited"):
        second = replace(data.draw(applications(second), "edit"), moved=second.moved)
    world = applied(first, order)
    then = world.recorded
    world.converge(second.desired(), order)
    back = back_to(then, world.recorded, ENVIRONMENT, "/project")
    made = {(new, old) for old, new in second.moved if new in world.recorded.resources and old in then.resources}
    event(f"renames undone: {len(back.moved)} of {len(made)}")
    world.converge(back, order)
    assert {a: r.revision for a, r in world.recorded.resources.items()} == {
        a: r.revision for a, r in then.resources.items()
    }
    assert world.plan(back_to(then, world.recorded, ENVIRONMENT, "/project")).is_empty, "back there once more"
    world.converge(second.desired(), order)


@EXAMPLES
@given(st.data(), _ORDERS)
def test_targets_change_what_they_need_and_nothing_else(data: st.DataObject, order: int) -> None:
    first = data.draw(applications(), "first")
    second = data.draw(st.one_of(applications(first), renames(first)), "second")
    world = applied(first, order)
    if data.draw(st.booleans(), "drift"):
        _meddle(data, world)
    want = second.desired()
    known = sorted({*want.resources, *world.recorded.resources})
    targets = data.draw(st.sets(st.sampled_from(known), min_size=1, max_size=2), "targets")
    plan = world.plan(want, targets)
    well_formed(plan)
    before = dict(world.recorded.resources)
    result = world.apply(plan, order, Faults())
    assert result.ok, told(result)
    world.check()
    touched = {c.address for c in plan.changes} | {c.moved_from for c in plan.changes}
    assert {a: r for a, r in world.recorded.resources.items() if a not in touched} == {
        a: r for a, r in before.items() if a not in touched
    }
    again = world.plan(want, targets)
    assert again.is_empty, f"after a successful apply: {[s.id for s in again.steps]}"
    world.converge(want, order)


@EXAMPLES
@given(st.data(), _ORDERS)
def test_what_cannot_be_read_is_never_touched_and_the_rest_is_done(data: st.DataObject, order: int) -> None:
    first = data.draw(applications(), "first")
    second = data.draw(st.one_of(applications(first), renames(first)), "second")
    world = applied(first, order)
    kinds = data.draw(st.sets(st.sampled_from((*world.providers, "route")), min_size=1, max_size=2), "unreadable")
    plan = world.plan(second.desired(), unreadable=lambda seen: _without(seen, kinds))
    well_formed(plan)
    assert not [s for s in plan.steps if s.address.kind in kinds]
    before = {kind: dict(provider.found) for kind, provider in world.providers.items()}
    config = world.gateway.config
    result = world.apply(plan, order, Faults())
    assert result.ok, told(result)
    world.check()
    _what_is_recorded_serves(world)
    assert {kind: dict(world.providers[kind].found) for kind in kinds - {"route"}} == {
        kind: before[kind] for kind in kinds - {"route"}
    }
    if "route" in kinds:
        assert world.gateway.config == config
    rest = world.plan(second.desired(), unreadable=lambda seen: _without(seen, kinds))
    assert not rest.steps, f"after a successful apply: {[s.id for s in rest.steps]}"
    world.converge(second.desired(), order)


def _without(seen: LiveState, kinds: set[str]) -> LiveState:
    """Live state in which these kinds cannot be read."""
    nothing: Reading[Json] = Reading(unreadable={ALL: Diagnostic("it hangs")})
    readings = {kind: nothing if kind in kinds else reading for kind, reading in seen.readings.items()}
    gateway = GatewayReading(True, unreadable="it hangs") if "route" in kinds else seen.gateway
    return LiveState(readings, gateway)


@EXAMPLES
@given(st.data())
def test_what_the_record_protects_is_never_taken_away_unsaid(data: st.DataObject) -> None:
    first = data.draw(applications(), "first").desired()
    second = data.draw(applications(), "second").desired()
    chosen = data.draw(_some(first.resources), "protected")
    resources = {a: replace(r, spec={**r.spec, "protect": a in chosen}) for a, r in first.resources.items()}
    plan = build_plan(second, recorded(resources), None)
    lost = {s.address for s in plan.steps if isinstance(s, Destroy | Retire)}
    assert lost & chosen <= {d.address for d in plan.denials} <= chosen


def _what_is_recorded_serves(world: World) -> None:
    """Every recorded route has all traffic on its recorded revision, whose endpoints run."""
    for address, was in world.recorded.resources.items():
        if address.kind == "route":
            route = world.gateway.config.routes[address.name]
            assert (dict(route.weights), route.promoted) == ({was.revision: 100}, was.revision)
            assert set(chain_keys(was.spec)) <= set(world.providers["endpoint"].found)


def _meddle(data: st.DataObject, world: World) -> None:
    """Take live things away behind llmctl's back, and change what the gateway serves."""
    for kind, provider in world.providers.items():
        for key in data.draw(_some(provider.found), f"gone {kind}"):
            del provider.found[key]
        for key in data.draw(_some(provider.found), f"ill {kind}"):
            provider.found[key] = replace(provider.found[key], healthy=False)
    routes = dict(world.gateway.config.routes)
    for name in data.draw(_some(routes), "gone routes"):
        del routes[name]
    for name in data.draw(_some(routes), "routes without traffic"):
        routes[name] = replace(routes[name], weights={})
    unknown: bool = data.draw(st.booleans(), "a route that nobody declared")
    if routes and unknown:
        known = routes[sorted(routes)[0]]
        routes["zz"] = replace(known, name="zz")
    world.gateway.config = replace(world.gateway.config, routes=routes)


def _some(of: Iterable[Any]) -> st.SearchStrategy[set[Any]]:
    known = sorted(of)
    return st.sets(st.sampled_from(known), max_size=2) if known else st.just(set())


def test_the_watch_sees_what_it_is_there_for() -> None:
    """The properties would hold of anything if the watch were blind."""
    app = App({"a": (0, False)}, {"a": 0}, {"a": 0}, {"a": ("a", 256, 2)}, {"a": ("a", ("a",))}, {}, {})
    world = applied(app, 0)
    world.serving = frozenset({"a"})
    world.providers["endpoint"].found.clear()
    world.look()
    world.gateway.config = GatewayConfig("dev")
    world.look()
    assert [c.split(",")[-1].strip() for c in world.complaints] == ["which does not run", "route a serves nobody"]
