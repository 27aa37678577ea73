"""A state machine of plan and apply: a random application is edited, renamed, applied, broken, drifts, goes blind,
is rolled back and destroyed, in any order; and after each of these what must hold is looked at.

The target is in memory (``world.py``). One machine keeps its record there too; the other one in a real git
repository, where what dies leaves its attempt open, and the next apply has to find and close it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, event, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from llmctl.apply import ApplyResult
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.protocols import GatewayReading
from llmctl.core.resources import ALL, Desired, Reading, RecordState
from llmctl.live import LiveState
from llmctl.plan import Plan, back_to
from llmctl.plan.routes import chain_keys
from llmctl.spec.moves import aliases_of_routes
from tests.plan.applications import App, applications
from tests.plan.builders import ENVIRONMENT
from tests.plan.kept import NOTHING, Git, Memory
from tests.plan.world import Faults, World, told, well_formed

T = TypeVar("T")

_STEPS = settings(
    stateful_step_count=12,
    phases=(Phase.explicit, Phase.generate),  # not shrunk: that takes minutes here
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
_NUMBERS = st.frozensets(st.integers(1, 30), max_size=2)
_PICKS = st.integers(0, 7)
_TWO = st.sets(_PICKS, max_size=2)
_KINDS = ("dataset", "model", "prompt", "endpoint", "route")


class Machine(RuleBasedStateMachine):
    """``app`` is what the file says. ``drifted``: something may be otherwise than the last apply left it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = self.make_world()
        self.app = NOTHING
        self.unreadable: frozenset[str] = frozenset()
        self.drifted = False
        self.order = 0
        self.names = 0
        self.past: list[RecordState] = []

    def make_world(self) -> Memory:
        return Memory()

    @initialize(app=applications(), order=st.integers(0, 2**16))
    def begin(self, app: App, order: int) -> None:
        self.app, self.order = app, order
        self._apply(_desired(self.app))

    # -- the file -------------------------------------------------------------------------------

    @rule(data=st.data())
    def edit(self, data: st.DataObject) -> None:
        edited = data.draw(applications(self.app), "edit")
        declared = edited.desired().resources
        ends = {old: _end(self.app.moved, new) for old, new in self.app.moved}
        kept = tuple((o, n) for o, n in self.app.moved if ends[o] in declared and o not in declared)
        self.app = replace(edited, moved=kept)

    @rule(data=st.data())
    def rename(self, data: st.DataObject) -> None:
        known = [(a.kind, a.name) for a in sorted(_desired(self.app).resources)]
        kind, old = data.draw(st.sampled_from(known), "renamed")
        self.names += 1
        self.app = self.app.renamed(kind, old, f"n{self.names}")

    @rule()
    def forget_moved(self) -> None:
        self.app = replace(self.app, moved=())

    # -- apply ----------------------------------------------------------------------------------

    @rule()
    def apply(self) -> None:
        self._apply(_desired(self.app))

    @rule(before=_NUMBERS, after=_NUMBERS)
    def apply_with_faults(self, before: frozenset[int], after: frozenset[int]) -> None:
        self._apply(_desired(self.app), Faults(before=before, after=after))

    @rule(at=st.integers(0, 30))
    def die(self, at: int) -> None:
        self._apply(_desired(self.app), Faults(dies_at=at))

    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        failing = data.draw(st.sets(st.sampled_from(("a", "b", "c"))), "failing gates")
        self._apply(_desired(self.app), Faults(failing_gates=frozenset(failing)))

    @rule(numbers=st.sets(_PICKS, min_size=1, max_size=2))
    def apply_targets(self, numbers: set[int]) -> None:
        known = sorted({*_desired(self.app).resources, *self.world.recorded.resources})
        before = dict(self.world.recorded.resources)
        plan = self._apply(_desired(self.app), targets=set(_picked(known, numbers)))
        touched = {c.address for c in plan.changes} | {c.moved_from for c in plan.changes}
        for address in {*before, *self.world.recorded.resources} - touched:
            assert self.world.recorded.resources.get(address) == before.get(address), f"{address} is no target"

    @rule(number=_PICKS)
    def roll_back(self, number: int) -> None:
        for then in _picked(self.past, {number}):
            self._apply(back_to(then, self.world.recorded, ENVIRONMENT, "/project"))

    @rule()
    def destroy(self) -> None:
        self._settle()
        self.world.destroy(self.order)
        assert not self.world.recorded.resources
        self.drifted = False
        self.unreadable = frozenset()

    # -- the target -----------------------------------------------------------------------------

    @rule(
        gone=_TWO, ill=_TWO, routes_gone=_TWO, silent=_TWO, kinds=st.sets(st.sampled_from(_KINDS)), stray=st.booleans()
    )
    def drift(
        self, gone: set[int], ill: set[int], routes_gone: set[int], silent: set[int], kinds: set[str], stray: bool
    ) -> None:
        """Behind llmctl's back. Of each of these kinds, things are gone or ill; routes are gone, or serve nobody."""
        self.drifted = True
        for provider in (self.world.providers[kind] for kind in sorted(kinds - {"route"})):
            for key in _picked(sorted(provider.found), gone):
                del provider.found[key]
            for key in _picked(sorted(provider.found), ill):
                provider.found[key] = replace(provider.found[key], healthy=False)
        routes = dict(self.world.gateway.config.routes)
        if "route" in kinds:
            for name in _picked(sorted(routes), routes_gone):
                del routes[name]
            for name in _picked(sorted(routes), silent):
                routes[name] = replace(routes[name], weights={})
        if stray and routes:
            routes["zz"] = replace(routes[min(routes)], name="zz", aliases=())
        self.world.gateway.config = replace(self.world.gateway.config, routes=routes)

    @rule(kinds=st.sets(st.sampled_from(_KINDS), max_size=2))
    def look(self, kinds: set[str]) -> None:
        """From now on these kinds cannot be read, and all others can."""
        self.unreadable = frozenset(kinds)

    # -- what must hold -------------------------------------------------------------------------

    @invariant()
    def nothing_is_recorded_twice(self) -> None:
        for address, was in self.world.recorded.resources.items():
            assert was.address == address
            assert len(set(was.revisions)) == len(was.revisions), f"{address}: a revision has two versions"
            assert was.revision in was.revisions, f"{address}: its revision has no version"
        self.world.well_recorded()

    @invariant()
    def what_serves_has_its_engines(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        """Whatever happened: the next apply that sees everything brings it to what the file says."""
        self.unreadable = frozenset()
        try:
            self._apply(_desired(self.app))
            self._apply(NOTHING.desired())
        finally:
            self.world.end()

    # -- how ------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """An attempt that died is closed before anything else, as every command does."""
        self.world.recover()
        self.drifted = self.drifted or self.world.died

    def _apply(self, want: Desired, faults: Faults | None = None, targets: set[Address] | None = None) -> Plan:
        self._settle()
        world, blind = self.world, self.unreadable
        plan = world.plan(want, targets or (), lambda seen: _without(seen, blind) if blind else seen)
        well_formed(plan)
        assert not [step.id for step in plan.steps if step.address.kind in blind], "steps of what cannot be read"
        before, config = _found(world, blind), world.gateway.config
        result = world.apply(plan, self.order, faults or Faults())
        note(f"{told(result)} {blind}")
        event(f"ok: {result.ok}")
        world.check()
        assert _found(world, blind) == before, "what cannot be read was touched"
        assert "route" not in blind or world.gateway.config == config, "what cannot be read was touched"
        if faults is None:
            self._is_done(want, result, targets, blind)
        else:
            self.drifted = True
        return plan

    def _is_done(self, want: Desired, result: ApplyResult, targets: set[Address] | None, blind: frozenset[str]) -> None:
        """Without a fault one apply is enough for all that can be read."""
        if blind and self.drifted:  # what is needed and gone may be what cannot be read
            return
        assert result.ok, told(result)
        seen = self.world.plan(want, targets or (), lambda seen: _without(seen, blind) if blind else seen)
        assert not seen.steps, f"after a successful apply: {[step.id for step in seen.steps]}"
        if blind or targets:
            return
        assert seen.is_empty
        assert {a: r.revision for a, r in self.world.recorded.resources.items()} == {
            a: r.revision for a, r in want.resources.items()
        }, "the record does not say what holds"
        _serve_as_recorded(self.world)
        self.drifted = False
        if self.world.recorded.resources:
            self.past = [*self.past[-3:], self.world.recorded]


def _desired(app: App) -> Desired:
    """What the file says; a route has all names that it ever had, also through a chain of renames."""
    want, aliases = app.desired(), aliases_of_routes(app.moved)
    resources = {
        a: replace(r, spec={**r.spec, "aliases": aliases.get(a.name, [])}) if a.kind == "route" else r
        for a, r in want.resources.items()
    }
    return replace(want, resources=resources)


def _end(moved: tuple[tuple[Address, Address], ...], address: Address) -> Address:
    follows = dict(moved)
    while address in follows:
        address = follows[address]
    return address


def _serve_as_recorded(world: World) -> None:
    """Every recorded route has all traffic on its recorded revision, whose endpoints run."""
    for address, was in world.recorded.resources.items():
        if address.kind == "route":
            route = world.gateway.config.routes[address.name]
            assert (dict(route.weights), route.promoted) == ({was.revision: 100}, was.revision)
            assert set(chain_keys(was.spec)) <= set(world.providers["endpoint"].found)


def _picked(of: Sequence[T], numbers: set[int]) -> list[T]:
    """Some of them. What there is to choose from may depend on which of two threads was first; what is drawn not."""
    return [of[index] for index in sorted({number % len(of) for number in numbers})] if of else []


def _found(world: World, kinds: frozenset[str]) -> dict[str, Any]:
    return {kind: dict(world.providers[kind].found) for kind in kinds - {"route"}}


def _without(seen: LiveState, kinds: frozenset[str]) -> LiveState:
    """Live state in which these kinds cannot be read."""
    nothing: Reading[Json] = Reading(unreadable={ALL: Diagnostic("it hangs")})
    readings = {kind: nothing if kind in kinds else reading for kind, reading in seen.readings.items()}
    gateway = GatewayReading(True, unreadable="it hangs") if "route" in kinds else seen.gateway
    return LiveState(readings, gateway)


class MachineInGit(Machine):
    """The same, with a real record."""

    def make_world(self) -> Memory:
        return Git()


TestMachine = Machine.TestCase
TestMachine.settings = settings(_STEPS, max_examples=80)
TestMachineInGit = MachineInGit.TestCase
TestMachineInGit.settings = settings(_STEPS, max_examples=8)


def test_back_again_after_a_fault_between_the_gateway_and_the_record() -> None:
    """The gateway knows of an endpoint's change, the record of the route does not, and the file takes it back."""
    first = App({"m": (0, False)}, {"p": 0}, {}, {"e": ("m", 256, 1)}, {"r": ("p", ("e",))}, {}, {})
    second = replace(first, models={"m": (0, True)})
    for number in range(10):
        there = frozenset({number})
        for faults in (Faults(dies_at=number), Faults(before=there), Faults(after=there)):
            world = Memory()
            world.converge(first.desired(), 0)
            world.apply(world.plan(second.desired()), 0, faults)
            world.converge(first.desired(), 0)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
def test_back_again_after_replicas_came_or_went_that_nobody_recorded(before: int, after: int) -> None:
    first = App({"m": (0, False)}, {"p": 0}, {}, {"e": ("m", 256, before)}, {"r": ("p", ("e",))}, {}, {})
    second = replace(first, endpoints={"e": ("m", 256, after)})
    for number in range(12):
        there = frozenset({number})
        for faults in (Faults(dies_at=number), Faults(before=there), Faults(after=there)):
            world = Memory()
            world.converge(first.desired(), 0)
            world.apply(world.plan(second.desired()), 0, faults)
            world.converge(first.desired(), 0)
            (there_now,) = world.providers["endpoint"].found.values()
            assert there_now.state["replicas"]["min"] == before, (number, faults)
