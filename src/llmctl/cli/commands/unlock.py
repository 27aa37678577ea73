"""``llmctl unlock``"""

from __future__ import annotations

import click

from llmctl.cli.options import project_options


@click.command("unlock", short_help="End the lock of a command that hangs.")
@project_options
@click.option("--force", is_flag=True, help="Also when its command still runs; it stops before its next effect.")
def command(file: str | None, environment: str | None, force: bool) -> int:
    """End the lock of a command that hangs, or of one that is gone from another machine.

    A lock whose command is gone from this machine, or whose lease is over, needs no unlocking: the next
    command takes it over.

    \b
    Example:
      llmctl unlock --force -e dev
    """
    from llmctl.app.unlock import unlock
    from llmctl.app.workspace import open_workspace

    holder = unlock(open_workspace(file, environment), force=force)
    click.echo("Nobody holds the lock." if holder is None else f"The lock of {holder} is ended.")
    return 0
