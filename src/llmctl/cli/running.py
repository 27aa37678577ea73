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

from llmctl.app.applying import Outcome, Request, apply, last_good
from llmctl.app.workspace import open_workspace
from llmctl.apply import Collected, State
from llmctl.cli.views.diagnostics import render
from llmctl.cli.views.gate import gate_json
from llmctl.cli.views.plan import nothing, render_plan
from llmctl.cli.views.progress import LiveProgress, PlainProgress, progress
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.errors import InvalidInput
from llmctl.core.exits import ExitCode
from llmctl.core.signals import HEAR_S
from llmctl.core.steps import Promote, Stage
from llmctl.plan import Plan, diagnostic_json, plan_digest

_FINISHING = "Interrupted: finishing or undoing the steps in hand, then recording what happened …"
_QUESTIONS = {"apply": "Apply this to {}?", "destroy": "Destroy all this in {}?", "rollback": "Roll {} back like this?"}


def run(
    file: str | None,
    environment: str | None,
    *,
    as_json: bool,
    yes: bool,
    parallelism: int = 8,
    plan_file: Path | None = None,
    destroy: bool = False,
    rollback: bool = False,
    rollback_to: int | None = None,
    reason: str = "",
) -> int:
    """Run the use case and return the exit code."""
    workspace = open_workspace(file, environment)
    if rollback and rollback_to is None:
        rollback_to = last_good(workspace)
    if as_json and not yes:
        raise InvalidInput([Diagnostic("--json does not ask", hint="Add --yes.")])
    cancelled, begun = Event(), Event()
    reporter = progress()
    request = Request(
        confirm=lambda made: _confirm(made, reporter, begun, yes=yes, quiet=as_json),
        reporter=reporter if not as_json else Collected(),
        notice=reporter.notice,
        cancelled=cancelled,
        parallelism=parallelism,
        plan_file=plan_file,
        rollback_to=rollback_to,
        destroy=destroy,
        reason=reason,
    )
    with _signals(cancelled, begun, reporter):
        try:
            outcome = apply(workspace, request)
        finally:
            reporter.__exit__(None, None, None)
        click.echo(json.dumps(outcome_json(outcome), indent=2) if as_json else _summary(outcome, file))
    return outcome.exit_code


def _confirm(made: Plan, reporter: PlainProgress | LiveProgress, begun: Event, *, yes: bool, quiet: bool) -> bool:
    if not quiet:
        click.echo(render_plan(made))
        click.echo()
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput(
                [Diagnostic("nobody is there to confirm", hint="Add --yes to go on without a question.")]
            )
        question = _QUESTIONS[made.action].format(made.desired.environment.name)
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


def _summary(outcome: Outcome, file: str | None) -> str:
    plan, result = outcome.plan, outcome.result
    if outcome.declined:
        return "Nothing was changed."
    if outcome.serial == 0:
        return click.style("Nothing to destroy." if plan.action == "destroy" else nothing(plan), bold=True)
    lines = []
    for error in outcome.errors:
        lines += [render(error.diagnostics()), ""]
    for warning in result.warnings if result else ():
        lines += [render([warning]), ""]
    results = result.results if result else ()
    counts = {state: sum(r.state is state for r in results) for state in State}
    said = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count) or "no steps"
    words = {ExitCode.INTERRUPTED: "interrupted", ExitCode.GATE: "stopped by its gate"}
    word = "done" if outcome.finished else words.get(outcome.exit_code, "failed")
    color = "green" if outcome.finished else "red"
    lines.append(
        click.style(f"{plan.action.capitalize()} {word}", fg=color, bold=True)
        + f" ({said}); recorded as serial {outcome.serial} on branch llmctl/{plan.desired.environment.name}."
    )
    lines += _next(outcome, file)
    return "\n".join(lines)


def _next(outcome: Outcome, file: str | None) -> list[str]:
    if outcome.finished and outcome.exit_code is ExitCode.INTERRUPTED:
        return [
            click.style("The interruption came when every step was done or in hand: nothing is left to do.", dim=True)
        ]
    routes = sorted(a.name for a in outcome.plan.desired.resources if a.kind == "route")
    if outcome.finished and routes and outcome.plan.action == "apply":
        return [click.style(f'Ask it: llmctl chat {routes[0]} "…"{f" -f {file}" if file else ""}', dim=True)]
    if outcome.finished:
        return []
    held = "What served before still serves. " if _held(outcome) else ""
    return [click.style(f"{held}llmctl audit show {outcome.serial} tells all.", dim=True)]


def _held(outcome: Outcome) -> bool:
    """Whether every route serves what it served before: what was staged is taken back, what was away is back."""
    served = any(address.kind == "route" for address in outcome.plan.recorded.resources)
    results = outcome.result.results if outcome.result else ()
    moved = any(isinstance(r.step, Stage | Promote) and r.state.ok for r in results)
    lost = any(r.step.id.startswith("restore:") and not r.state.ok for r in results)
    return served and not moved and not lost and outcome.plan.action != "destroy"


def outcome_json(outcome: Outcome) -> dict[str, Json]:
    """How it ended, for programs."""
    result = outcome.result
    return {
        "format": 1,
        "action": outcome.plan.action,
        "environment": outcome.plan.desired.environment.name,
        "plan": plan_digest(outcome.plan),
        "serial": outcome.serial,
        "exit_code": int(outcome.exit_code),
        "changed": outcome.serial > 0,
        "steps": [
            {"id": r.step.id, "state": r.state.value, "text": r.text, "seconds": round(r.seconds, 3)}
            for r in (result.results if result else ())
        ],
        "gates": [gate_json(g) for g in (result.gates if result else ())],
        "errors": [diagnostic_json(d) for e in outcome.errors for d in e.diagnostics()],
    }
