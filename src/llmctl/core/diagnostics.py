"""Diagnostics: what is wrong, where, and what to do about it.

Every room returns these as values; only the command line turns them into text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from llmctl.core.address import Address


class Severity(Enum):
    """Errors stop a command, warnings are shown and do not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, order=True, slots=True)
class SourceRange:
    """A place in a file. ``line`` and ``column`` count from 1; ``end_column`` is exclusive."""

    file: str  # as the user would write it: relative to the working directory where possible
    line: int
    column: int
    end_column: int = 0
    snippet: str = ""  # the text of that line, without its newline

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: ``summary`` says what is wrong, ``hint`` what to do."""

    summary: str
    severity: Severity = Severity.ERROR
    where: SourceRange | None = None
    address: Address | None = None
    detail: str = ""
    hint: str = ""

    @property
    def is_error(self) -> bool:
        return self.severity is Severity.ERROR


def in_order(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Sorted for reading: by file and line, then by address, errors before warnings."""
    return sorted(
        diagnostics,
        key=lambda d: (
            (d.where.file, d.where.line, d.where.column) if d.where else ("￿", 0, 0),
            str(d.address or ""),
            not d.is_error,
            d.summary,
        ),
    )
