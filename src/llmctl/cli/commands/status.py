"""``llmctl status``"""

from __future__ import annotations

import json

import click

from llmctl.cli.options import json_option, project_options


@click.command("status", short_help="Show what serves now.")
@project_options
@json_option
def command(file: str | None, environment: str | None, as_json: bool) -> int:
    """Show what serves now: routes with their traffic, endpoints, processes, drift.

    \b
    Examples:
      llmctl status
      llmctl status -e dev --json
    """
    from llmctl.app.status import status
    from llmctl.app.workspace import open_workspace
    from llmctl.cli.views.status import render_status, status_json

    found = status(open_workspace(file, environment))
    click.echo(json.dumps(status_json(found), indent=2) if as_json else render_status(found))
    return 0
