"""``llmctl promote``"""

from __future__ import annotations

from pathlib import Path

import click

from llmctl.cli.completing import environments
from llmctl.cli.options import file_options, from_record_option, json_option, signers_option, yes_option


@click.command("promote", short_help="Apply to one environment what has passed in another.")
@click.argument("source", metavar="FROM", shell_complete=environments)
@click.argument("destination", metavar="TO", shell_complete=environments)
@file_options
@json_option
@yes_option
@from_record_option
@signers_option
@click.option(
    "--parallelism",
    metavar="N",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Steps at once; edits of routes are not counted, they go out together.",
)
def command(
    source: str,
    destination: str,
    file: str | None,
    as_json: bool,
    yes: bool,
    from_record: str,
    allowed_signers: Path | None,
    parallelism: int,
) -> int:
    """Apply to one environment what has passed in another.

    This is `llmctl apply -e TO`, which is denied unless the prompt and model revisions that each route
    gets were applied together in FROM, on a route of the same name, passed every gate that it had
    there, and were not rolled back. FROM's record must verify; what was found in it is recorded in TO.
    With `promote_from: FROM` every apply to TO keeps this rule.

    FROM's record is in this clone, or on the remote that the file names for it (`record`). Otherwise
    --from-record says where: the path of a clone, a git URL, or a file of `git bundle create`.

    Exit codes: 0, 1 error, 3 denied, 4 gate failed or inconclusive, 5 lock held, 130 interrupted.

    \b
    Examples:
      llmctl promote dev staging
      llmctl promote dev staging --yes --json
      llmctl promote dev staging --from-record ../laptop-clone
    """
    from llmctl.cli.running import run

    return run(
        file,
        destination,
        as_json=as_json,
        yes=yes,
        parallelism=parallelism,
        promote_from=source,
        from_record=from_record,
        allowed_signers=allowed_signers,
    )
