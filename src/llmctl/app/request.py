"""What an apply, a destroy or a rollback is asked to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from llmctl.app.planning import EVERYTHING, Scope
from llmctl.apply import Reporter
from llmctl.plan import Plan
from llmctl.record import Action as RecordAction


def _now() -> datetime:
    return datetime.now(UTC)


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
    break_glass: str = ""  # why gates and approvals are to be skipped, "" for an ordinary apply
    allowed_signers: Path | None = None  # whose approvals count; None for those of git's settings
    now: Callable[[], datetime] = _now
    option: str = ""  # what commands that are named to the user need to mean the same project, such as " -e dev"

    @property
    def action(self) -> RecordAction:
        return "destroy" if self.destroy else "apply" if self.rollback_to is None else "rollback"
