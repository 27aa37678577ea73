"""``llmctl local``"""

from __future__ import annotations

import click

from llmctl.cli.options import project_options


@click.group("local", short_help="Start or stop the processes of a local environment.")
def command() -> None:
    """Start or stop the processes of a local environment; its files and its record stay.

    \b
    Example:
      llmctl local stop
    """


@command.command("start")
@project_options
def start(file: str | None, environment: str | None) -> int:
    """Start what an apply left here, for example after a reboot.

    \b
    Example:
      llmctl local start -e dev
    """
    from llmctl.app import local
    from llmctl.app.workspace import open_workspace

    local.start(open_workspace(file, environment), _tell)
    click.echo("Started. `llmctl status` shows what serves.")
    return 0


@command.command("stop")
@project_options
def stop(file: str | None, environment: str | None) -> int:
    """Stop all processes; `llmctl local start` brings them back.

    \b
    Example:
      llmctl local stop -e dev
    """
    from llmctl.app import local
    from llmctl.app.workspace import open_workspace

    local.stop(open_workspace(file, environment), _tell)
    click.echo("Stopped. `llmctl local start` brings it back.")
    return 0


def _tell(text: str) -> None:
    click.echo(text, err=True)
