"""What apply, destroy and rollback share: show the plan, ask, watch, sum up."""

from __future__ import annotations

import json
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from types import FrameType

import click

from llmctl.app.applying import apply
from llmctl.app.planning import Scope
from llmctl.app.request import Request
from llmctl.app.rollback import LAST_GOOD
from llmctl.app.saved_plan import workspace_of
from llmctl.app.workspace import open_workspace
from llmctl.apply import PARALLELISM, Collected
from llmctl.cli.options import choosing
from llmctl.cli.views.plan import render_plan
from llmctl.cli.views.progress import LiveProgress, PlainProgress, progress
from llmctl.cli.views.promote import render_promotion
from llmctl.cli.views.summary import outcome_json, render_summary
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.core.signals import HEAR_S
from llmctl.plan import Plan

_FINISHING = "Interrupted: finishing or undoing the steps in hand, then recording what happened …"
_QUESTIONS = {"apply": "Apply this to {}?", "destroy": "Destroy all this in {}?", "rollback": "Roll {} back like this?"}


def run(
    file: str | None,
    environment: str | None,
    *,
    as_json: bool,
    yes: bool,
    parallelism: int = PARALLELISM,
    plan_file: Path | None = None,
    targets: tuple[str, ...] = (),
    promote_from: str = "",
    destroy: bool = False,
    rollback: bool = False,
    rollback_to: int | None = None,
    reason: str = "",
) -> int:
    """Run the use case and return the exit code.

    ``targets`` narrows an apply to these addresses and what they need; with ``promote_from`` what passed in that
    environment is applied to ``environment``.
    """
    if plan_file is not None and targets:
        hint = "Plan with `llmctl plan --target ADDRESS --out FILE`, and apply that file without --target."
        raise InvalidInput([Diagnostic("a saved plan is applied as it is, --target cannot narrow it", hint=hint)])
    workspace = workspace_of(plan_file, file, environment) if plan_file else open_workspace(file, environment)
    if rollback and rollback_to is None:
        rollback_to = LAST_GOOD
    if as_json and not yes:
        raise InvalidInput([Diagnostic("--json does not ask", hint="Add --yes.")])
    cancelled, begun = Event(), Event()
    reporter = progress()
    request = Request(
        confirm=lambda made: _confirm(made, reporter, begun, promote_from, yes=yes, quiet=as_json),
        reporter=reporter if not as_json else Collected(),
        notice=reporter.notice,
        cancelled=cancelled,
        parallelism=parallelism,
        plan_file=plan_file,
        scope=Scope(targets=targets, promote_from=promote_from),
        rollback_to=rollback_to,
        destroy=destroy,
        reason=reason,
    )
    with _signals(cancelled, begun, reporter):
        try:
            outcome = apply(workspace, request)
        finally:
            reporter.__exit__(None, None, None)
        summary = "" if as_json else render_summary(outcome, choosing(file, workspace))
        click.echo(json.dumps(outcome_json(outcome), indent=2) if as_json else summary)
    return outcome.exit_code


def _confirm(
    made: Plan, reporter: PlainProgress | LiveProgress, begun: Event, promote_from: str, *, yes: bool, quiet: bool
) -> bool:
    name = made.desired.environment.name
    if not quiet:
        if promote_from:
            click.echo(render_promotion(made, promote_from) + "\n")
        click.echo(render_plan(made, notice=f"promote {promote_from} to {name}" if promote_from else ""))
        click.echo()
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput(
                [Diagnostic("nobody is there to confirm", hint="Add --yes to go on without a question.")]
            )
        question = (
            f"Promote {promote_from} to {name} like this?" if promote_from else _QUESTIONS[made.action].format(name)
        )
        if _answer(f"{question} [y/N]: ").strip().lower() not in ("y", "yes"):
            return False
    begun.set()
    reporter.__enter__()
    return True


def _answer(question: str) -> str:
    """The line typed at a terminal. Its end (Ctrl-D) and Ctrl-C raise what ends a command."""
    click.echo(question, nl=False)
    while not select.select([sys.stdin], [], [], HEAR_S)[0]:
        pass
    line = sys.stdin.readline()
    if not line:
        raise click.Abort
    return line


@contextmanager
def _signals(cancelled: Event, begun: Event, reporter: PlainProgress | LiveProgress) -> Iterator[None]:
    """Ctrl-C and SIGTERM: before the first effect they end the command, afterwards the run ends in order."""

    def stop(_: int, __: FrameType | None) -> None:
        if not begun.is_set():
            raise KeyboardInterrupt
        if not cancelled.is_set():
            # Not from here: the signal may have come in the middle of a line that this thread was writing.
            Thread(target=reporter.notice, args=(_FINISHING,), daemon=True).start()
        cancelled.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
