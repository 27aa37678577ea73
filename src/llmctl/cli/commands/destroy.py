"""``llmctl destroy``"""

from __future__ import annotations

from pathlib import Path

import click

from llmctl.cli.options import json_option, out_option, project_options, signers_option, yes_option


@click.command("destroy", short_help="Take away everything of an environment; the record stays.")
@project_options
@json_option
@yes_option
@out_option
@signers_option
def command(
    file: str | None,
    environment: str | None,
    as_json: bool,
    yes: bool,
    out: Path | None,
    allowed_signers: Path | None,
) -> int:
    """Take away everything of an environment; the record stays.

    Stops its processes and removes its sockets, files and stored artifacts. Your own files and the
    record in git are kept. Where approvals are needed, save what it would do with --out, have that file
    approved, and run it again.

    \b
    Example:
      llmctl destroy -e dev
    """
    from llmctl.cli.running import run

    return run(file, environment, as_json=as_json, yes=yes, destroy=True, out=out, allowed_signers=allowed_signers)
