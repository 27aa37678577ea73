"""Who is told of work that takes long, from rooms that know of no command line."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar

#: What is entered while a large file is read, with its name as messages have it and its size in bytes.
Watch = Callable[[str, int], AbstractContextManager[None]]


def _nobody(_name: str, _size: int) -> AbstractContextManager[None]:
    return nullcontext()


WATCH: ContextVar[Watch] = ContextVar("llmctl_watch", default=_nobody)
