"""Diagnostics: what is wrong, where, and what to do about it.

Every room returns these as values; only the command line turns them into text.
"""

from __future__ import annotations

import re
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


_WIDTH = 160  # columns of a snippet; longer lines are cut around the place
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Text from a file must not move the terminal's cursor, colour it or turn it around."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _snippet(where: SourceRange) -> tuple[str, int, int]:
    """The line as shown, where the marks begin (from 0) and how many there are."""
    line = printable(where.snippet.replace("\t", " ").rstrip())
    start = where.column - 1
    length = max(1, where.end_column - where.column)
    if len(line) > _WIDTH:
        cut = max(0, start - _WIDTH // 2)
        piece = line[cut : cut + _WIDTH]
        line = ("…" if cut else "") + piece + ("…" if cut + _WIDTH < len(line) else "")
        start -= cut - bool(cut)
    return line, start, max(1, min(length, len(line) - start))


def render_plain(diagnostic: Diagnostic) -> str:
    """A finding as plain text, several lines, ending in a newline.

    error: unknown key `modle`
      --> llmops.yaml:31:5 (endpoint.support)
       |
    31 |     modle: support-tiny
       |     ^^^^^
       = help: did you mean `model`?
    """
    where, address = diagnostic.where, diagnostic.address
    gutter = " " * (len(str(where.line)) if where else 1)
    lines = [f"{diagnostic.severity.value}: {printable(diagnostic.summary)}"]
    if where:
        lines.append(f"{gutter}--> {printable(str(where))}" + (f" ({address})" if address else ""))
        if where.snippet.strip():
            line, start, length = _snippet(where)
            lines += [f"{gutter} |", f"{where.line} | {line}", f"{gutter} | {' ' * start}{'^' * length}"]
    elif address:
        lines.append(f"{gutter}--> {address}")
    for label, text in (("note", diagnostic.detail), ("help", diagnostic.hint)):
        first, *rest = printable(text).split("\n")
        if first:
            lines.append(f"{gutter} = {label}: {first}")
            lines += [f"{gutter}   {line}" for line in rest]
    return "\n".join(line.rstrip() for line in lines) + "\n"
