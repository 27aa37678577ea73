"""What is remembered between commands, to be fast: ``.llmctl/.cache``, beside the environments and shared by them.

Everything there is checked when it is read and can be made again: it may be deleted, damaged or missing at any
time, and costs time then and nothing else.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from llmctl.core.files import sweep, write_atomic

#: No environment has a name that starts with a dot.
FOLDER = ".cache"

#: What it raises to take the content of a damaged file for what was kept.
NONSENSE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)

#: Bytes; more than a project of ten thousand resources needs.
_MOST = 128 << 20


class CacheFile:
    """One file of the cache of the project in ``root``.

    Nothing is kept until there is a ``.llmctl``: before the first apply a plan leaves no trace. Nothing is kept or
    read through a link either: ``.llmctl`` itself may be one to another disk, ``.cache`` in it and its files not.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._path = root / ".llmctl" / FOLDER / name

    def read(self) -> bytes:
        """What was kept, b"" for nothing. What is no regular file, or a huge one, was never kept."""
        if not self._is_ours():
            return b""
        with suppress(OSError), open(self._path, "rb", opener=_opened_at_once) as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size <= _MOST:
                return file.read(_MOST)
        return b""

    def keep(self, data: bytes) -> None:
        """Replace what was kept, as far as the disk allows."""
        if len(data) > _MOST:
            return
        folder = self._path.parent
        with suppress(OSError):
            if not os.path.lexists(folder):
                folder.mkdir(mode=0o700)  # fails without a `.llmctl`
            if self._is_ours():
                sweep(folder)
                write_atomic(self._path, data, durable=False)

    def forget(self) -> None:
        if self._is_ours():
            with suppress(OSError):
                self._path.unlink()

    def _is_ours(self) -> bool:
        """Whether the folder is there, and is one: a link may have come with a clone, and points anywhere."""
        with suppress(OSError):
            return stat.S_ISDIR(os.lstat(self._path.parent).st_mode)
        return False


def _opened_at_once(path: str, flags: int) -> int:
    """A pipe would be waited for until somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)
