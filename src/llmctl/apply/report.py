"""What apply tells while it works, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import LlmctlError
from llmctl.core.evidence import Evidence
from llmctl.core.resources import Recorded
from llmctl.core.steps import Step
from llmctl.gates import RowReport


class State(Enum):
    """How a step ended."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"  # something that it needs failed, or the apply was interrupted
    UNDONE = "undone"  # it had succeeded and was taken back
    REPLACED = "replaced"  # it could not be brought back, and something new serves in its place

    @property
    def ok(self) -> bool:
        return self in (State.DONE, State.REPLACED)


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step's end. ``text`` says what was done; ``error`` is set when it failed.

    ``tries`` counts how often it was begun, 0 for a step that was skipped or was not ours to begin. ``because``
    is set for a skipped step: the id of the failed step at the bottom, "" when the apply was interrupted.
    """

    step: Step
    state: State
    text: str = ""
    seconds: float = 0.0
    error: LlmctlError | None = None
    tries: int = 0
    because: str = ""


@dataclass(frozen=True, slots=True)
class GateReport:
    """A gate's evidence with the worst rows; their texts are for the screen and are recorded nowhere."""

    evidence: Evidence
    worst: tuple[RowReport, ...] = ()
    cached: tuple[str, ...] = ()
    as_recorded: bool = False  # judged by the gate as it was recorded, which this apply weakens or deletes


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """How an apply ended. ``resources`` is what the record holds now."""

    results: tuple[StepResult, ...]
    resources: Mapping[Address, Recorded]
    gates: tuple[GateReport, ...] = ()
    warnings: tuple[Diagnostic, ...] = ()

    @property
    def done(self) -> list[StepResult]:
        """What happened, and stays."""
        return self._in(State.DONE)

    @property
    def failed(self) -> list[StepResult]:
        """What was begun and did not succeed; each has its ``error``."""
        return self._in(State.FAILED)

    @property
    def skipped(self) -> list[StepResult]:
        """What was not begun; ``because`` names the failed step that each goes back to."""
        return self._in(State.SKIPPED)

    @property
    def undone(self) -> list[StepResult]:
        """What had succeeded and was taken back, because it was for nothing."""
        return self._in(State.UNDONE)

    def _in(self, state: State) -> list[StepResult]:
        return [r for r in self.results if r.state is state]

    @property
    def ok(self) -> bool:
        return all(r.state.ok for r in self.results)


class Reporter(Protocol):
    """Hears of progress, from several threads at once."""

    def started(self, step: Step) -> None: ...

    def progress(self, step: Step, text: str) -> None: ...

    def ended(self, result: StepResult) -> None: ...

    def gate(self, report: GateReport) -> None: ...


@dataclass
class Collected:
    """A reporter that only remembers; for programs and tests."""

    results: list[StepResult] = field(default_factory=list)
    gates: list[GateReport] = field(default_factory=list)
    begun: list[Step] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)

    def started(self, step: Step) -> None:
        self.begun.append(step)

    def progress(self, step: Step, text: str) -> None:
        self.lines.append((step.id, text))

    def ended(self, result: StepResult) -> None:
        self.results.append(result)

    def gate(self, report: GateReport) -> None:
        self.gates.append(report)
