"""A world in memory in which plans are applied, and applications that were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from llmctl.apply import ApplyResult, Collected, Run, run_steps
from llmctl.core.address import Address
from llmctl.core.resources import Desired, RecordState, Resource
from llmctl.live import LiveState, read
from llmctl.plan import Plan, build_plan
from tests.apply.fakes import FakeClock, MemoryJournal, MemoryTarget
from tests.plan.builders import NOTHING, application, desired, recorded

ROUTE = Address("route", "support")
ENDPOINT = Address("endpoint", "main")
PROMPT = Address("prompt", "answer")


@dataclass
class World:
    target: MemoryTarget = field(default_factory=MemoryTarget)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    clock: FakeClock = field(default_factory=FakeClock)
    reporter: Collected = field(default_factory=Collected)

    def begin(self, plan: Plan, serial: int, lease: Callable[[], None] = lambda: None, **more: Any) -> Run:
        return Run(
            plan=plan,
            target=self.target,
            journal=self.journal,
            serial=serial,
            fence=serial,
            check_lease=lease,
            on_gate=lambda report: None,  # noqa: ARG005
            resources=dict(plan.recorded.resources),
            clock=self.clock,
            **more,
        )

    def run(self, plan: Plan, serial: int, lease: Callable[[], None] = lambda: None) -> tuple[ApplyResult, Run]:
        run = self.begin(plan, serial, lease)
        return self.go(run), run

    def go(self, run: Run, parallelism: int = 8) -> ApplyResult:
        return run_steps(run, self.reporter, parallelism=parallelism)

    def read(self) -> LiveState:
        return read(self.target)

    def told(self, text: str) -> list[str]:
        """Lines of progress that have ``text`` in them."""
        return [line for _, line in self.reporter.lines if text in line]


def without_gates(want: Desired) -> Desired:
    return replace(want, resources={a: r for a, r in want.resources.items() if a.kind != "gate"})


def with_fields(resources: dict[Address, Resource], address: Address, **fields: Any) -> dict[Address, Resource]:
    """The application with other operating fields of one resource: its revision stays."""
    was = resources[address]
    return {**resources, address: replace(was, spec={**was.spec, **fields})}


def planned(resources: dict[Address, Resource], state: RecordState, world: World, **more: Any) -> Plan:
    """The plan from what is recorded and live to these resources, gates aside."""
    return build_plan(replace(without_gates(desired(resources)), **more), state, world.read())


def applied(**more: Any) -> tuple[World, RecordState]:
    """A world in which the application was applied once."""
    return established(application(**more))


def established(resources: dict[Address, Resource]) -> tuple[World, RecordState]:
    """A world in which these resources were applied once."""
    world = World()
    result, run = world.run(build_plan(without_gates(desired(resources)), recorded({}, 0), NOTHING), 1)
    assert result.ok, [(r.step.id, r.text) for r in result.results if not r.state.ok]
    return world, recorded_by(run)


def recorded_by(run: Run) -> RecordState:
    return replace(recorded({}, run.serial), resources=dict(run.resources))
