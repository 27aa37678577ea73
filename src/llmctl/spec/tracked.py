"""What a stranger's project may read: files that git tracks, of sizes that a review can bear, and nothing else.

A pull request brings files and links, and git tracks both. What lies beside them on a CI runner, in the work tree or
outside of it, it does not bring: logins, keys, the files of other projects. So a file is read only when it is tracked
under its own name and, where that is a link, under the name of what it leads to. Whether anything else is there is not
told either.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

MAX_FILES = 2_000  # that a project may read
MAX_BYTES = {".gguf": 16 << 30}  # of one file, by the end of its name
MAX_OTHER_BYTES = 256 << 20  # of one other file
MAX_ALL_BYTES = 32 << 30


@dataclass
class Tracked:
    """The files that git tracks, by path from the top of the work tree. ``top`` is a real path."""

    top: Path
    paths: frozenset[str]
    _read: dict[str, int] = field(default_factory=dict)  # bytes, by real path

    def has(self, root: Path, source: str) -> bool:
        """Whether the file that ``root / source`` names, and what it leads to, are both tracked."""
        folder = os.path.relpath(os.path.realpath(root), self.top)
        written = os.path.normpath(os.path.join(folder, source))
        real = os.path.relpath(os.path.realpath(root / source), self.top)
        return written in self.paths and real in self.paths

    def take(self, real: str, bytes: int) -> str:
        """Count a file that is about to be read; why it cannot be, "" when it can."""
        most = MAX_BYTES.get(os.path.splitext(real)[1].lower(), MAX_OTHER_BYTES)
        if bytes > most:
            return f"has more than {most >> 20:,} MB"
        self._read[real] = bytes
        if len(self._read) > MAX_FILES:
            return f"is one more than {MAX_FILES:,} files"
        if sum(self._read.values()) > MAX_ALL_BYTES:
            return f"is beyond {MAX_ALL_BYTES >> 30:,} GB in all"
        return ""

    def under(self, root: Path) -> Iterator[str]:
        """The tracked paths in a folder, from there."""
        folder = os.path.relpath(os.path.realpath(root), self.top)
        prefix = "" if folder == "." else f"{folder}/"
        return (path.removeprefix(prefix) for path in self._sorted if path.startswith(prefix))

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.paths)


def matches(path: list[str], pattern: list[str]) -> bool:
    """A path against a glob, part by part, as ``glob`` does: ``**`` is any folders, hidden ones must be named."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return matches(path, pattern[1:]) or (bool(path) and not path[0].startswith(".") and matches(path[1:], pattern))
    if not path or (path[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatchcase(path[0], pattern[0]) and matches(path[1:], pattern[1:])
