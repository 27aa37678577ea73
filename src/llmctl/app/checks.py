"""What a check of ``llmctl doctor`` is, and what it looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from llmctl import record, spec
from llmctl.app.workspace import Workspace
from llmctl.core.errors import RecordError
from llmctl.record.git import GitCommand


class Level(Enum):
    """What a check came to."""

    OK = "ok"
    WARNING = "warning"  # it works, or another command would say so; but look at it
    FAILED = "failed"  # an apply would not get through


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was found and, when it is not all right, what to do."""

    name: str
    level: Level
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Surroundings:
    """What is looked at. Without a project it is the working folder, and ``workspaces`` is empty."""

    folder: Path
    file: Check
    workspaces: tuple[Workspace, ...] = ()
    resolved: tuple[spec.Resolved, ...] = field(default=())
    foreign: str = ""  # a section of a file that is wrong, which a package that is not installed may add

    @property
    def git(self) -> GitCommand:
        return GitCommand(self.folder)

    @property
    def recorded(self) -> tuple[Workspace, ...]:
        """The workspaces whose record can be looked at; the check of the repository says what is wrong with it."""
        try:
            record.open_repository(self.folder)
        except RecordError:
            return ()
        return self.workspaces
