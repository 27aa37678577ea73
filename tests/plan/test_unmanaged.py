"""What is live and nobody recorded: pointed out; llmctl's own is adopted or taken away, anybody else's left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.address import Address
from llmctl.core.resources import Key, Live, Reading, Resource
from llmctl.core.steps import Action, Promote, RunGate, Shift, Stage
from llmctl.graph import dependents, users_of
from llmctl.live import LiveState
from llmctl.plan import Plan, build_plan
from llmctl.plan.drift import observe, unmanaged
from tests.plan.applications import applications
from tests.plan.builders import application, desired, live, recorded, without
from tests.plan.world import EXAMPLES, Faults, World

ROUTE = Address("route", "support")


def told(plan: Plan) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {str(d.address): (d.summary, d.details) for d in plan.drift}


def test_a_route_that_serves_exactly_so_is_adopted_and_proven_without_touching_its_traffic() -> None:
    resources = application()
    forgotten = without(resources, "route.support", "gate.faq", "endpoint.main")
    plan = build_plan(desired(resources), recorded(forgotten), live(resources))
    assert {str(c.address): c.action for c in plan.changes} == {
        "endpoint.main": Action.ADOPT,
        "route.support": Action.ADOPT,
        "gate.faq": Action.CREATE,
    }
    assert plan.drift == ()
    assert not [s for s in plan.steps if isinstance(s, Stage | Shift)]
    (proof,) = (s for s in plan.steps if isinstance(s, RunGate))
    (promote,) = (s for s in plan.steps if isinstance(s, Promote))
    assert (promote.action, proof.id in promote.needs) == (Action.ADOPT, True)


def _meddled(resources: dict[Address, Resource], what: str) -> LiveState:
    seen = live(resources)
    config = seen.gateway.configs["local"]
    route = config.routes["support"]
    served = route.revisions[route.promoted]
    (main,) = seen.readings["endpoint"].found.values()
    changed: dict[str, Any] = {
        "weights": {"weights": {}},
        "prompt": {"revisions": {route.promoted: replace(served, messages=({"role": "user", "content": "hi"},))}},
        "upstream": {"revisions": {route.promoted: replace(served, upstreams=())}},
        "promoted": {"promoted": ""},
        "alias": {"aliases": ("help",)},
    }
    meddled = replace(config, routes={"support": replace(route, **changed.get(what, {}))})
    if what == "no route":
        meddled = replace(config, routes={})
    if what == "ill engine":
        main = replace(main, healthy=False)
    if what == "other engine":
        main = replace(main, state={**main.state, "replicas": {"min": 2, "max": 2}})
    configs = {"local": meddled} | ({"second": replace(config, routes={})} if what == "a laggard" else {})
    readings = {**seen.readings, "endpoint": Reading({main.key: main})}
    return LiveState(readings, replace(seen.gateway, configs={} if what == "no gateway" else configs))


@pytest.mark.parametrize(
    "what",
    ["weights", "prompt", "upstream", "promoted", "alias", "no route", "ill engine", "other engine", "a laggard",
     "no gateway"],
)  # fmt: skip
def test_a_route_that_serves_anything_else_is_no_adoption(what: str) -> None:
    resources = application()
    seen = _meddled(resources, what)
    plan = build_plan(desired(resources), recorded(without(resources, "route.support", "gate.faq")), seen)
    assert next(c.action for c in plan.changes if c.address == ROUTE) is Action.CREATE
    assert [s for s in plan.steps if isinstance(s, Stage)]


def test_what_is_neither_recorded_nor_declared_is_pointed_out_and_goes() -> None:
    resources = application()
    left = without(resources, "route.support", "gate.faq", "endpoint.main")
    plan = build_plan(desired(left), recorded(left), live(resources))
    route, endpoint = resources[ROUTE].revision, resources[Address("endpoint", "main")].revision
    last = "takes it in; the next apply takes away what is not declared"
    assert told(plan) == {
        "endpoint.main": (
            f"unmanaged: revision {endpoint[:8]} runs, and nobody recorded it",
            (f"`llmctl import endpoint.main main@{endpoint}` {last}",),
        ),
        "route.support": (
            "unmanaged: the gateway serves it, and nobody recorded it",
            (f"`llmctl import route.support support@{route}` {last}",),
        ),
    }
    assert [s.id for s in plan.steps] == ["retire:route.support", f"retire:endpoint.main@{endpoint}"]


def test_another_revision_of_what_is_recorded_cannot_be_taken_in() -> None:
    old, new = application(weights="w0"), application()
    seen = live(new)
    found = {**live(old).readings["endpoint"].found, **seen.readings["endpoint"].found}
    seen = LiveState({**seen.readings, "endpoint": Reading(found)}, seen.gateway)
    (drift,) = build_plan(desired(new), recorded(new), seen).drift
    assert drift.summary.startswith("unmanaged: revision ")
    assert drift.details == ()


def test_an_unpromoted_route_has_nothing_to_take_in() -> None:
    resources = application()
    (drift,) = [
        d for d in observe(recorded({}, 0), _meddled(resources, "promoted"), frozenset()).drift if d.address == ROUTE
    ]
    assert drift.details == ()


def test_of_plug_ins_only_what_is_live_and_not_about_to_be_adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmctl.core import kinds
    from llmctl.core.kinds import Kind, Role

    kind = Kind("fts", "fts_indexes", Role.RESOURCE, ("columns",))
    monkeypatch.setitem(kinds.BY_NAME, "fts", kind)

    def thing(name: str, columns: str = "a", *, healthy: bool = True) -> Live[Any]:
        spec = {"columns": columns}
        return Live(Key(name), spec, kind.revision(spec), healthy, detail=f"{name} in a file")

    def resource(name: str) -> Resource:
        spec = {"columns": "a"}
        return Resource(Address("fts", name), spec, kind.revision(spec))

    things = [thing("recorded"), thing("adopted"), thing("other", "b"), thing("ill", healthy=False), thing("theirs")]
    seen = LiveState({"fts": Reading({t.key: t for t in things})})
    known = recorded({Address("fts", "recorded"): resource("recorded")})
    wanted = desired({r.address: r for r in map(resource, ("recorded", "adopted", "other", "ill"))})
    found = unmanaged(wanted, known, seen)
    assert [str(d.address) for d in found] == ["fts.ill", "fts.other", "fts.theirs"]
    assert found[-1].detail == "theirs in a file"
    assert found[-1].hint == "`llmctl import fts.theirs theirs` takes it in."
    plan = build_plan(wanted, known, seen)
    assert "fts.theirs" not in {str(s.address) for s in plan.steps}


class _Forgetful(World):
    """What the record forgot must serve all the same, as long as it is declared."""

    def _watch(self, plan: Plan, faults: Faults) -> None:
        super()._watch(plan, faults)
        after = {a.name for a in plan.desired.resources if a.kind == "route"}
        serving = {name for name, route in self.gateway.config.routes.items() if route.weights and name in after}
        self.serving |= serving
        self.unproven -= {(name, route.promoted) for name, route in self.gateway.config.routes.items()}


@EXAMPLES
@given(st.data(), st.integers(0, 2**16))
def test_whatever_is_forgotten_what_is_declared_goes_on_serving(data: st.DataObject, order: int) -> None:
    """Also when a gate refuses it, or an effect fails; and then it converges."""
    first = data.draw(applications(), "first")
    second = data.draw(st.one_of(st.just(first), applications(first)), "second")
    world = _Forgetful()
    world.converge(first.desired(), order)
    known = world.recorded.resources
    names = data.draw(st.sets(st.sampled_from(sorted(known))) if known else st.just(set()), "forgotten")
    users = users_of({address: was.needs for address, was in known.items()})
    gone = names | dependents(users, names)
    world.recorded = replace(world.recorded, resources={a: r for a, r in known.items() if a not in gone})
    if first is second:
        plan = world.plan(second.desired())
        assert {c.action for c in plan.changes if c.address.kind in ("route", "endpoint")} <= {Action.ADOPT}
    numbers = st.frozensets(st.integers(1, 30), max_size=2)
    failing = data.draw(st.sets(st.sampled_from(sorted(second.gates))) if second.gates else st.just(set()), "failing")
    faults = Faults(before=data.draw(numbers), after=data.draw(numbers), failing_gates=frozenset(failing))
    world.apply(world.plan(second.desired()), order, faults)
    world.check()
    world.converge(second.desired(), order)
