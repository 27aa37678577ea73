"""Use case: put an apply into the record that was killed before it could do so itself."""

from __future__ import annotations

from collections.abc import Callable

from llmctl.app.break_glass import interrupted
from llmctl.app.entry import trailers, under_new_names
from llmctl.app.workspace import Workspace
from llmctl.core.errors import LlmctlError
from llmctl.plan import undone
from llmctl.record import HeldLock, find_interrupted
from llmctl.record.approvals import remove_approvals


def close_interrupted(workspace: Workspace, held: HeldLock, notice: Callable[[str], None]) -> None:
    """Close an open attempt, if there is one, as interrupted; ``notice`` is told which. Call it with the lock held.

    One that was over, and was only not recorded, is closed as what it was. What a command left half written is
    cleared away even where none is open: a write that failed may be over once its effect is seen to hold.
    """
    workspace.target.sweep()
    found = find_interrupted(workspace.repository, workspace.environment.name, dropped=notice)
    if found is None:
        return
    notice(found.describe())
    state = workspace.reader.state()
    attempt = found.recover(held.fence, held)
    if ended := found.closing:
        attempt.close(
            ended.outcome,
            subject=ended.subject,
            decisions=ended.decisions,
            rejections=ended.rejections,
            break_glass=ended.break_glass,
            trailers=ended.trailers,
        )
        forget_approvals(workspace, notice)
        return
    rejections = state.rejections
    if rejections and attempt.tip:
        to = {old: new for new, old in undone(state, workspace.reader.state_of(attempt.tip))}
        rejections = under_new_names(rejections, to)
    emergency = " (break-glass)" if found.decisions.get("break_glass") else ""
    attempt.close(
        "interrupted",
        subject=f"{found.action}{emergency} interrupted",
        decisions={
            **found.decisions,
            "interrupted": True,
            "open_intents": [i.step for i in found.intents],
            "closed_by": workspace.repository.actor(),
        },
        rejections=rejections,
        break_glass=interrupted(workspace, attempt.tip, attempt.serial, found.decisions),
        trailers=trailers(found.decisions),
    )
    notice(f"It is recorded as serial {attempt.serial}, interrupted.")
    forget_approvals(workspace, notice)


def forget_approvals(workspace: Workspace, notice: Callable[[str], None]) -> None:
    """Take approvals away once an entry is made, which has those that counted. That some stay on a remote does no harm,
    and is only told."""
    try:
        remove_approvals(workspace.repository, workspace.environment.name)
    except LlmctlError as error:
        notice(f"The approvals of this plan could not be taken away, which does no harm: {error.summary}.")
