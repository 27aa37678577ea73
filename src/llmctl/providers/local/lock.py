"""One writer at a time in a state folder: among the threads of an apply and among processes."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from llmctl.core.errors import ProviderError
from llmctl.providers.local.layout import Layout

_POLL_S = 0.02


class StateLock:
    """Held while shared files are rewritten and while process manager and gateway start or stop. Re-entrant."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._threads = threading.RLock()
        self._depth = 0

    @contextmanager
    def held(self, wait_s: float = 60.0) -> Iterator[None]:
        """Wait up to ``wait_s`` seconds, then raise ``ProviderError``."""
        with self._threads:
            if self._depth:
                yield
                return
            handle = self._acquire(time.monotonic() + wait_s)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                os.close(handle)  # this also unlocks

    def _acquire(self, until: float) -> int:
        while True:
            self._layout.make()
            handle = os.open(self._layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_file(handle, self._layout):
                    return handle
            except BlockingIOError:
                pass
            os.close(handle)
            if time.monotonic() > until:
                raise ProviderError(
                    f"another llmctl works in {self._layout.state}",
                    hint="Wait for it to finish, or end it, and run the command again.",
                )
            time.sleep(_POLL_S)


def _is_file(handle: int, layout: Layout) -> bool:
    """Whether the locked file is still the one by that name: a ``destroy`` may have taken it away."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(layout.lock))
    except FileNotFoundError:
        return False
