"""What apply, destroy and rollback share: show the plan, ask, watch, sum up."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from types import FrameType

import click

from llmctl.app.applying import apply, planned
from llmctl.app.break_glass import checked_reason
from llmctl.app.planning import Scope
from llmctl.app.request import Request
from llmctl.app.rollback import LAST_GOOD
from llmctl.app.saved_plan import workspace_of
from llmctl.app.untrusted import refuse_where_trusted
from llmctl.app.workspace import Workspace, open_workspace
from llmctl.apply import PARALLELISM, Collected
from llmctl.cli.asking import confirmed, refuse_to_ask_in_json
from llmctl.cli.options import choosing
from llmctl.cli.saving import refuse_to_replace, save
from llmctl.cli.views.layout import count
from llmctl.cli.views.plan import render_plan, shown_json
from llmctl.cli.views.progress import LiveProgress, PlainProgress, progress
from llmctl.cli.views.promote import render_promotion
from llmctl.cli.views.summary import outcome_json, render_summary
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.core.exits import ExitCode
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
    from_record: str = "",
    destroy: bool = False,
    rollback: bool = False,
    rollback_to: int | None = None,
    reason: str = "",
    out: Path | None = None,
    allowed_signers: Path | None = None,
    break_glass: str | None = None,
) -> int:
    """Run the use case and return the exit code.

    ``targets`` narrows an apply to these addresses and what they need; with ``promote_from`` what passed in that
    environment is applied to ``environment``, and ``from_record`` says where that one's record is. With ``out`` the
    plan is saved there and nothing is done. ``break_glass`` is why approvals and gates are to be skipped.
    """
    emergency = checked_reason(break_glass) if break_glass is not None else ""
    _refuse_contradictions(plan_file, targets, out, emergency)
    refuse_where_trusted("destroy" if destroy else "rollback" if rollback else "apply")
    workspace = workspace_of(plan_file, file, environment) if plan_file else open_workspace(file, environment)
    refuse_to_ask_in_json(as_json=as_json, yes=yes or out is not None)
    cancelled, begun = Event(), Event()
    reporter = progress()
    request = Request(
        confirm=lambda made: _confirm(made, reporter, begun, promote_from, yes=yes, quiet=as_json),
        reporter=reporter if not as_json else Collected(),
        notice=reporter.notice,
        cancelled=cancelled,
        parallelism=parallelism,
        plan_file=plan_file,
        scope=Scope(targets=targets, promote_from=promote_from, from_record=from_record),
        rollback_to=LAST_GOOD if rollback and rollback_to is None else rollback_to,
        destroy=destroy,
        reason=reason,
        break_glass=emergency,
        allowed_signers=allowed_signers,
        option=choosing(file, workspace),
    )
    if out is not None:
        return _save(workspace, request, out, as_json=as_json)
    return _carried_out(workspace, request, reporter, begun, as_json=as_json)


def _refuse_contradictions(plan_file: Path | None, targets: tuple[str, ...], out: Path | None, emergency: str) -> None:
    if emergency and out is not None:
        raise InvalidInput([Diagnostic("--out saves an ordinary plan", hint="Leave out --break-glass or --out.")])
    if plan_file is not None and targets:
        hint = "Plan with `llmctl plan --target ADDRESS --out FILE`, and apply that file without --target."
        raise InvalidInput([Diagnostic("a saved plan is applied as it is, --target cannot narrow it", hint=hint)])


def _carried_out(
    workspace: Workspace,
    request: Request,
    reporter: PlainProgress | LiveProgress,
    begun: Event,
    *,
    as_json: bool,
) -> int:
    with _signals(request.cancelled, begun, reporter):
        try:
            outcome = apply(workspace, request)
        finally:
            reporter.__exit__(None, None, None)
        summary = "" if as_json else render_summary(outcome, request.option)
        click.echo(json.dumps(outcome_json(outcome), indent=2) if as_json else summary)
    return outcome.exit_code


def _save(workspace: Workspace, request: Request, out: Path, *, as_json: bool) -> int:
    """Save what would be done, for others to approve."""
    refuse_to_replace(out)
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    made = planned(workspace, request)
    save(made, made_at, out)
    if as_json:
        click.echo(json.dumps(shown_json(made, made_at), indent=2))
    else:
        click.echo(render_plan(made))
        again = "run this again without --out"
        if made.approvals.missing:
            again = f"others run `llmctl approve {shlex.quote(str(out))}{request.option}`; then {again}"
        click.echo(f"\nSaved to {out}; nothing was done. To do it, {again}.")
    return ExitCode.OK


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
        question = (
            f"Promote {promote_from} to {name} like this?" if promote_from else _QUESTIONS[made.action].format(name)
        )
        if not confirmed(question) or (made.break_glass and not confirmed(_emergency(made))):
            return False
    begun.set()
    reporter.__enter__()
    return True


def _emergency(made: Plan) -> str:
    """What a break-glass skips, to be asked once more."""
    skips = [*map(str, made.skipped_gates)]
    if missing := made.approvals.missing:
        skips.append(count(missing, "approval"))
    return f"This skips {' and '.join(skips)}, and the record will say so. Break the glass?"


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
