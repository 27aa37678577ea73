"""Files that ``llmops.yaml`` refers to: inside of its folder, regular, readable; digests are kept while they stand."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from llmctl.core.digests import digest_file
from llmctl.spec.report import closest
from llmctl.spec.reserved import SCHEMES

_INSIDE = "Write a path relative to llmops.yaml, inside of its folder."
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")


class FileRefused(ValueError):
    """A file cannot be used: what is wrong, and what to do."""

    def __init__(self, summary: str, hint: str) -> None:
        super().__init__(summary)
        self.summary = summary
        self.hint = hint


def scheme_of(source: str) -> str:
    """``hf`` of ``hf:ORG/NAME``; "" for a path."""
    match = _SCHEME.match(source)
    return match[1].lower() if match else ""


def refuse_scheme(source: str, served: str) -> None:
    """Raise ``FileRefused`` for a source of another kind than a path."""
    scheme = scheme_of(source)
    if scheme in SCHEMES:
        raise FileRefused(f"sources `{scheme}:` are not served yet", f"Use {served}.")
    if scheme:
        raise FileRefused(f"sources `{scheme}:` are not known", f"Use {served}.")


def refuse_outside(source: str) -> None:
    """Raise ``FileRefused`` for a path that, as it is written, does not stay in the project's folder."""
    if PurePosixPath(source).is_absolute() or source.startswith("~") or "\\" in source or "\0" in source:
        raise FileRefused(f"{source!r} is not a relative path", _INSIDE)
    if os.path.normpath(source).split("/", 1)[0] == "..":
        raise FileRefused(f"{source!r} leaves the project's folder", _INSIDE)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file as it was read: where it is, its digest and its size in bytes."""

    path: Path
    digest: str
    bytes: int


@dataclass
class Files:
    """Finds files under the project's folder."""

    root: Path
    _known: dict[tuple[str, int, int, int], str] = field(default_factory=dict)

    def facts(self, source: str) -> FileFacts:
        """Find a file and take its digest; raises ``FileRefused``."""
        path = self.find(source)
        try:
            status = path.stat()
            # The same file, size and time of change: a digest taken a moment ago still stands.
            key = (str(path), status.st_ino, status.st_size, status.st_mtime_ns)
            if key not in self._known:
                self._known[key] = digest_file(path)
        except OSError as error:
            raise FileRefused(f"{source!r} cannot be read: {_reason(error)}", "Check its permissions.") from None
        return FileFacts(path, self._known[key], status.st_size)

    def find(self, source: str) -> Path:
        """The real path of a source; raises ``FileRefused`` for one that is missing or lies elsewhere."""
        refuse_outside(source)
        try:
            path = Path(os.path.realpath(self.root / source, strict=True))
            if not path.is_relative_to(os.path.realpath(self.root)):
                raise FileRefused(f"{source!r} is a link that leaves the project's folder", _INSIDE)
            mode = path.stat().st_mode
        except FileNotFoundError:
            raise FileRefused(f"there is no file {source!r}", self._nearby(source)) from None
        except (OSError, ValueError) as error:
            if isinstance(error, FileRefused):
                raise
            raise FileRefused(f"{source!r} cannot be read: {_reason(error)}", "Check the path.") from None
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise FileRefused(f"{source!r} is {what}", "Name a file.")
        if not os.access(path, os.R_OK):
            raise FileRefused(f"{source!r} cannot be read: permission denied", "Check its permissions.")
        return path

    def _nearby(self, source: str) -> str:
        """What lies where the file was looked for."""
        folder = (self.root / source).parent
        try:
            names = sorted(p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
        except (OSError, ValueError):
            return f"There is no folder {str(PurePosixPath(source).parent)!r} either; paths start at llmops.yaml."
        if near := closest(PurePosixPath(source).name, names):
            folder_name = PurePosixPath(source).parent
            return f"did you mean `{folder_name / near[0]}`?"
        listed = ", ".join(names[:8]) if names else "nothing"
        return f"Paths start at llmops.yaml. That folder holds: {listed}."


def _reason(error: Exception) -> str:
    return (error.strerror or "unknown reason").lower() if isinstance(error, OSError) else str(error)
