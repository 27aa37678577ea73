"""``llmctl init``"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

_NEXT = (
    ("llmctl plan", "what would change, and why"),
    ("llmctl apply", "make it so, with proof"),
    ('llmctl chat support "How long does delivery take?"', "ask it"),
)


@click.command("init", short_help="Start a project: a small application that works.")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--name", metavar="PROJECT", help="The project's name; default: made from the folder's.")
def command(folder: Path | None, name: str | None) -> int:
    """Start a project: a small application that works, in FOLDER or here.

    It brings its own data and a tiny model, so that `llmctl apply` needs no account, no GPU and no
    download. A git repository is made where there is none. Nothing is written over: when a file is in
    the way, nothing is written at all.

    \b
    Examples:
      llmctl init acme && cd acme
      llmctl init --name acme-support
    """
    from llmctl.app.init import init
    from llmctl.cli.views.diagnostics import render
    from llmctl.core.diagnostics import Diagnostic, Severity

    started = init(folder or Path(), name)
    if started.made:
        where = "in a new git repository" if started.new_repository else "in the git repository that was there"
        click.echo(f"{click.style('✓', fg='green')} project {started.project} is started, {where}\n")
        click.echo("\n".join(f"  {path}" for path in started.made))
    else:
        new = "; a git repository was missing and is made" if started.new_repository else ""
        click.echo(
            f"{click.style('✓', fg='green')} project {started.project} was started before: nothing to write{new}"
        )
    for path in started.kept:
        click.echo(f"  {path} is yours and stays as it is")
    here = started.root == Path(os.path.realpath("."))
    click.echo("\nNext:" if here else f"\nNext, after `cd {shlex.quote(str(folder))}`:")
    for line, text in _NEXT:
        click.echo(f"  {line:<50}  {text}")
    if started.who is not None:
        note = Diagnostic(started.who.summary, Severity.WARNING, hint=started.who.hint)
        click.echo("\n" + render([note]), err=True)
    return 0
