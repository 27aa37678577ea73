"""Worlds that keep a record as a project does: in memory, or in a real git repository, where a death leaves its
attempt open."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from llmctl import live
from llmctl.apply import ApplyResult, Collected, Run, run_destroy, run_steps
from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import Change, Intent
from llmctl.core.resources import Recorded
from llmctl.plan import Plan, build_plan
from llmctl.record import Attempt, Reader, find_interrupted, open_repository
from tests.plan.applications import App
from tests.plan.world import Faults, Journal, World, _verdicts, told, well_formed
from tests.record.helpers import BRANCH, ENV, llmctl_refs, make_repository

NOTHING = App({}, {}, {}, {}, {}, {}, {})


class Memory(World):
    """The target with its record in memory."""

    died = False

    def apply(self, plan: Plan, order: int, faults: Faults) -> ApplyResult:
        result = super().apply(plan, order, faults)
        self.died = faults.dies_at is not None and faults.count >= faults.dies_at
        return result

    def _watch(self, plan: Plan, faults: Faults) -> None:
        """A gate whose route is not in the plan, because it cannot be read, does not run."""
        wanted = plan.desired.resources
        routes = {address.name for address in wanted if address.kind == "route"}
        run = {a.name for a, r in wanted.items() if a.kind == "gate" and r.spec["route"] in routes}
        faults.failing_gates &= run
        super()._watch(plan, faults)

    def destroy(self, order: int) -> None:
        """``llmctl destroy``: the target ends as a whole, in whatever state it is."""
        plan = build_plan(NOTHING.desired(), self.recorded, live.read(self.target), action="destroy")
        well_formed(plan)
        journal = Journal()
        result = run_destroy(self._run(plan, order, journal, Faults()), Collected(), self._end_target)
        assert result.ok, told(result)
        self._hold(journal.changes, plan)

    def recover(self) -> None:
        """What the next command does first with an attempt that is open."""
        self.died = False

    def end(self) -> None:
        """Nothing is left of it."""

    def well_recorded(self) -> None:
        """Whether the record, read anew, says the same."""

    def _end_target(self) -> None:
        self.serving = frozenset()
        for provider in self.providers.values():
            provider.found.clear()
        self.gateway.config = GatewayConfig("dev")

    def _run(self, plan: Plan, order: int, journal: Any, faults: Faults) -> Run:
        steps = list(plan.steps)
        Random(order).shuffle(steps)
        for part in (*self.providers.values(), self.gateway):
            part.faults = faults
        serial = self.recorded.serial + 1
        return Run(
            plan=replace(plan, steps=tuple(steps)),
            target=self.target,
            journal=journal,
            serial=serial,
            fence=serial,
            check_lease=faults.check_lease,
            on_gate=lambda report: None,  # noqa: ARG005
            resources=dict(plan.recorded.resources),
        )

    def _hold(self, changes: list[Change], plan: Plan) -> None:
        held: dict[Address, Recorded] = dict(self.recorded.resources)
        for change in changes:
            held.update({a: r for a, r in change.resources.items() if r is not None})
            for address in (a for a, r in change.resources.items() if r is None):
                held.pop(address, None)
        self.recorded = replace(self.recorded, serial=plan.recorded.serial + 1, resources=held)


@dataclass
class Noted(Journal):
    """The journal of a real attempt; what fails in it was not recorded."""

    attempt: Attempt | None = None

    def intend(self, step: str, effect: str, data: Mapping[str, Json], *, share: bool = True) -> Intent:
        assert self.attempt
        return self.attempt.intend(step, effect, data, share=share)

    def share(self) -> None:
        assert self.attempt
        self.attempt.share()

    def done(self, intent: Intent, outcome: str, data: Mapping[str, Json]) -> None:
        assert self.attempt
        self.attempt.done(intent, outcome, data)

    def commit(self, change: Change) -> None:
        assert self.attempt
        super().commit(change)
        self.attempt.commit(change)


class Git(Memory):
    """The target with its record in a git repository. What dies leaves its attempt open there."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp(prefix="llmctl-machine-"))
        self.repository = open_repository(make_repository(self._folder / "project"))

    def apply(self, plan: Plan, order: int, faults: Faults) -> ApplyResult:
        attempt, journal = self._begin(plan, order, faults)
        self._watch(plan, faults)
        with _verdicts(faults.failing_gates):
            result = run_steps(self._run(plan, order, journal, faults), Collected(), parallelism=1)
        self.died = faults.dies_at is not None and faults.count >= faults.dies_at
        if self.died:
            attempt._journal.close()  # as the end of a process does
        else:
            attempt.close("applied" if result.ok else "failed", subject="Apply", decisions={}, rejections=())
        self._hold(journal.changes, plan)
        self.look()
        return result

    def destroy(self, order: int) -> None:
        plan = build_plan(NOTHING.desired(), self.recorded, live.read(self.target), action="destroy")
        well_formed(plan)
        attempt, journal = self._begin(plan, order, Faults())
        result = run_destroy(self._run(plan, order, journal, Faults()), Collected(), self._end_target)
        assert result.ok, told(result)
        attempt.close("applied", subject="Destroy", decisions={}, rejections=())
        self._hold(journal.changes, plan)

    def recover(self) -> None:
        found = find_interrupted(self.repository, ENV)
        assert (found is not None) == self.died
        if found is not None:
            found.recover(found.fence + 1).close("interrupted", subject="Interrupted", decisions={}, rejections=())
        self.died = False
        self.well_recorded()

    def well_recorded(self) -> None:
        if self.died:
            return
        recorded = Reader(self.repository, ENV).state()
        assert recorded.serial == self.recorded.serial
        assert recorded.resources == self.recorded.resources
        self.recorded = recorded
        assert llmctl_refs(self._folder / "project") in ([], [BRANCH])

    def _begin(self, plan: Plan, order: int, faults: Faults) -> tuple[Attempt, Noted]:
        attempt = Attempt.begin(
            self.repository,
            ENV,
            plan.recorded,
            fence=plan.recorded.serial + 1,
            action="apply",
            plan_digest="sha256:" + "a" * 64,
            source_commit=self.repository.head_commit(),
            project="acme",
            actor=self.repository.actor(),
            lag_s=0.0 if order % 2 else 60.0,  # git follows each change, or only at the close
        )
        return attempt, Noted(faults=faults, attempt=attempt)

    def end(self) -> None:
        shutil.rmtree(self._folder)
