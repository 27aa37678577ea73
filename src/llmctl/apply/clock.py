"""Time as apply sees it. Tests put another clock in its place, and then nothing waits."""

from __future__ import annotations

import random
import time
from threading import Event, Thread


class Clock:
    """Seconds, pauses and chance."""

    def now(self) -> float:
        """Seconds of ``time.monotonic``, as in ``Op.deadline_s``."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def pause(self, cancelled: Event, seconds: float) -> bool:
        """Let ``seconds`` pass, unless ``cancelled`` is set meanwhile; says whether it is."""
        return cancelled.wait(seconds)

    def await_end(self, thread: Thread, seconds: float) -> bool:
        """Wait for another thread to end, at most ``seconds``; says whether it did."""
        thread.join(seconds)
        return not thread.is_alive()

    def chance(self) -> float:
        """A random number from 0 up to 1, so that many who wait do not come back together."""
        return random.random()
