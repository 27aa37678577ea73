"""``llmctl drift``"""

from __future__ import annotations

import json

import click

from llmctl.cli.options import json_option, project_options
from llmctl.core.exits import ExitCode


@click.command("drift", short_help="Compare what runs with what was recorded.")
@project_options
@json_option
def command(file: str | None, environment: str | None, as_json: bool) -> int:
    """Compare what runs with what was recorded.

    Exit codes: 0 all as recorded, 2 drift, 1 something cannot be read. `llmctl apply` restores it.

    \b
    Example:
      llmctl drift -e dev --json
    """
    from llmctl.app.status import drift
    from llmctl.app.workspace import open_workspace
    from llmctl.cli.views.plan import render_drift
    from llmctl.plan import plan_json

    made = drift(open_workspace(file, environment))
    if as_json:
        shown = plan_json(made)
        keys = ("format", "environment", "project", "drift", "blocked")
        click.echo(json.dumps({k: shown[k] for k in keys} | {"serial": made.recorded.serial}, indent=2))
    else:
        click.echo(render_drift(made))
    if made.blocked:
        return ExitCode.ERROR
    return ExitCode.CHANGES if made.drift else ExitCode.OK
