"""``llmctl logs``"""

from __future__ import annotations

from threading import Event

import click

from llmctl.cli.completing import logs
from llmctl.cli.options import project_options


@click.command("logs", short_help="Show the logs of engines and gateway.")
@click.argument("name", required=False, shell_complete=logs)
@project_options
@click.option(
    "-n", "--lines", metavar="N", type=click.IntRange(0), default=20, show_default=True, help="Last lines of each."
)
@click.option("--follow", is_flag=True, help="Go on with what is added, until Ctrl-C.")
def command(name: str | None, file: str | None, environment: str | None, lines: int, follow: bool) -> int:
    """Show the logs of engines and gateway. NAME chooses one: `endpoint.support`, `gateway`.

    \b
    Examples:
      llmctl logs
      llmctl logs endpoint.support --follow
    """
    from llmctl.app.local import log_files, tail
    from llmctl.app.workspace import open_workspace

    paths = log_files(open_workspace(file, environment), name)
    try:
        for process, line in tail(paths, lines, follow=follow, stop=Event()):
            click.echo(f"{click.style(process, fg='cyan')}  {line}" if len(paths) > 1 else line)
    except KeyboardInterrupt:
        return 0
    return 0
