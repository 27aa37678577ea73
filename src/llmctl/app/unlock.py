"""Use case: end the lock of a command that hangs."""

from __future__ import annotations

from llmctl.app.workspace import Workspace
from llmctl.core.errors import Locked
from llmctl.record import Lock


def unlock(workspace: Workspace, *, force: bool) -> str | None:
    """End the lock, on the remote too. Returns who held it, None when nobody did; raises ``Locked`` without ``force``
    when it lives."""
    workspace.sync()
    lock = Lock(workspace.repository, workspace.environment.name)
    info = lock.peek()
    if info is None:
        return None
    if not force and not info.abandoned:
        raise Locked(
            f"{workspace.environment.name} is locked by {info.describe()}, which still runs",
            detail=f"It is {info.age()}.",
            hint="Wait for it. With --force it stops before its next effect, and the next apply goes on from there.",
        )
    lock.force_expire()
    return info.describe()
