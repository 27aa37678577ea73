"""Steps whose only effect is an edit of the gateway's configuration, many in one publication."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmctl.apply.attempts import Attempts
from llmctl.apply.rollout import Edit, Rollout, Wish
from llmctl.apply.run import Run
from llmctl.core.errors import LlmctlError, TransientError
from llmctl.core.protocols import Intent, Op
from llmctl.core.steps import Step

EACH_S = 0.2  # by so much each member adds to the time of all: on a slow disk its lines in the journal take that


@dataclass(frozen=True, slots=True)
class Swap:
    """One edit of the gateway's configuration. ``effect`` names it in the journal.

    With ``always`` it is published also when it changes nothing.
    """

    effect: str
    edit: Edit
    always: bool = False


@dataclass(eq=False)
class Member:
    """A step of a group: its edit, what is to be done once that is served, and how it came out.

    ``then`` returns the line that says what was done. ``error`` is None once that is done.
    """

    step: Step
    op: Op
    swap: Callable[[], Swap]
    then: Callable[[], str]
    text: str = ""
    error: Exception | None = None
    tries: int = 0


def swap_together(run: Run, rollout: Rollout, members: Sequence[Member]) -> None:
    """Publish the edits of all as one, each journalled before and after. How it came out is in each member.

    What failed in a way that may pass is tried again, together too.
    """
    attempts = Attempts(run.clock)
    waiting = list(members)
    while waiting:
        attempts.made += 1
        _once(run, rollout, waiting)
        for member in waiting:
            member.tries = attempts.made
        failed = [(m, m.error) for m in waiting if isinstance(m.error, TransientError)]
        waiting = [member for member, _ in failed] if attempts.again([(m.op, error) for m, error in failed]) else []


def _once(run: Run, rollout: Rollout, members: Sequence[Member]) -> None:
    begun: list[tuple[Member, Wish, Intent]] = []
    for member in members:
        member.error = None
        try:
            member.op.guard()
            swap = member.swap()
            intent = run.intend(member.step, swap.effect, {"gateway": str(member.step.address)}, share=False)
            begun.append((member, Wish(member.step, member.op, swap.edit, swap.always), intent))
        except Exception as error:  # noqa: BLE001 - a step's own error must not keep the others back
            member.error = error
    try:
        run.journal.share()
    except LlmctlError as error:
        for _, wish, _ in begun:
            wish.error = error
    else:
        rollout.change([wish for _, wish, _ in begun])
    for member, wish, intent in begun:
        try:
            run.ended(intent, wish.error, "ok" if wish.changed else "already so")
            member.text = member.then()
        except Exception as error:  # noqa: BLE001 - as above
            member.error = error
