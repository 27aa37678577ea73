"""Use case: allow a revision again that a rollback left behind."""

from __future__ import annotations

from llmctl.app.entry import ci_run
from llmctl.app.rollback import find_rejection
from llmctl.app.workspace import Workspace
from llmctl.core.resources import Rejection
from llmctl.record import Attempt, Lock


def unreject(workspace: Workspace, revision: str, reason: str) -> tuple[Rejection, int]:
    """Take a rejection back, with the reason in the record; returns it and the serial.

    Raises ``InvalidInput`` when there is no such one.
    """
    workspace.repository.require_identity()
    with Lock(workspace.repository, workspace.environment.name).acquire("llmctl unreject") as held:
        state = workspace.recorded()
        found = find_rejection(state.rejections, revision)
        attempt = Attempt.begin(
            workspace.repository,
            workspace.environment.name,
            state,
            fence=held.fence,
            action="unreject",
            plan_digest="",
            source_commit=workspace.repository.head_commit(),
            project=workspace.document.project,
            actor=workspace.repository.actor(),
            run=ci_run(),
        )
        attempt.close(
            "applied",
            subject=f"unreject {found.address}@{found.revision[:8]}: {reason}",
            decisions={"action": "unreject", "revision": found.revision, "reason": reason},
            rejections=tuple(r for r in state.rejections if r is not found),
            break_glass=state.break_glass,
        )
        return found, attempt.serial
