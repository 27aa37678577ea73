"""Use case: allow a revision again that a rollback left behind."""

from __future__ import annotations

from llmctl.app.recorded_change import Notice, changing
from llmctl.app.rollback import find_rejection
from llmctl.app.workspace import Workspace
from llmctl.core.resources import Rejection


def unreject(workspace: Workspace, revision: str, reason: str, notice: Notice) -> tuple[Rejection, int]:
    """Take a rejection back, with the reason in the record; returns it and the serial.

    Raises ``InvalidInput`` when there is no such one.
    """
    with changing(workspace, "unreject", notice) as held:
        found = find_rejection(held.state.rejections, revision)
        serial = held.record(
            subject=f"unreject {found.address}@{found.revision[:8]}: {reason}",
            reason=reason,
            decided={"address": str(found.address), "revision": found.revision},
            rejections=tuple(r for r in held.state.rejections if r is not found),
        )
        return found, serial
