"""Progress of an apply: live on a terminal, a plain log otherwise."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING

import click

from llmctl.apply import GateReport, State, StepResult
from llmctl.cli.views.gate import render_gate
from llmctl.cli.views.layout import Line, rendered
from llmctl.cli.views.sections import short_step
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


#: What is told again and again while it counts: ``60/210 samples``, and ``… 10 %, 24 s left``, which is said at once.
_COUNTS_UP = re.compile(r"\d+/\d+|, \d+ s$")
_COUNTS_DOWN = re.compile(r"\d s left$")
_EVERY_S = 10.0  # how often a log repeats what counts
_SPINNERS = 12  # steps shown as running: all are drawn anew for each line, and routes are staged by the hundred


class PlainProgress:
    """A line when a step begins, ends, tries again or waits, with the time of day; for logs of a pipeline."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, tuple[str, float]] = {}  # step: what was said of it last, and when
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
        self._last[step.id] = ("", self._clock())
        self._say(f"{time.strftime('%H:%M:%S')} … {short_step(step.id)}")

    def progress(self, step: Step, text: str) -> None:
        """A log is read, not watched: what only counts is said now and then, all else as it happens."""
        now = self._clock()
        said, at = self._last.get(step.id, ("", now))
        up, down = _COUNTS_UP.search(text), _COUNTS_DOWN.search(text)
        repeats = up or (down and _COUNTS_DOWN.search(said))
        if text == said or (repeats and now - at < _EVERY_S):
            return
        self._last[step.id] = (text, now)
        self._say(f"{time.strftime('%H:%M:%S')}   {short_step(step.id)}  {text}")

    def ended(self, result: StepResult) -> None:
        self._last.pop(result.step.id, None)
        self._say(f"{time.strftime('%H:%M:%S')} {step_line(result)}")

    def gate(self, report: GateReport) -> None:
        self._say(render_gate(report))


class LiveProgress:
    """A spinner a running step on a terminal, for a dozen of them; ended steps stay above as lines."""

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
        self._hidden: set[str] = set()  # steps that run, and began when all spinners were taken

    def __enter__(self) -> LiveProgress:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._progress.stop()

    def _say(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text.from_ansi(text), soft_wrap=True)

    def notice(self, text: str) -> None:
        self._say(rendered([Line(text, hang=0, dim=True)], self._console.width))

    def started(self, step: Step) -> None:
        if len(self._tasks) < _SPINNERS:
            self._tasks[step.id] = self._progress.add_task(short_step(step.id), total=None, note="")
        else:
            self._hidden.add(step.id)

    def progress(self, step: Step, text: str) -> None:
        """What goes on to tell something is shown as soon as there is room: a gate among hundreds of routes."""
        if step.id in self._hidden and len(self._tasks) < _SPINNERS:
            self._hidden.discard(step.id)
            self.started(step)
        task = self._tasks.get(step.id)
        if task is not None:
            self._progress.update(task, note=text)

    def ended(self, result: StepResult) -> None:
        self._hidden.discard(result.step.id)
        task = self._tasks.pop(result.step.id, None)
        if task is not None:
            self._progress.remove_task(task)
        self._say(step_line(result, self._console.width))

    def gate(self, report: GateReport) -> None:
        self._say(render_gate(report))


def step_line(result: StepResult, width: int | None = None) -> str:
    """``✓ provision:model.support-tiny@3fa9c1d2  v1  (0.1 s)``, wrapped at ``width`` columns."""
    sign, color = _SIGN[result.state]
    seconds = f"({result.seconds:.1f} s)" if result.seconds >= 0.05 else ""
    tries = f" after {result.tries} tries" if result.tries > 1 else ""
    said = result.text.replace(result.because, short_step(result.because)) if result.because else result.text
    text = f"{sign} {short_step(result.step.id)}  {said}{tries}"
    return rendered([Line(text, indent=0, fg=color, dim=result.state is State.SKIPPED, note=seconds)], width)


def progress() -> PlainProgress | LiveProgress:
    """Live when somebody watches a terminal that has the signs for it; plain otherwise and with ``--no-color``."""
    context = click.get_current_context(silent=True)
    plain = context is not None and context.color is False
    signs = (sys.stderr.encoding or "").lower().startswith("utf")
    return LiveProgress() if sys.stderr.isatty() and signs and not plain else PlainProgress()
