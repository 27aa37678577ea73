"""``llmctl apply``"""

from __future__ import annotations

from pathlib import Path

import click

from llmctl.cli.options import json_option, project_options, target_option, yes_option


@click.command("apply", short_help="Make it so: provision, prove, shift traffic, record.")
@click.argument("plan_file", metavar="[PLAN]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@project_options
@json_option
@yes_option
@target_option
@click.option(
    "--parallelism",
    metavar="N",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Steps at once; edits of routes are not counted, they go out together.",
)
def command(
    plan_file: Path | None,
    file: str | None,
    environment: str | None,
    as_json: bool,
    yes: bool,
    targets: tuple[str, ...],
    parallelism: int,
) -> int:
    """Make it so: provision, prove, shift traffic, record.

    With PLAN (from `llmctl plan --out`) exactly that plan is applied, to the environment that it is for,
    or refused when anything that it was made from has moved. A new revision of a route gets traffic only
    after its gates passed; when one fails, what served before still serves. Every apply is recorded, also
    one that failed.

    Exit codes: 0, 1 error, 3 denied, 4 gate failed or inconclusive, 5 lock held, 6 stale plan,
    130 interrupted.

    \b
    Examples:
      llmctl apply
      llmctl apply --yes -e dev
      llmctl apply plan.json
      llmctl apply --target route.support
    """
    from llmctl.cli.running import run

    return run(
        file,
        environment,
        as_json=as_json,
        yes=yes,
        parallelism=parallelism,
        plan_file=plan_file,
        targets=targets,
    )
