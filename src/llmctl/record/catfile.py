"""One long-lived ``git cat-file`` that answers all questions about objects: a process for each took 2 ms."""

from __future__ import annotations

import io
import os
import subprocess
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Literal, TypeAlias

from llmctl.core.errors import RecordError
from llmctl.record.git import GitCommand, require_version

#: Id, kind and content of an object. The content is empty where only the id was asked for.
Found: TypeAlias = tuple[str, str, bytes]
_Question = Literal["contents", "info"]


class CatFile:
    """Looks up objects by id or by any name that git knows, at the moment at which it is asked: a ref that moved
    and an object that was added since are seen. Started when first used; safe to use from several threads."""

    def __init__(self, git: GitCommand) -> None:
        self._git = git
        self._mutex = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[..., CatFile] | None = None

    def contents(self, names: Sequence[str]) -> list[Found | None]:
        """The objects in the order of ``names``, ``None`` for one that is missing."""
        return self._ask("contents", names)

    def resolve(self, name: str) -> str:
        """The object that a ref or revision names, "" when it does not exist."""
        found = self._ask("info", [name])[0]
        return found[0] if found else ""

    def _ask(self, question: _Question, names: Sequence[str]) -> list[Found | None]:
        with self._mutex:
            try:
                return self._converse(question, names)
            except (OSError, ValueError):
                self._stop()
            except BaseException:  # Ctrl-C between question and answer: the next answer would be to this question
                self._stop()
                raise
        # It is too old for --batch-command (2.36, as ``MINIMUM``), or found something damaged, or was killed. A git
        # of its own answers all the same, or says what is wrong.
        require_version(self._git)
        option = "--batch" if question == "contents" else "--batch-check"
        output = self._git.run("cat-file", option, "--buffer", stdin="".join(f"{n}\n" for n in names).encode())
        try:
            return _read(io.BytesIO(output), question, len(names))
        except ValueError as error:
            raise RecordError(
                "git cat-file gave an answer that is none", hint="Is the git on your PATH a whole one?"
            ) from error

    def _converse(self, question: _Question, names: Sequence[str]) -> list[Found | None]:
        process = self._process or self._start()
        assert process.stdin
        assert process.stdout
        # With --buffer nothing is answered before "flush", so that both sides never wait for each other.
        process.stdin.write("".join([*(f"{question} {name}\n" for name in names), "flush\n"]).encode())
        process.stdin.flush()
        return _read(process.stdout, question, len(names))

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = self._git.start("cat-file", "--batch-command", "--buffer")
        self._finalizer = weakref.finalize(self, _end, self._process, os.getpid())
        return self._process

    def _stop(self) -> None:
        if self._finalizer:
            self._finalizer()
        self._process = self._finalizer = None


def _read(stream: IO[bytes], question: _Question, count: int) -> list[Found | None]:
    """So many answers; raises ``ValueError`` for anything else, as too few."""
    found: list[Found | None] = []
    for _ in range(count):
        head = stream.readline()
        if head.endswith((b" missing\n", b" ambiguous\n")):
            found.append(None)
            continue
        name, kind, size = head.decode().split(" ")
        data = stream.read(int(size) + 1) if question == "contents" else b""
        if question == "contents" and len(data) != int(size) + 1:
            raise ValueError("git ended in the middle of an object")
        found.append((name, kind, data[:-1]))
    return found


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """It only reads, so it need not end kindly. A fork of ours leaves it alone."""
    if os.getpid() != owner:
        return
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # what was not yet written goes nowhere
            pipe and pipe.close()
