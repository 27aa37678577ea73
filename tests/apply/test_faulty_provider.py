"""Random faults of providers and of the gateway, at random calls, over random edits of a small application.

Whatever happens: no exception leaves ``run_steps``, what serves keeps serving, nothing is lost without a word, and
once the faults stop one apply is enough and leaves nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from threading import current_thread
from typing import Any

from hypothesis import event, given, note
from hypothesis import strategies as st

from llmctl.apply import ApplyResult, Collected, Run, State, run_steps
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.errors import ProviderError, TransientError
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.kinds import Role, kind_of
from llmctl.core.protocols import Op
from llmctl.core.resources import ALL, Key, Live, Reading
from llmctl.live import LiveState
from llmctl.plan import Plan
from tests.apply.fakes import FakeClock, MemoryTarget
from tests.plan import world as properties
from tests.plan.applications import App, applications
from tests.plan.world import Faults, Journal

BEFORE = ("transient", "refused", "raises", "hangs")  # the call has no effect
AFTER = ("answer lost", "hangs after", "answers nothing", "answers text", "answers another revision")
READING = ("transient", "raises", "hangs", "answers nothing", "lists half", "some unreadable", "all unreadable")


@dataclass
class Mischief:
    """Which calls go wrong, and how: by their number, and one kind of call for as long as it lasts."""

    clock: FakeClock
    by_number: dict[int, str]
    lasting: tuple[str, str] | None = None  # "kind.verb", fault
    count: int = 0
    done: list[str] = field(default_factory=list)

    def next(self, call: str) -> str:
        """The fault of this call, "" for none."""
        self.count += 1
        fault = self.by_number.get(self.count, "")
        if self.lasting is not None and self.lasting[0] == call:
            fault = self.lasting[1]
        fits = READING if call.endswith(".read") else BEFORE + AFTER
        fault = fault if fault in fits else ""
        if fault:
            self.done.append(f"{self.count} {call}: {fault}")
        return fault

    def call(self, call: str, make: Callable[[], Any]) -> Any:
        """Make the call, or do not, and answer or do not."""
        fault = self.next(call)
        self._fail(fault)
        made = make()
        if fault == "answer lost":
            raise TransientError("the answer is lost")
        if fault == "hangs after":
            self._hang()
        return _garbled(fault, made)

    def _fail(self, fault: str) -> None:
        if fault == "transient":
            raise TransientError("busy")
        if fault == "refused":
            raise ProviderError("refused")
        if fault == "raises":
            raise ZeroDivisionError("a defect")
        if fault == "hangs":
            self._hang()

    def _hang(self) -> None:
        self.clock.hang()
        raise ProviderError("too late for an answer")


def _garbled(fault: str, made: Any) -> Any:
    if fault == "answers nothing":
        return None
    if fault == "answers text":
        return "OK"
    if fault == "answers another revision" and isinstance(made, Live):
        return replace(made, revision="f" * 16)
    if isinstance(made, Reading) and made.found:
        first, *rest = sorted(made.found)
        left = {key: made.found[key] for key in rest}
        if fault == "lists half":
            return Reading(left)
        if fault == "some unreadable":
            return Reading(left, {first: Diagnostic("no answer")})
    if fault == "all unreadable":
        silent = Diagnostic("no answer")
        return Reading(unreadable={ALL: silent}) if isinstance(made, Reading) else replace(made, unreadable="no answer")
    return made


@dataclass
class FaultyProvider:
    kind: str
    inner: Any
    mischief: Mischief

    def read_all(self) -> Any:
        return self.mischief.call(f"{self.kind}.read", self.inner.read_all)

    def create(self, op: Op, key: Key, want: Json) -> Any:
        return self.mischief.call(f"{self.kind}.create", lambda: self.inner.create(op, key, want))

    def update(self, op: Op, key: Key, was: Live[Json], want: Json) -> Any:
        return self.mischief.call(f"{self.kind}.update", lambda: self.inner.update(op, key, was, want))

    def delete(self, op: Op, key: Key, was: Live[Json]) -> Any:
        return self.mischief.call(f"{self.kind}.delete", lambda: self.inner.delete(op, key, was))


@dataclass
class FaultyGateway:
    inner: Any
    mischief: Mischief

    def read(self) -> Any:
        if current_thread().name != "call":
            return self.inner.read()  # not apply, but the stand-in for the gates' own requests
        return self.mischief.call("gateway.read", self.inner.read)

    def publish(self, op: Op, config: GatewayConfig, expected: str) -> Any:
        return self.mischief.call("gateway.publish", lambda: self.inner.publish(op, config, expected))

    def gate_access(self) -> Any:
        return self.inner.gate_access()


@dataclass
class World(properties.World):
    """The world of the plan's properties, on a clock that stands still, with providers that misbehave."""

    def with_faults(self, plan: Plan, order: int, mischief: Mischief) -> ApplyResult:
        steps = list(plan.steps)
        Random(order).shuffle(steps)
        self._watch(plan, Faults())
        target = MemoryTarget(
            {kind: FaultyProvider(kind, inner, mischief) for kind, inner in self.providers.items()},  # type: ignore[misc]
            gateway=FaultyGateway(self.gateway, mischief),  # type: ignore[arg-type]
        )
        journal, serial = Journal(), self.recorded.serial + 1
        run = Run(
            plan=replace(plan, steps=tuple(steps)),
            target=target,
            journal=journal,
            serial=serial,
            fence=serial,
            check_lease=lambda: None,
            on_gate=lambda report: None,  # noqa: ARG005
            resources=dict(plan.recorded.resources),
            clock=mischief.clock,
        )
        with properties._verdicts(frozenset()):
            result = run_steps(run, Collected(), parallelism=1)
        self.recorded = replace(self.recorded, serial=serial, resources=dict(run.resources))
        self.look()
        return result

    def lost(self) -> list[Address]:
        """What is recorded and has a live thing, and has none."""
        found = []
        for address, was in self.recorded.resources.items():
            role = kind_of(address.kind).role
            if role is Role.ROUTE and address.name not in self.gateway.config.routes:
                found.append(address)
            if role in (Role.ARTIFACT, Role.DEPLOYMENT):
                there = self.providers[address.kind].found.get(Key(address.name, was.revision))
                if there is None or not there.healthy:
                    found.append(address)
        return found


def _live(world: World) -> list[tuple[str, Key]]:
    return sorted((kind, key) for kind, provider in world.providers.items() for key in provider.found)


def _without(seen: LiveState, hidden: set[tuple[str, Key]]) -> LiveState:
    """Live state as it is read when a provider lists half, and does not say so."""
    readings = {
        kind: replace(reading, found={k: v for k, v in reading.found.items() if (kind, k) not in hidden})
        for kind, reading in seen.readings.items()
    }
    return replace(seen, readings=readings)


FAULTS = st.sampled_from(sorted({*BEFORE, *AFTER, *READING}))
CALLS = st.sampled_from(
    [
        *(f"{kind}.{verb}" for kind in ("prompt", "endpoint") for verb in ("read", "create", "update", "delete")),
        "gateway.read",
        "gateway.publish",
    ]
)


@properties.EXAMPLES
@given(
    st.data(),
    st.integers(0, 2**16),
    st.dictionaries(st.integers(1, 40), FAULTS, min_size=2, max_size=6),
    st.none() | st.tuples(CALLS, FAULTS),
)
def test_nothing_is_lost_and_all_is_well_once_the_faults_stop(
    data: st.DataObject, order: int, by_number: dict[int, str], lasting: tuple[str, str] | None
) -> None:
    first = data.draw(applications(), "first")
    second = data.draw(applications(first), "second")
    clock = FakeClock()
    mischief = Mischief(clock, by_number, lasting)
    world = World()
    world.converge(first.desired(), order)
    hidden = data.draw(st.sets(st.sampled_from(_live(world)), max_size=2), "hidden from the plan")
    plan = world.plan(second.desired(), unreadable=lambda seen: _without(seen, hidden))
    try:
        result = world.with_faults(plan, order, mischief)
    finally:
        clock.released.set()
    event(f"ok: {result.ok}, faults: {min(len(mischief.done), 3)}")
    note("\n".join(mischief.done))
    note("\n".join(f"{r.step.id} {r.state.value}: {r.text}" for r in result.results))
    if hidden:  # a plan that did not see an engine does not know either that it is about to lose replicas
        world.complaints = [line for line in world.complaints if "replicas" not in line]
    world.check()
    assert all(r.error is not None and r.text for r in result.failed)
    assert all(r.because or r.text == "interrupted" for r in result.skipped)
    assert "defect in llmctl" not in " ".join(r.error.hint for r in result.failed if r.error)
    assert not world.lost() or not result.ok
    world.converge(second.desired(), order)


def test_the_mischief_is_made() -> None:
    """The property would hold of anything if no fault ever came."""
    app = App({"a": (0, False)}, {"a": 0}, {"a": 0}, {"a": ("a", 256, 1)}, {"a": ("a", ("a",))}, {}, {})
    world = World()
    world.converge(app.desired(), 0)
    changed = replace(app, prompts={"a": 1}, endpoints={"a": ("a", 512, 1)}).desired()
    clock = FakeClock()
    for fault in (*BEFORE, *AFTER):
        mischief = Mischief(clock, {}, ("endpoint.create", fault))
        result = world.with_faults(world.plan(changed), 0, mischief)
        assert mischief.done
        assert {r.step.id.partition("@")[0] for r in result.failed} == {"provision:endpoint.a"}, fault
        assert {r.state for r in result.results} <= {State.DONE, State.FAILED, State.SKIPPED, State.UNDONE}
        world.check()
        assert not world.lost()
    clock.released.set()
    world.converge(changed, 0)


def test_the_loss_would_be_seen() -> None:
    app = App({"a": (0, False)}, {"a": 0}, {}, {"a": ("a", 256, 1)}, {"a": ("a", ("a",))}, {}, {})
    world = World()
    world.converge(app.desired(), 0)
    assert not world.lost()
    world.providers["endpoint"].found.clear()
    world.gateway.config = GatewayConfig("dev")
    assert world.lost() == [Address("endpoint", "a"), Address("route", "a")]
