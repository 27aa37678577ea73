"""``llmctl promote``"""

from __future__ import annotations

import click

from llmctl.cli.completing import environments
from llmctl.cli.options import file_options, json_option, yes_option


@click.command("promote", short_help="Apply to one environment what has passed in another.")
@click.argument("source", metavar="FROM", shell_complete=environments)
@click.argument("destination", metavar="TO", shell_complete=environments)
@file_options
@json_option
@yes_option
@click.option(
    "--parallelism",
    metavar="N",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Steps at once; edits of routes are not counted, they go out together.",
)
def command(source: str, destination: str, file: str | None, as_json: bool, yes: bool, parallelism: int) -> int:
    """Apply to one environment what has passed in another.

    This is `llmctl apply -e TO`, which is denied unless the prompt and model revisions that each route
    gets were applied together in FROM, on a route of the same name, and not rolled back there. With
    `promote_from: FROM` every apply to TO keeps this rule.

    Exit codes: 0, 1 error, 3 denied, 4 gate failed or inconclusive, 5 lock held, 130 interrupted.

    \b
    Examples:
      llmctl promote dev staging
      llmctl promote dev staging --yes --json
    """
    from llmctl.cli.running import run

    return run(file, destination, as_json=as_json, yes=yes, parallelism=parallelism, promote_from=source)
