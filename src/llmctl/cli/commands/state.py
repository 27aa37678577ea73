"""``llmctl state``"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from llmctl.cli.completing import addresses
from llmctl.cli.options import json_option, project_options, yes_option

if TYPE_CHECKING:
    from llmctl.app.state import Forgotten


@click.group("state", short_help="Look at what is recorded, and have the record forget something.")
def command() -> None:
    """Look at what is recorded, and have the record forget something.

    `list` and `show` need only the git repository, no llmops.yaml and nothing that runs.

    \b
    Example:
      llmctl state list
    """


@command.command("list", short_help="List what is recorded, with versions and revisions.")
@project_options
@json_option
@click.option("--kind", metavar="KIND", help="Only this kind, for example route.")
def list_(file: str | None, environment: str | None, as_json: bool, kind: str | None) -> int:
    """List what is recorded, with versions and revisions.

    \b
    Examples:
      llmctl state list
      llmctl state list --kind route -e prod --json
    """
    from llmctl.app.state import listing
    from llmctl.cli.views.state import listing_json, render_listing

    found = listing(file, environment, kind)
    click.echo(json.dumps(listing_json(found), indent=2) if as_json else render_listing(found))
    return 0


@command.command("show", short_help="Show all that is recorded of one resource.")
@click.argument("address", shell_complete=addresses)
@project_options
@json_option
def show(address: str, file: str | None, environment: str | None, as_json: bool) -> int:
    """Show all that is recorded of one resource: its spec, its versions, what needs it, who recorded it.

    \b
    Example:
      llmctl state show route.support
    """
    from llmctl.app.state import show as find
    from llmctl.cli.views.state import render_shown, shown_json

    found = find(file, environment, address)
    click.echo(json.dumps(shown_json(found), indent=2) if as_json else render_shown(found))
    return 0


@command.command("rm", short_help="Have the record forget resources; what runs is left alone.")
@click.argument("names", metavar="ADDRESSES", nargs=-1, required=True, shell_complete=addresses)
@project_options
@json_option
@yes_option
@click.option("--reason", required=True, help="Why; it stands in the record.")
def rm(names: tuple[str, ...], file: str | None, environment: str | None, as_json: bool, yes: bool, reason: str) -> int:
    """Have the record forget resources; what runs is left alone.

    ADDRESSES are one or more. What is recorded and needs one of them must be named too. The next apply
    takes back in what llmops.yaml declares and runs exactly so, and takes away endpoints and routes that
    are neither recorded nor declared.

    \b
    Example:
      llmctl state rm route.support gate.faq --reason "moves to another file"
    """
    from llmctl.app.state import forget
    from llmctl.app.workspace import open_workspace
    from llmctl.cli.asking import confirmed, refuse_to_ask_in_json
    from llmctl.cli.views.state import forgotten_json, render_forgetting

    refuse_to_ask_in_json(as_json=as_json, yes=yes)

    def confirm(asked: Forgotten) -> bool:
        if not as_json:
            click.echo(render_forgetting(asked))
        return yes or confirmed("Forget this?")

    def notice(text: str) -> None:
        click.echo(text, err=True)

    done = forget(open_workspace(file, environment), names, reason, confirm, notice)
    if as_json:
        click.echo(json.dumps(forgotten_json(done), indent=2))
    else:
        click.echo(f"Forgotten; recorded as serial {done.serial}." if done.serial else "Nothing was changed.")
    return 0
