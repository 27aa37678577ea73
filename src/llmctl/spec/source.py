"""The text of the file: lines for snippets, with secrets masked before anything can show them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from llmctl.core.diagnostics import SourceRange

#: What YAML counts as the end of a line; ``str.splitlines`` knows more of them and would shift the numbers.
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")

#: Names of keys whose value is a secret, also when they are misspelt: ``api_key``, ``apiKey``, ``client-secret``.
_SECRET_NAME = re.compile(r"(?:api[-_ ]?key|access[-_ ]?key|secret|password|passwd|token)\Z", re.IGNORECASE)

_SECRET_KEY = r"(?:api[-_ ]?key|access[-_ ]?key|secret|password|passwd|token)[\"']?\s*:\s*"
_REFERENCE_ALONE = re.compile(r"[\"']?\$\{env:[A-Za-z_][A-Za-z0-9_]*\}[\"']?\s*(?:[,}#]|\Z)")
_SECRET_IN_LINE = re.compile(_SECRET_KEY, re.IGNORECASE)
#: A secret's value: in quotes, up to the comma or brace that ends it in a flow map, or all of the line.
_QUOTED = r"\"(?:[^\"\\]|\\.)*(?:\"|\Z)|'(?:[^']|'')*(?:'|\Z)"
_IN_FLOW = re.compile(rf"{_QUOTED}|(?:\$\{{[^}}]*\}}|[^,}}])+")
_IN_BLOCK = re.compile(rf"(?:{_QUOTED})(?=\s*(?:#|\Z))|.+")
_SECRET_KEY_ENDS_LINE = re.compile(rf"{_SECRET_KEY}(?:[|>][-+0-9]*)?\s*(?:#.*)?\Z", re.IGNORECASE)
_CREDENTIALS_IN_URL = re.compile(r"(://)([^/\s\"'@]*)(?=@)")


def is_secret_name(key: str) -> bool:
    """Whether a key, as written, names a secret."""
    return _SECRET_NAME.search(key) is not None


def display_path(path: Path) -> str:
    """The path as a user would write it: relative when it lies in the working directory."""
    absolute = os.path.abspath(path)
    try:
        relative = os.path.relpath(absolute)
    except (OSError, ValueError):  # the working directory is gone, or is on another drive
        return absolute
    return absolute if relative.startswith("..") else relative


def _stars(match: re.Match[str]) -> str:
    return match[1] + "*" * len(match[2])


def _masked(line: str) -> str:
    """The line with every secret's value as stars, by its text alone: it may not be YAML at all."""
    at = 0
    while key := _SECRET_IN_LINE.search(line, at):
        at = key.end()
        if _REFERENCE_ALONE.match(line, at):
            continue
        before = line[: key.start()]
        value = (_IN_FLOW if before.count("{") > before.count("}") else _IN_BLOCK).match(line, at)
        if value:
            line = line[:at] + "*" * len(value[0]) + line[value.end() :]
            at = value.end()
    return _CREDENTIALS_IN_URL.sub(_stars, line)


@dataclass
class Source:
    """One file's text under the name that messages use. Lines and columns count from 1."""

    file: str
    text: str
    secret_lines: set[int] = field(default_factory=set)  # lines that hold a secret's value and nothing else

    @cached_property
    def lines(self) -> list[str]:
        return _BREAK.split(self.text)

    def snippet(self, line: int) -> str:
        """The text of a line, or "" when there is no such line; as long as the real one."""
        if not 1 <= line <= len(self.lines):
            return ""
        text = self.lines[line - 1]
        above = next((t for t in reversed(self.lines[max(0, line - 4) : line - 1]) if t.strip()), "")
        if line in self.secret_lines or _SECRET_KEY_ENDS_LINE.search(above):
            return "".join(" " if c.isspace() else "*" for c in text)
        return _masked(text)

    def range(self, line: int, column: int, end_line: int = 0, end_column: int = 0) -> SourceRange:
        """A place with its snippet; one that ends on a later line is marked to the end of its first."""
        snippet = self.snippet(line)
        if end_line > line:
            end_column = len(snippet.rstrip()) + 1
        return SourceRange(self.file, line, column, end_column if end_column > column else 0, snippet)

    def find_word(self, word: str, first: int, last: int, column: int) -> SourceRange | None:
        """The first place of a whole word in the lines ``first`` (from ``column`` on) to ``last``."""
        pattern = re.compile(rf"(?<![A-Za-z0-9_]){re.escape(word)}(?![A-Za-z0-9_])")
        for line in range(first, min(last, len(self.lines)) + 1):
            if match := pattern.search(self.lines[line - 1], column - 1 if line == first else 0):
                return self.range(line, match.start() + 1, line, match.end() + 1)
        return None
