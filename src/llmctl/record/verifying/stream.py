"""Objects and differences of trees in bulk, each from one git process that works while its answers are read."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, TypeAlias

from llmctl.core.errors import RecordError
from llmctl.record.git import GitCommand, explain
from llmctl.record.repository import Repository

LARGEST = 64 << 20  # bytes of an object that is read into memory; llmctl writes none so large
Pair: TypeAlias = tuple[str, str]  # of trees: before, after
FILE, FOLDER = "100644", "040000"
_PIECE = 1 << 20
_HASH: dict[str, Callable[[bytes], Any]] = {
    "sha1": partial(hashlib.sha1, usedforsecurity=False),
    "sha256": partial(hashlib.sha256, usedforsecurity=False),
}


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as git has it. ``data`` is ``None`` when it is larger than ``LARGEST``; ``size`` is in bytes;
    ``intact`` tells whether the content is what the id says."""

    id: str
    kind: str
    size: int
    data: bytes | None
    intact: bool


@dataclass(frozen=True, slots=True)
class FileChange:
    """One path that differs between two trees. ``status`` is git's letter: A, M, D, T; ids and mode are "" when absent.

    A folder has one, too, with a path of its own.
    """

    status: str
    path: str
    old: str
    new: str
    mode: str

    @property
    def is_folder(self) -> bool:
        return self.mode == FOLDER


def stored_objects(repository: Repository, ids: Iterable[str]) -> Iterator[Stored]:
    """The objects in the order of ``ids``; raises ``RecordError`` for one that is missing or cannot be read."""
    new = _HASH[repository.algorithm]
    with _asking(repository.git, ids, "cat-file", "--batch", "--buffer") as answers:
        while head := answers.readline():
            parts = head.decode(errors="replace").split()
            if len(parts) != 3 or not parts[2].isdigit():
                raise _missing(parts[0] if parts else "")
            name, kind, size = parts[0], parts[1], int(parts[2])
            hasher = new(b"%s %d\0" % (kind.encode(), size))
            data = _content(answers, size, hasher)
            yield Stored(name, kind, size, data, hasher.hexdigest() == name)


def _content(answers: IO[bytes], size: int, hasher: Any) -> bytes | None:
    if size <= LARGEST:
        data = answers.read(size)
        hasher.update(data)
        answers.read(1)
        return data
    left = size
    while left and (piece := answers.read(min(left, _PIECE))):
        hasher.update(piece)
        left -= len(piece)
    answers.read(1)
    return None


def differences(git: GitCommand, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, tuple[FileChange, ...]]]:
    """What differs in each pair of trees, folders included. Pairs in which nothing does may be left out."""
    asked = (f"{old} {new}" for old, new in pairs)
    options = ("--stdin", "-r", "-t", "--raw", "--no-abbrev", "--no-renames", "--no-ext-diff")
    with _asking(git, asked, "diff-tree", *options) as answers:
        pair: Pair = ("", "")
        found: list[FileChange] = []
        for raw in answers:
            line = raw.decode(errors="replace").rstrip("\n")
            if line.startswith(":"):
                found.append(_change(line))
                continue
            if found:
                yield pair, tuple(found)
            before, _, after = line.partition(" ")
            pair, found = (before, after), []
        if found:
            yield pair, tuple(found)


def _change(line: str) -> FileChange:
    meta, _, path = line.partition("\t")
    was, mode, old, new, status = meta[1:].split(" ")
    return FileChange(status, path, old.strip("0") and old, new.strip("0") and new, was if status == "D" else mode)


@contextmanager
def _asking(git: GitCommand, lines: Iterable[str], *arguments: str) -> Iterator[IO[bytes]]:
    """A git that answers the lines, which a thread gives it: else both sides could wait for each other."""
    process = git.start(*arguments, stderr=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    assert process.stderr
    with ThreadPoolExecutor(2) as threads:
        said = threads.submit(process.stderr.read)
        given = threads.submit(_give, process.stdin, lines)
        try:
            yield process.stdout
            code = process.wait()
            given.result()
            if code:
                raise explain(arguments[0], code, said.result().decode(errors="replace").strip())
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                with suppress(OSError):
                    pipe.close()


def _give(pipe: IO[bytes], lines: Iterable[str]) -> None:
    with suppress(OSError, ValueError):  # it has ended, and its exit status says why
        for line in lines:
            pipe.write(line.encode() + b"\n")
        pipe.close()


def _missing(name: str) -> RecordError:
    return RecordError(
        f"an object of the record is missing: {name}",
        hint="Run `git fsck`, and fetch the record again from where it was pushed to.",
    )
