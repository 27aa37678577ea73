"""Core dumps, which would hold every secret that a process had in its memory."""

from __future__ import annotations

import resource


def leave_no_core_dump() -> None:
    """Have this process, and all that it starts, leave no core dump in whatever folder it dies in.

    The hard limit stays: `prlimit --core=unlimited` gives a process back what its debugging needs.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
