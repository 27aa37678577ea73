"""Progress of an apply: live on a terminal, a plain log otherwise."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING

import click

from llmctl.apply import GateReport, State, StepResult
from llmctl.cli.views.gate import render_gate
from llmctl.cli.views.plan import short_step
from llmctl.core.steps import Step

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SIGN = {
    State.DONE: ("✓", "green"),
    State.FAILED: ("✗", "red"),
    State.SKIPPED: ("·", None),
    State.UNDONE: ("↶", "yellow"),
    State.REPLACED: ("·", "yellow"),
}


class PlainProgress:
    """A line when a step ends, with the time of day; for logs of a pipeline."""

    def __init__(self) -> None:
        self._mutex = RLock()  # a signal's notice may come while this very thread says something
        # Steps report from threads of their own, which do not have the command's context.
        context = click.get_current_context(silent=True)
        self._color = context.color if context else None

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        return None

    def _say(self, text: str) -> None:
        # An apply goes on when nobody reads along any more: `llmctl apply --yes 2>&1 | head`.
        with self._mutex, suppress(OSError):
            click.echo(text, err=True, color=self._color)

    def notice(self, text: str) -> None:
        self._say(f"{time.strftime('%H:%M:%S')}   {text}")

    def started(self, step: Step) -> None:
        self._say(f"{time.strftime('%H:%M:%S')} … {short_step(step.id)}")

    def progress(self, step: Step, text: str) -> None:
        """Only ends are logged: a pipeline's log is read, not watched."""

    def ended(self, result: StepResult) -> None:
        self._say(f"{time.strftime('%H:%M:%S')} {step_line(result)}")

    def gate(self, report: GateReport) -> None:
        self._say(render_gate(report))


class LiveProgress:
    """A spinner a running step on a terminal; ended steps stay above as lines."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True)
        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TextColumn("[dim]{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> LiveProgress:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._progress.stop()

    def _say(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text.from_ansi(text), soft_wrap=True)

    def notice(self, text: str) -> None:
        self._say(click.style(f"  {text}", dim=True))

    def started(self, step: Step) -> None:
        self._tasks[step.id] = self._progress.add_task(short_step(step.id), total=None, note="")

    def progress(self, step: Step, text: str) -> None:
        task = self._tasks.get(step.id)
        if task is not None:
            self._progress.update(task, note=text)

    def ended(self, result: StepResult) -> None:
        task = self._tasks.pop(result.step.id, None)
        if task is not None:
            self._progress.remove_task(task)
        self._say(step_line(result))

    def gate(self, report: GateReport) -> None:
        self._say(render_gate(report))


def step_line(result: StepResult) -> str:
    """``✓ provision:model.support-tiny@3fa9c1d2  v1  (0.1 s)``"""
    sign, color = _SIGN[result.state]
    seconds = f"  ({result.seconds:.1f} s)" if result.seconds >= 0.05 else ""
    text = f"{sign} {short_step(result.step.id)}  {result.text}"
    return click.style(text, fg=color, dim=result.state is State.SKIPPED) + click.style(seconds, dim=True)


def progress() -> PlainProgress | LiveProgress:
    """Live when somebody watches, plain otherwise and with ``--no-color``."""
    context = click.get_current_context(silent=True)
    plain = context is not None and context.color is False
    return LiveProgress() if sys.stderr.isatty() and not plain else PlainProgress()
