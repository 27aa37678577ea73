"""Files: written so that a crash leaves the old content or the new, never half of it; told from their later selves."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

#: Size, time of change, time of change of the inode (both in nanoseconds), and inode of a file.
Stamp = list[int]

#: A file could be changed once more within one tick of the clock that stamps it; only older stamps tell.
_SETTLED_NS = 2_000_000_000


def stamp(status: os.stat_result) -> Stamp:
    """A file with the same stamp counts as unchanged, once that is settled."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def is_settled(stamp: Stamp) -> bool:
    """Whether a stamp is old enough to tell the file from later versions of itself."""
    return max(stamp[1], stamp[2]) < time.time_ns() - _SETTLED_NS


def write_atomic(path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Replace a file atomically. Raises ``OSError`` when the place cannot be written.

    What is not ``durable`` may be empty or gone after a power cut: for what is checked when it is read,
    and can be made again.
    """
    try:
        with temporary(path.parent) as (file, name):
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if durable:
                os.fsync(file.fileno())
            os.replace(name, path)
    except OSError as error:
        error.filename = str(path)  # a full disk names no file, and the temporary one means nothing to people
        raise
    if durable:
        sync_folder(path.parent)


@contextmanager
def temporary(folder: Path) -> Iterator[tuple[IO[bytes], str]]:
    """A file in ``folder`` to be written, and its path, to be renamed before this ends; gone after an error.

    It is locked as long as it is open, so that ``sweep`` can tell it from what a crash left.
    """
    file, name = _locked(folder)
    try:
        with file:
            yield file, name
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _locked(folder: Path) -> tuple[IO[bytes], str]:
    while True:
        handle, name = tempfile.mkstemp(dir=folder, prefix=".tmp-")
        file = os.fdopen(handle, "wb")
        with suppress(OSError):  # a file system without locks, where nothing is swept
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return file, name
        file.close()  # it was swept before it was locked


def sweep(folder: Path) -> None:
    """Remove the temporary files that nobody writes any more: a crash left them."""
    for path in folder.glob(".tmp-*"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)  # a pipe would be waited for
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
