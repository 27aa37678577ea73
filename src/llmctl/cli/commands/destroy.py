"""``llmctl destroy``"""

from __future__ import annotations

import click

from llmctl.cli.options import json_option, project_options, yes_option


@click.command("destroy", short_help="Take away everything of an environment; the record stays.")
@project_options
@json_option
@yes_option
def command(file: str | None, environment: str | None, as_json: bool, yes: bool) -> int:
    """Take away everything of an environment; the record stays.

    Stops its processes and removes its sockets, files and stored artifacts. Your own files and the
    record in git are kept.

    \b
    Example:
      llmctl destroy -e dev
    """
    from llmctl.cli.running import run

    return run(file, environment, as_json=as_json, yes=yes, destroy=True)
