"""``llmctl gc``"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from llmctl.cli.options import json_option, project_options, yes_option

if TYPE_CHECKING:
    from llmctl.app.gc import Garbage


@click.command("gc", short_help="Clear away what no record needs any more, after showing it.")
@project_options
@json_option
@yes_option
@click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Good applies of each environment that can still be rolled back to.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
def command(file: str | None, environment: str | None, as_json: bool, yes: bool, keep: int, dry_run: bool) -> int:
    """Clear away what no record needs any more, after showing it.

    That is content in the artifact store, its manifests, answers of gates that were cut short, and
    evidence, as far as no environment's record needs it: for what it has now, or to roll back to one of
    its last N good applies. What runs, and what an apply that was interrupted needs, stays. Evidence
    goes from the record's newest entry alone; its history keeps it.

    \b
    Examples:
      llmctl gc --dry-run
      llmctl gc --keep 3 --yes
    """
    from llmctl.app.gc import collect, look
    from llmctl.app.workspace import open_workspace
    from llmctl.cli.asking import confirmed, refuse_to_ask_in_json
    from llmctl.cli.views.gc import garbage_json, render_cleared, render_garbage

    workspace = open_workspace(file, environment)
    if dry_run:
        found = look(workspace, keep)
        click.echo(json.dumps(garbage_json(found), indent=2) if as_json else render_garbage(found))
        return 0
    refuse_to_ask_in_json(as_json=as_json, yes=yes)

    def confirm(found: Garbage) -> bool:
        if not as_json:
            click.echo(render_garbage(found))
        return found.is_empty or yes or confirmed("Clear this away?")

    def notice(text: str) -> None:
        click.echo(text, err=True)

    done = collect(workspace, keep, confirm, notice)
    if as_json:
        click.echo(json.dumps(garbage_json(done), indent=2))
    elif not done.is_empty:
        click.echo(render_cleared(done) if done.serial else "Nothing was cleared away.")
    return 0
