"""Watches every Python process of a test from inside, also those that end before anybody could look.

``sitecustomize.py`` imports it where a test puts that on the path. It notes the arguments of all processes that are
started, the names of the variables that bring them the canary, and files that hold it when they go away or are renamed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

_STARTS = {"subprocess.Popen": 3, "os.exec": 2, "os.posix_spawn": 2, "os.spawn": 3}  # where the environment stands


def watch(canary: str, log: str) -> None:
    """Append to ``log`` what this process does from now on, a line each, flushed at once."""
    needle = os.fsencode(canary)

    def note(*words: object) -> None:
        line = " ".join(map(str, words)).replace("\n", " ")
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with suppress(OSError):  # a test of a full disk
            os.write(file, os.fsencode(f"{line}\n"))
        os.close(file)

    def holds(path: Any, folder: int) -> bool:
        with suppress(OSError, TypeError, ValueError):
            place = None if folder == -1 else folder
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=place)
            try:
                return needle in os.read(file, 1 << 24)
            finally:
                os.close(file)
        return False

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STARTS:
            words, given = arguments[1], arguments[_STARTS[event]]
            note("start", *map(_text, [words] if isinstance(words, str | bytes) else words))
            note("environment", _program(words), *_bringing(given or os.environ, canary))
        elif event == "os.remove" and holds(*arguments):
            note("file removed", _place(*arguments))
        elif event == "os.rename" and holds(arguments[0], arguments[2]):
            note("file renamed to", _place(arguments[1], arguments[3]))

    sys.addaudithook(heard)


def _text(word: Any) -> str:
    try:
        return os.fsdecode(word)
    except TypeError:
        return str(word)  # a file descriptor


def _place(path: Any, folder: int) -> str:
    return _text(path) if folder == -1 else os.path.join(os.readlink(f"/proc/self/fd/{folder}"), _text(path))


def _program(words: Any) -> str:
    """The name of a program, or of Python's module."""
    texts = [_text(word) for word in ([words] if isinstance(words, str | bytes) else words)]
    return texts[2] if texts[1:2] == ["-m"] else os.path.basename(texts[0])


def _bringing(environment: Any, canary: str) -> Iterable[str]:
    return sorted(_text(name) for name, value in environment.items() if canary in _text(value))
