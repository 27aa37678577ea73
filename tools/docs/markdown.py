"""Pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"(`[^`]*`)")
_MARKS = re.compile(r"([*_\[\]])")
_WIDTH = 72  # columns of a line in a table


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar within a cell would end it."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def code(text: str) -> str:
    """Text as it is written, in one line."""
    fence = "``" if "`" in text else "`"
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def prose(text: str) -> str:
    """Text in one line, in which only what stands in backticks is more than text."""
    pieces = _CODE.split(" ".join(text.split()))
    return "".join(p if p.startswith("`") else _MARKS.sub(r"\\\1", p.replace("<", "&lt;")) for p in pieces)


def cut(text: str) -> str:
    """A line that fits into a table."""
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def block(text: str, language: str) -> str:
    """Text as it is written, in lines."""
    return f"```{language}\n{text.rstrip()}\n```"


def page(*parts: str) -> str:
    """Parts with a blank line between them; those that are empty are left out."""
    return "\n\n".join(part.rstrip() for part in parts if part.strip()) + "\n"
