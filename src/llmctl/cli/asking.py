"""Questions before something is done that cannot be undone half-way."""

from __future__ import annotations

import select
import sys

import click

from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.core.signals import HEAR_S


def refuse_to_ask_in_json(*, as_json: bool, yes: bool) -> None:
    """A program is not asked: raises ``InvalidInput`` where it did not say yes."""
    if as_json and not yes:
        raise InvalidInput([Diagnostic("--json does not ask", hint="Add --yes.")])


def confirmed(question: str) -> bool:
    """Ask on the terminal. Raises ``InvalidInput`` when nobody is there; its end (Ctrl-D) and Ctrl-C raise what ends
    a command."""
    if not sys.stdin.isatty():
        raise InvalidInput([Diagnostic("nobody is there to confirm", hint="Add --yes to go on without a question.")])
    click.echo(f"{question} [y/N]: ", nl=False)
    while not select.select([sys.stdin], [], [], HEAR_S)[0]:
        pass
    line = sys.stdin.readline()
    if not line:
        raise click.Abort
    return line.strip().lower() in ("y", "yes")
