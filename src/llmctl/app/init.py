"""Use case: start a project. Afterwards all of its files are there, or none that was not there before."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from llmctl import record
from llmctl.core.address import NAME
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput, LlmctlError, RecordError
from llmctl.core.files import write_atomic
from llmctl.record.git import NO_REPOSITORY, GitCommand

#: The environment that the starter's ``llmops.yaml`` declares.
ENVIRONMENT = "dev"
_PLACEHOLDER = b"PROJECT"
_NAMED = ("llmops.yaml", "README.md")  # starter files in which the placeholder stands for the project's name
_README = "README.md"
_GITIGNORE = ".gitignore"
_IGNORED = b".llmctl/"


@dataclass(frozen=True, slots=True)
class Started:
    """A project that was started. ``made`` and ``kept`` are paths in its folder.

    ``made`` is empty when everything was there already. ``kept`` is a README that was there and stays as
    it is; ``who`` says what git lacks to record with a name, "" when it knows one.
    """

    root: Path
    project: str
    made: tuple[str, ...]
    kept: tuple[str, ...]
    new_repository: bool
    who: RecordError | None


def init(folder: Path, name: str | None) -> Started:
    """Start a project in ``folder``, which is made when it is missing, and a git repository when it lies in none.

    Files that are there with the same content are fine. Raises ``InvalidInput`` that lists those with
    another one, and ``LlmctlError`` when something cannot be written; then nothing is.
    """
    root = Path(os.path.realpath(folder))
    there = next(p for p in (root, *root.parents) if os.path.lexists(p))
    if not there.is_dir():
        raise InvalidInput([Diagnostic(f"{there} is a file", hint="Name a folder.")])
    project = _project(name, root)
    wanted = _starter(project)
    missing, kept = _compare(root, wanted)
    ignore = _ignoring(root / _GITIGNORE)
    in_repository = _in_repository(there)
    if in_repository and missing:
        _refuse_recorded(there)
    with _all_or_nothing(root) as undo:
        for path in missing:
            _make_folders((root / path).parent, undo)
            _place(root / path, wanted[path], undo)
        if ignore is not None:
            _make_folders(root, undo)
            _append_ignored(root / _GITIGNORE, ignore, undo)
        if not in_repository:
            _new_repository(root, undo)
    made = (*missing, *([_GITIGNORE] if ignore is not None else []))
    return Started(root, project, made, kept, not in_repository, _unknown_identity(root))


def _project(name: str | None, root: Path) -> str:
    if name is None:
        plain = unicodedata.normalize("NFKD", root.name).encode("ascii", "ignore").decode().lower()
        return re.sub(r"[^a-z0-9_-]+", "-", plain).strip("-_")[:63].rstrip("-_") or "project"
    if not NAME.match(name):
        hint = "Use lower-case letters, digits, - and _, for example acme-support."
        raise InvalidInput([Diagnostic(f"{name!r} cannot be a project's name", hint=hint)])
    return name


def _starter(project: str) -> dict[str, bytes]:
    """The files of a new project: path and content."""
    found = dict(_files(resources.files("llmctl") / "starter", ""))
    for path in _NAMED:
        found[path] = found[path].replace(_PLACEHOLDER, project.encode())
    return {path: found[path] for path in sorted(found, key=lambda p: ("/" in p, p))}


def _files(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry.read_bytes()


def _compare(root: Path, wanted: Mapping[str, bytes]) -> tuple[list[str], tuple[str, ...]]:
    """What is missing, and which README is the user's own. Raises ``InvalidInput`` that lists what is in the way."""
    missing: list[str] = []
    kept: list[str] = []
    other: list[str] = []
    for path, content in wanted.items():
        target = root / path
        try:
            if not os.path.lexists(target):
                # A folder that leads elsewhere, or a file where a folder is to be.
                beside = next(p for p in target.parents if os.path.lexists(p))
                (missing if beside.is_dir() and _inside(beside, root) else other).append(path)
            elif not target.is_file() or target.is_symlink() or target.read_bytes() != content:
                (kept if path == _README and target.is_file() else other).append(path)
        except OSError as error:
            raise _unwritable(root, error) from None
    if other:
        raise InvalidInput(
            [
                Diagnostic(
                    f"{'a file is' if len(other) == 1 else 'files are'} in the way in {root}: {', '.join(other)}",
                    detail="llmctl init writes over nothing, and nothing was written.",
                    hint="Name an empty folder, or move what is there away.",
                )
            ]
        )
    return missing, tuple(kept)


def _inside(path: Path, root: Path) -> bool:
    real = Path(os.path.realpath(path))
    return real.is_relative_to(root) or root.is_relative_to(real)


def _ignoring(file: Path) -> bytes | None:
    """The ``.gitignore`` to write, ``None`` when it has the line already."""
    try:
        before = file.read_bytes() if os.path.lexists(file) else b""
    except OSError as error:
        raise LlmctlError(f"{file} cannot be read: {_reason(error)}", detail="Nothing was written.") from None
    lines = {line.strip().strip(b"/") for line in before.splitlines()}
    if _IGNORED.strip(b"/") in lines:
        return None
    return before + (b"\n" if before and not before.endswith(b"\n") else b"") + _IGNORED + b"\n"


def _in_repository(folder: Path) -> bool:
    """Whether the folder lies in a git repository. Raises ``RecordError`` for one that cannot be used."""
    try:
        record.open_repository(folder)
    except RecordError as error:
        if error.summary == NO_REPOSITORY and not any((p / ".git").exists() for p in (folder, *folder.parents)):
            return False
        raise
    return True


def _refuse_recorded(folder: Path) -> None:
    """A record belongs to one project: a second one under the same name would plan to delete the first."""
    if ENVIRONMENT in record.recorded_environments(record.open_repository(folder)):
        raise LlmctlError(
            f"this git repository already holds the record of an environment {ENVIRONMENT}",
            detail="A record belongs to one project. Nothing was written.",
            hint="Start the new project outside of this repository.",
        )


@contextmanager
def _all_or_nothing(root: Path) -> Iterator[ExitStack]:
    """What was made is taken away again, the last thing first, when something fails or Ctrl-C comes."""
    try:
        with ExitStack() as undo:
            yield undo
            undo.pop_all()
    except OSError as error:
        raise _unwritable(root, error) from None


def _make_folders(folder: Path, undo: ExitStack) -> None:
    for each in reversed([p for p in (folder, *folder.parents) if not p.exists()]):
        each.mkdir()
        undo.callback(_remove_folder, each)


def _remove_folder(folder: Path) -> None:
    with suppress(OSError):  # somebody else has put something into it
        folder.rmdir()


def _place(target: Path, content: bytes, undo: ExitStack) -> None:
    """Write a file that must not be there yet; at no moment is half of it."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(temporary, "xb") as file:
            undo.callback(temporary.unlink, missing_ok=True)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, target)  # fails when the name is taken, unlike a rename
        undo.callback(target.unlink, missing_ok=True)
        temporary.unlink()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from None


def _append_ignored(file: Path, content: bytes, undo: ExitStack) -> None:
    if not file.exists():
        _place(file, content, undo)
        return
    before, mode = file.read_bytes(), file.stat().st_mode & 0o777
    undo.callback(write_atomic, file, before, mode)
    write_atomic(file.resolve(), content, mode)


def _new_repository(root: Path, undo: ExitStack) -> None:
    undo.callback(shutil.rmtree, root / ".git", ignore_errors=True)  # there was none
    GitCommand(root).run("init", "--quiet")


def _unknown_identity(root: Path) -> RecordError | None:
    try:
        record.open_repository(root).require_identity()
    except RecordError as error:
        return error
    return None


def _unwritable(root: Path, error: OSError) -> LlmctlError:
    place = error.filename or root
    return LlmctlError(
        f"{place} cannot be written: {_reason(error)}",
        detail="Nothing was written.",
        hint="Check the folder's permissions and the free space on its disk.",
    )


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
