"""``llmctl unreject``"""

from __future__ import annotations

import json

import click

from llmctl.cli.options import json_option, project_options


@click.command("unreject", short_help="Allow a revision again that a rollback left behind.")
@click.argument("revision")
@project_options
@json_option
@click.option("--reason", required=True, help="Why it is good again; it stands in the record.")
def command(revision: str, file: str | None, environment: str | None, as_json: bool, reason: str) -> int:
    """Allow a revision again that a rollback left behind.

    REVISION is as `llmctl plan` names it; its first digits are enough. Where several routes were left with
    the same one, the route stands before it.

    \b
    Example:
      llmctl unreject 3fa9c1d2 --reason "the dataset was wrong, not the model"
    """
    from llmctl.app.unreject import unreject
    from llmctl.app.workspace import open_workspace

    def notice(text: str) -> None:
        click.echo(text, err=True)

    taken_back, serial = unreject(open_workspace(file, environment), revision, reason, notice)
    if as_json:
        click.echo(json.dumps({"format": 1, "address": str(taken_back.address), "revision": taken_back.revision}))
    else:
        click.echo(f"{taken_back.address}@{taken_back.revision[:8]} is allowed again; recorded as serial {serial}.")
    return 0
