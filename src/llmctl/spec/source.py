"""The text of the file: lines for snippets, with secrets masked before anything can show them."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path

from llmctl.core.diagnostics import SourceRange

#: What YAML counts as the end of a line; ``str.splitlines`` knows more of them and would shift the numbers.
_BREAK = re.compile("\r\n?|[\n\x85\u2028\u2029]")

#: Names of keys whose value is a secret, also when they are misspelt: ``api_key``, ``apiKey``, ``client-secret``.
_SECRET_NAME = re.compile(r"(?:api[-_ ]?key|access[-_ ]?key|secret|password|passwd|token)\Z", re.IGNORECASE)

#: Each secret's name ends in one of these.
_SECRET_WORDS = ("key", "secret", "password", "passwd", "token")
_SECRET_KEY = r"(?:api[-_ ]?key|access[-_ ]?key|secret|password|passwd|token)[\"']?\s*:\s*"
_REFERENCE_ALONE = re.compile(r"[\"']?\$\{env:[A-Za-z_][A-Za-z0-9_]*\}[\"']?\s*(?:[,}#]|\Z)")
_SECRET_IN_LINE = re.compile(_SECRET_KEY, re.IGNORECASE)
#: A secret's value: in quotes, up to the comma or brace that ends it in a flow map, or all of the line.
_QUOTED = r"\"(?:[^\"\\]|\\.)*(?:\"|\Z)|'(?:[^']|'')*(?:'|\Z)"
_IN_FLOW = re.compile(rf"{_QUOTED}|(?:\$\{{[^}}]*\}}|[^,}}])+")
_IN_BLOCK = re.compile(rf"(?:{_QUOTED})(?=\s*(?:#|\Z))|.+")
_SECRET_KEY_ENDS_LINE = re.compile(rf"{_SECRET_KEY}(?:[|>][-+0-9]*)?\s*(?:#.*)?\Z", re.IGNORECASE)
_CREDENTIALS_IN_URL = re.compile(r"(://)([^/\s\"'@]*)(?=@)")


@lru_cache(maxsize=4096)
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


def _hidden(line: str) -> str:
    return "".join(" " if c.isspace() else "*" for c in line)


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
    return without_credentials(line)


def without_credentials(text: str) -> str:
    """The text with stars for name and password of every URL; as long as before."""
    return _CREDENTIALS_IN_URL.sub(_stars, text) if "@" in text else text


@dataclass
class Source:
    """One file's text under the name that messages use. Lines and columns count from 1."""

    file: str
    text: str
    secret_lines: set[int] = field(default_factory=set)  # lines that hold a secret's value and nothing else

    @cached_property
    def _starts(self) -> list[int]:
        """Where each line starts; offsets take far less room than a copy of every line."""
        if not any(sign in self.text for sign in "\r\x85\u2028\u2029"):
            return [0, *accumulate(len(line) + 1 for line in self.text.split("\n"))][:-1]
        return [0, *(match.end() for match in _BREAK.finditer(self.text))]

    @cached_property
    def _suspects(self) -> frozenset[int] | None:
        """The lines in which a secret's name may end; ``None`` for all. The patterns are slow, few lines need them."""
        folded = self.text.lower()
        if len(folded) != len(self.text):
            return None  # a few letters become two, and offsets would not be those of the text
        found = set()
        for word in _SECRET_WORDS:
            at = folded.find(word)
            while at >= 0:
                after = at + len(word)
                if not folded[after : after + 1].isalnum():
                    found.add(bisect_right(self._starts, at))
                at = folded.find(word, after)
        return frozenset(found)

    def _may_hold_secret(self, line: int) -> bool:
        """Whether a line, or one of the three above, must be looked at closely."""
        suspects = self._suspects
        return suspects is None or not suspects.isdisjoint(range(line - 3, line + 1))

    @property
    def line_count(self) -> int:
        return len(self._starts)

    def line(self, number: int) -> str:
        """The text of a line as it is, or "" when there is no such line."""
        starts = self._starts
        if not 1 <= number <= len(starts):
            return ""
        text = self.text[starts[number - 1] : starts[number] if number < len(starts) else None]
        return text.rstrip("\r\n\x85\u2028\u2029")

    def snippet(self, line: int) -> str:
        """The text of a line with its secrets masked; as long as the real one."""
        text = self.line(line)
        if line in self.secret_lines:
            return _hidden(text)
        if self._may_hold_secret(line):
            above = next((t for n in range(line - 1, line - 4, -1) if (t := self.line(n)).strip()), "")
            return _hidden(text) if _SECRET_KEY_ENDS_LINE.search(above) else _masked(text)
        return without_credentials(text)

    def range(self, line: int, column: int, end_line: int = 0, end_column: int = 0) -> SourceRange:
        """A place with its snippet; one that ends on a later line is marked to the end of its first."""
        snippet = self.snippet(line)
        if end_line > line:
            end_column = len(snippet.rstrip()) + 1
        return SourceRange(self.file, line, column, end_column if end_column > column else 0, snippet)

    def find_word(self, word: str, first: int, last: int, column: int) -> SourceRange | None:
        """The first place of a whole word in the lines ``first`` (from ``column`` on) to ``last``."""
        pattern = re.compile(rf"(?<![A-Za-z0-9_]){re.escape(word)}(?![A-Za-z0-9_])")
        for line in range(first, min(last, self.line_count) + 1):
            if match := pattern.search(self.line(line), column - 1 if line == first else 0):
                return self.range(line, match.start() + 1, line, match.end() + 1)
        return None
