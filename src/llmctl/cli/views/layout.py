"""Lines of text: wrapped where a terminal has a width, as they are in a pipe, and safe to print."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TextIO, TypeVar

import click

from llmctl.core.diagnostics import printable

NAMED = 3  # names that a sentence lists before it counts the rest
_LEAST = 40  # columns; a narrower terminal wraps by itself
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Line:
    """One line, ``indent`` columns in; what does not fit goes on below, ``hang`` columns further in.

    ``styled`` is the same text with colours inside, for where it fits; ``note`` is said after it, dimmed.
    """

    text: str
    indent: int = 2
    hang: int = 2
    fg: str | None = None
    bold: bool = False
    dim: bool = False
    note: str = ""
    styled: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part of a view. ``code`` names the language that colours its lines in a Markdown fence."""

    title: str
    lines: Sequence[Line] = field(default_factory=tuple)
    code: str = "text"


def screen_width(stream: TextIO | None = None) -> int | None:
    """The columns of the terminal that ``stream`` (stdout) is, None when it is none: then nothing is wrapped."""
    shown: TextIO | None = stream or sys.stdout  # None where whoever started us has closed it
    return max(_LEAST, shutil.get_terminal_size().columns) if shown is not None and shown.isatty() else None


def rendered(lines: Iterable[Line], width: int | None) -> str:
    """The lines with their colours, which vanish where the output is no terminal."""
    return "\n".join(text for line in lines for text in _wrapped(line, width))


def plain(lines: Iterable[Line]) -> Iterator[str]:
    """The lines without any colour, each in one piece."""
    for line in lines:
        yield f"{' ' * line.indent}{one_line(line.text)}{f'  {line.note}' if line.note else ''}".rstrip()


def one_line(text: str) -> str:
    """Text of a user as it may be printed: no line ends, no control characters, nothing that turns the direction."""
    return printable(text.replace("\r", " ").replace("\n", " ").replace("\t", "    "))


def _wrapped(line: Line, width: int | None) -> Iterator[str]:
    text, note = one_line(line.text), f"  {one_line(line.note)}" if line.note else ""
    pad = " " * line.indent
    if width is None or len(pad) + len(text) + len(note) <= width:
        body = line.styled or _styled(line, text)
        yield (pad + body + (click.style(note, dim=True) if note else "")).rstrip()
        return
    below = " " * (line.indent + line.hang)
    pieces = textwrap.wrap(
        text + note, width, initial_indent=pad, subsequent_indent=below, break_on_hyphens=False, tabsize=4
    )
    yield from (_styled(line, piece) for piece in pieces or [""])


def _styled(line: Line, text: str) -> str:
    if line.fg is None and not line.bold and not line.dim:
        return text
    return click.style(text, fg=line.fg, bold=line.bold or None, dim=line.dim or None)


def cut(text: str, most: int) -> str:
    """At most ``most`` characters, an ellipsis where something is left out."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def first(items: Sequence[T], most: int, what: str) -> tuple[Sequence[T], list[Line]]:
    """The first ``most`` of them, and the line that says how many more there are."""
    if len(items) <= most:
        return items, []
    return list(islice(items, most)), [Line(f"… and {len(items) - most:,} more {what}; --json has all", dim=True)]


def listed(names: Iterable[object], most: int = NAMED) -> str:
    """``a, b, c and 4 more``."""
    known = [str(name) for name in names]
    if len(known) <= most:
        return ", ".join(known)
    return f"{', '.join(known[:most])} and {len(known) - most:,} more"


def count(number: int, word: str, many: str = "") -> str:
    """``1 gate``, ``2 gates``."""
    return f"{number:,} {word if number == 1 else many or word + 's'}"
