"""Exit codes of the command line, shell friendly and stable."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process returns; the order of precedence is ``PRECEDENCE``."""

    OK = 0
    ERROR = 1
    CHANGES = 2  # changes in `plan --detailed-exitcode`, drift in `drift`
    DENIED = 3  # policy, missing approval, protect, rejected revision
    GATE = 4  # gate failed or inconclusive, or rollout aborted
    LOCKED = 5
    STALE = 6
    INTERRUPTED = 130


PRECEDENCE = (
    ExitCode.INTERRUPTED,
    ExitCode.ERROR,
    ExitCode.LOCKED,
    ExitCode.STALE,
    ExitCode.DENIED,
    ExitCode.GATE,
    ExitCode.CHANGES,
    ExitCode.OK,
)


def first_that_applies(codes: Iterable[ExitCode]) -> ExitCode:
    """The code to exit with when several outcomes hold at once."""
    present = set(codes)
    return next((code for code in PRECEDENCE if code in present), ExitCode.OK)
