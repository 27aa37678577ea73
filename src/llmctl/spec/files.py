"""Files that ``llmops.yaml`` refers to: inside of its folder, regular, readable; digests are kept while they stand."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any, Generic, NamedTuple, TypeVar

from llmctl.core.cache import NONSENSE
from llmctl.core.digests import Json, digest_file
from llmctl.core.files import Stamp, is_settled, stamp
from llmctl.spec.large_files import LargeFiles
from llmctl.spec.reserved import SCHEMES
from llmctl.spec.source import display_path
from llmctl.spec.suggestions import closest
from llmctl.spec.tracked import Tracked, matches

_INSIDE = "Write a path relative to llmops.yaml, inside of its folder."
_TRACKED = (
    "Name a file of the project, relative to llmops.yaml; a link must lead to one, and a new one be added to git."
)
#: Folders that hold secrets and state of tools, and no part of an application.
_NOT_FOR_TEXTS = frozenset({".git", ".llmctl"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")


T = TypeVar("T")

#: Gives the text of a file of the project by its relative path; raises ``FileRefused``.
ReadText = Callable[[str], str]

#: Real path, and stamp. A folder can be replaced by a link without a trace in the files below it.
Look = list[str | Stamp]

MAX_TEXT_BYTES = 1_000_000


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


def text_of(data: bytes, source: str) -> str:
    """The text of a file's bytes; raises ``FileRefused`` for anything but UTF-8 text."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileRefused(f"{source!r} is not UTF-8 text (byte {error.start + 1})", "Save it as UTF-8.") from None
    if "\0" in text:
        raise FileRefused(f"{source!r} is a binary file", "Name a text file.")
    return text


class Form(NamedTuple, Generic[T]):
    """How a value is written as JSON, and read again; ``read`` raises ``ValueError`` and the like for nonsense."""

    write: Callable[[T], Json]
    read: Callable[[Json], T]


_TEXT = Form(str, str)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file as it was read: where it is, its digest and its size in bytes."""

    path: Path
    digest: str
    bytes: int


@dataclass
class Files:
    """Finds files under the project's folder.

    ``looked`` is every file that was found, by its source: its real path and its stamp at the first look, before it
    was read; ``None`` for one that was too fresh to be told from later versions of itself, or that failed.
    ``matched`` is what each glob gave.
    """

    root: Path
    only: Tracked | None = None  # what alone may be read, where the project is a stranger's
    looked: dict[str, Look | None] = field(default_factory=dict)
    matched: dict[str, list[str]] = field(default_factory=dict)
    _known: dict[tuple[Hashable, ...], Any] = field(default_factory=dict)
    _large: LargeFiles = field(init=False)
    _folders: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._large = LargeFiles(self.root)

    def once(self, path: Path, what: Hashable, look: Callable[[], T], form: Form[T]) -> T:
        """What a look at a file gave, for as long as it is the same file, of the same size and time of change.

        Of large files it is kept from command to command, in the form that it has in JSON.
        """
        try:
            status = path.stat()
            key = (what, str(path), status.st_ino, status.st_size, status.st_mtime_ns)
            if key not in self._known:
                keeps = self.only is None
                self._known[key] = self._kept_or_new(path, status, what, look, form) if keeps else look()
        except Exception:
            self.looked[str(path)] = None
            raise
        found: T = self._known[key]
        return found

    def _kept_or_new(
        self, path: Path, status: os.stat_result, what: Hashable, look: Callable[[], T], form: Form[T]
    ) -> T:
        kept = self._large.get(path, status, what)
        if kept is not None:
            with suppress(*NONSENSE):  # it was damaged
                return form.read(kept)
        with self._large.watched(path, status):
            found = look()
        self._large.put(path, status, what, form.write(found))
        return found

    def keep(self) -> None:
        """Keep once more what is known of large files: before the first apply there was no place for it."""
        self._large.keep()

    def facts(self, source: str) -> FileFacts:
        """Find a file and take its digest; raises ``FileRefused``."""
        path = self.find(source)
        try:
            return FileFacts(path, self.once(path, "digest", lambda: digest_file(path), _TEXT), path.stat().st_size)
        except OSError as error:
            raise _unreadable(source, error) from None

    def text(self, source: str) -> str:
        """The text of a small UTF-8 file; raises ``FileRefused``."""
        path, status = self._located(source)
        if not _NOT_FOR_TEXTS.isdisjoint(path.removeprefix(self._real_root).split("/")):
            raise FileRefused(f"{source!r} is not part of the project", "Name a file outside of .git and .llmctl.")
        if status.st_size > MAX_TEXT_BYTES:
            raise too_large(source)
        key = ("text", path, status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in self._known:
            try:
                self._known[key] = text_of(Path(path).read_bytes(), source)
            except OSError as error:
                raise _unreadable(source, error) from None
        text: str = self._known[key]
        return text

    def read(self, source: str) -> bytes:
        """The bytes of a file; raises ``FileRefused``."""
        try:
            path, status = self._located(source)
            if self.only and status.st_size > MAX_TEXT_BYTES:
                raise too_large(source)
            return Path(path).read_bytes()
        except OSError as error:
            raise _unreadable(source, error) from None

    def matching(self, pattern: str) -> list[str]:
        """The files that a glob matches, sorted; ``**`` stands for any folders, hidden files are left out."""
        refuse_outside(pattern)
        if self.only:
            parts = os.path.normpath(pattern).split("/")
            return sorted(path for path in self.only.under(self.root) if matches(path.split("/"), parts))
        found = glob(pattern, root_dir=self.root, recursive=True)
        files = (path for path in map(os.path.normpath, found) if os.path.isfile(self.root / path))
        self.matched[pattern] = sorted(files)
        return self.matched[pattern]

    def note(self, source: str, path: str, status: os.stat_result) -> None:
        """A file is about to be read, from this real path: keep how it was at the first look."""
        if source not in self.looked:
            first = stamp(status)
            self.looked[source] = [path, first] if is_settled(first) else None

    def shown(self, source: str) -> str:
        """The file as messages name it."""
        return display_path(self.root / source)

    def find(self, source: str) -> Path:
        """The real path of a source; raises ``FileRefused`` for one that is missing or lies elsewhere."""
        return Path(self._located(source)[0])

    @cached_property
    def _real_root(self) -> str:
        return os.path.join(os.path.realpath(self.root), "")

    def _located(self, source: str) -> tuple[str, os.stat_result]:
        try:
            path, status = self._usable(source)
        except FileRefused:
            self.looked[source] = None
            raise
        self.note(source, path, status)
        return path, status

    def _usable(self, source: str) -> tuple[str, os.stat_result]:
        refuse_outside(source)
        if self.only and not self.only.has(self.root, source):
            raise FileRefused(f"git tracks no file {source!r} here, and under --untrusted it alone counts", _TRACKED)
        try:
            path, status = self._real(source)
        except FileNotFoundError:
            raise FileRefused(f"there is no file {source!r}", self._nearby(source)) from None
        except (OSError, ValueError) as error:
            raise FileRefused(f"{source!r} cannot be read: {_reason(error)}", "Check the path.") from None
        if not os.path.join(path, "").startswith(self._real_root):
            raise FileRefused(f"{source!r} is a link that leaves the project's folder", _INSIDE)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise FileRefused(f"{source!r} is {what}", "Name a file.")
        if not os.access(path, os.R_OK):
            raise FileRefused(f"{source!r} cannot be read: permission denied", "Check its permissions.")
        if self.only and (too_much := self.only.take(path, status.st_size)):
            raise FileRefused(f"{source!r} {too_much}, which is too much under --untrusted", "Name less, or smaller.")
        return path, status

    def _real(self, source: str) -> tuple[str, os.stat_result]:
        """The real path. That of a folder is looked up once: a project may have thousands of files in one."""
        folder, name = os.path.split(source)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(self.root / folder, strict=True)
        path = os.path.join(self._folders[folder], name)
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode) or name in ("", ".", ".."):
            path = os.path.realpath(path, strict=True)
            status = os.stat(path)
        return path, status

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


def too_large(source: str) -> FileRefused:
    """The refusal of a text file of more than ``MAX_TEXT_BYTES``."""
    return FileRefused(f"{source!r} has more than 1 MB", "Name a smaller file; datasets and models have a `source`.")


def _unreadable(source: str, error: OSError) -> FileRefused:
    return FileRefused(f"{source!r} cannot be read: {_reason(error)}", "Check its permissions.")


def _reason(error: Exception) -> str:
    return (error.strerror or "unknown reason").lower() if isinstance(error, OSError) else str(error)
