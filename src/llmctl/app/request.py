"""What an apply, a destroy or a rollback is asked to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from llmctl.app.planning import EVERYTHING, Scope
from llmctl.apply import Reporter
from llmctl.plan import Plan
from llmctl.record import Action as RecordAction


@dataclass(frozen=True)
class Request:
    """What an apply is asked to do. ``confirm`` is shown the plan and says whether to go on."""

    confirm: Callable[[Plan], bool]
    reporter: Reporter
    notice: Callable[[str], None]
    cancelled: Event = field(default_factory=Event)
    parallelism: int = 8
    plan_file: Path | None = None
    scope: Scope = EVERYTHING
    rollback_to: int | None = None  # a serial, or LAST_GOOD
    destroy: bool = False
    reason: str = ""

    @property
    def action(self) -> RecordAction:
        return "destroy" if self.destroy else "apply" if self.rollback_to is None else "rollback"
