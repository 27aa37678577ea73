"""``llmctl import``"""

from __future__ import annotations

import json

import click

from llmctl.cli.completing import addresses
from llmctl.cli.options import json_option, project_options


@click.command("import", short_help="Take into the record what runs and was never recorded.")
@click.argument("address", shell_complete=addresses)
@click.argument("live", metavar="ID")
@project_options
@json_option
@click.option("--reason", default="", help="Why; it stands in the record.")
def command(address: str, live: str, file: str | None, environment: str | None, as_json: bool, reason: str) -> int:
    """Take into the record what runs and was never recorded.

    ADDRESS is what llmops.yaml declares it as, ID what `llmctl plan` calls it: an endpoint or a route by
    name and revision, the thing of a plug-in by its name. What runs is only read. Recorded is what is
    really there; the next plan shows how the file differs from it.

    \b
    Examples:
      llmctl import endpoint.support support@3fa9c1d277aa01bc
      llmctl import route.support support@77aa01bc --reason "the record was lost"
    """
    from llmctl.app.importing import import_live
    from llmctl.app.workspace import open_workspace
    from llmctl.cli.views.state import imported_json, render_imported

    def notice(text: str) -> None:
        click.echo(text, err=True)

    done = import_live(open_workspace(file, environment), address, live, reason, notice)
    click.echo(json.dumps(imported_json(done), indent=2) if as_json else render_imported(done))
    return 0
