"""Files: written so that a crash leaves the old content or the new, never half of it; told from their later selves."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

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
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk names no file, and the temporary one means nothing to people
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
