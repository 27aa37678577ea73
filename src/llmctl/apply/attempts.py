"""Tries again what failed in a way that may pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from llmctl.apply.clock import Clock
from llmctl.core.errors import TransientError
from llmctl.core.protocols import Op

TRIES = 4
FIRST_S = 0.5
LONGEST_S = 8.0

T = TypeVar("T")


@dataclass
class Attempts:
    """The tries of one step. ``made`` counts them, also when the last one failed.

    Only a ``TransientError`` is tried again: the type of an error alone says whether it may pass.
    """

    clock: Clock
    made: int = 0

    def run(self, op: Op, attempt: Callable[[], T]) -> T:
        """The first answer that comes, within ``TRIES`` and the deadline of ``op``.

        All tries share ``op``, and so its idempotency key. The pause doubles each time, and Ctrl-C ends it.
        Raises what the last try raised, ``LeaseLost`` instead of a try without the lock.
        """
        while True:
            op.check_lease()
            self.made += 1
            try:
                return attempt()
            except TransientError as error:
                if not self.again([(op, error)]):
                    raise

    def again(self, failed: Sequence[tuple[Op, TransientError]]) -> bool:
        """Whether one more try is to be made of all that failed in the last one; the pause before it is over then.

        They were begun together: what holds of the first one's deadline and Ctrl-C holds of all.
        """
        pause = self._pause()
        if not failed or self.made == TRIES or self.clock.now() + pause >= failed[0][0].deadline_s:
            return False
        for op, error in failed:
            op.progress(f"try {self.made + 1} of {TRIES} in {pause:.1f} s: {error.summary}")
        return not self.clock.pause(failed[0][0].cancelled, pause)

    def _pause(self) -> float:
        longest: float = min(LONGEST_S, FIRST_S * 2 ** (self.made - 1))
        return longest * (1 + self.clock.chance()) / 2
