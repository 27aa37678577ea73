"""One apply in progress: what all steps share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock

from llmctl.apply.clock import Clock
from llmctl.apply.inventory import Inventory
from llmctl.apply.report import GateReport
from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.errors import LlmctlError, ProviderError
from llmctl.core.evidence import Evidence
from llmctl.core.protocols import Change, Intent, Journal, Op, Target
from llmctl.core.resources import Recorded, Spec
from llmctl.core.steps import Move, Step
from llmctl.plan import Plan
from llmctl.plan.moves import as_recorded

Progress = Callable[[str], None]


@dataclass
class Run:
    """The plan, where it acts, and what is recorded so far.

    ``resources`` changes as steps are committed; ``mutex`` guards it, because steps run in parallel.
    ``scratch`` is the folder in which gates keep what they have measured, so that a killed one goes on from
    there; None for none.
    """

    plan: Plan
    target: Target
    journal: Journal
    serial: int
    fence: int
    check_lease: Callable[[], None]
    on_gate: Callable[[GateReport], None]
    cancelled: Event = field(default_factory=Event)
    known_evidence: list[Evidence] = field(default_factory=list)
    resources: dict[Address, Recorded] = field(default_factory=dict)
    mutex: Lock = field(default_factory=Lock)
    scratch: Path | None = None
    clock: Clock = field(default_factory=Clock)
    inventory: Inventory = field(init=False)
    before: Mapping[Address, Recorded] = field(init=False)  # what was recorded, also under the names that Move gives

    def __post_init__(self) -> None:
        self.inventory = Inventory(self.target, self.clock)
        recorded = self.plan.recorded.resources
        moves = (s for s in self.plan.steps if isinstance(s, Move) and s.origin in recorded)
        self.before = {**recorded, **{m.address: replace(recorded[m.origin], address=m.address) for m in moves}}

    @property
    def environment(self) -> str:
        return self.plan.desired.environment.name

    def op(self, step: Step, progress: Progress, seconds: float, *, cancelled: Event | None = None) -> Op:
        """The circumstances of a step that has ``seconds`` from now on, all its tries together."""
        return Op(
            idempotency_key=f"{self.environment}/{self.serial}/{step.id}",
            deadline_s=self.clock.now() + seconds,
            cancelled=cancelled or self.cancelled,
            progress=progress,
            check_lease=self.check_lease,
            serial=self.serial,
            fence=self.fence,
        )

    def spec_of(self, address: Address, revision: str) -> Spec:
        """The spec of a revision: desired, recorded, or of an endpoint that a route of either still uses.

        Raises ``ProviderError`` for one that is in none of these.
        """
        for known in (self.plan.desired.resources.get(address), self.before.get(address)):
            if known and known.revision == revision:
                return known.spec
        for state in (self.plan.recorded.resources, self.plan.desired.resources):
            for resource in (r for a, r in state.items() if a.kind == "route"):
                for link in resource.spec["chain"]:
                    if address.kind == "endpoint" and (link["endpoint"], link["revision"]) == (address.name, revision):
                        spec: Spec = link["spec"]
                        return spec
        raise ProviderError(f"{address}: nothing is recorded of revision {revision}")

    def versions_of(self, address: Address) -> Recorded | None:
        """The record that a resource's version numbers go on from, under whatever name it has that."""
        return as_recorded(self.plan, address)

    # -- journal and record ---------------------------------------------------------------------

    @contextmanager
    def effect(
        self, step: Step, name: str, data: Mapping[str, Json]
    ) -> Iterator[Callable[[str, Mapping[str, Json]], None]]:
        """Note an effect before it is made, while the lock is ours, and after.

        Yields what to call for another outcome than "ok".
        """
        intent = self.intend(step, name, data)
        outcome: list[tuple[str, Mapping[str, Json]]] = [("ok", {})]
        try:
            yield lambda word, found: outcome.append((word, found))
        except LlmctlError as error:
            self.ended(intent, error)
        self.ended(intent, None, *outcome[-1])

    def intend(self, step: Step, name: str, data: Mapping[str, Json], *, share: bool = True) -> Intent:
        """Note an effect that is about to be made, while the lock is ours; ``share`` as the journal has it."""
        self.check_lease()  # here too: a provider of somebody else's may forget to, and a step may have many effects
        return self.journal.intend(step.id, name, data, share=share)

    def ended(
        self, intent: Intent, error: Exception | None, outcome: str = "ok", data: Mapping[str, Json] | None = None
    ) -> None:
        """Note how an effect came out; raises its ``error``. After a defect nobody knows, and the intent stays open."""
        if isinstance(error, LlmctlError):
            with suppress(LlmctlError):  # the effect's own failure says more than the journal's
                self.journal.done(intent, "failed", {})
        if error is not None:
            raise error
        self.journal.done(intent, outcome, data or {})

    def commit(self, change: Change) -> None:
        """Put a change into the attempt while the lock is ours, and remember it for the steps that follow."""
        self.check_lease()
        self.journal.commit(change)
        with self.mutex:
            for address, recorded in change.resources.items():
                if recorded is None:
                    self.resources.pop(address, None)
                else:
                    self.resources[address] = recorded


def trailers(step: Step) -> tuple[tuple[str, str], ...]:
    """The resource and revision that a step is about, for its commit."""
    return (("Resource", str(step.address)), *((("Revision", step.revision),) if step.revision else ()))
