"""``llmctl apply``"""

from __future__ import annotations

from pathlib import Path

import click

from llmctl.cli.options import (
    break_glass_option,
    from_record_option,
    json_option,
    project_options,
    signers_option,
    target_option,
    yes_option,
)


@click.command("apply", short_help="Make it so: provision, prove, shift traffic, record.")
@click.argument("plan_file", metavar="[PLAN]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@project_options
@json_option
@yes_option
@target_option
@from_record_option
@signers_option
@break_glass_option
@click.option("--reason", default="", help="Why, beside what the source commit says; it stands in the record.")
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
    from_record: str,
    allowed_signers: Path | None,
    break_glass: str | None,
    reason: str,
    parallelism: int,
) -> int:
    """Make it so: provision, prove, shift traffic, record.

    With PLAN (from `llmctl plan --out`) exactly that plan is applied, to the environment that it is for,
    or refused when anything that it was made from has moved. A new revision of a route gets traffic only
    after its gates passed; when one fails, what served before still serves. Every apply is recorded, also
    one that failed.

    An environment with `approvals: n` needs those of n others for exactly this plan (`llmctl approve`).
    In an emergency --break-glass goes without them and without the gates that policy lets it skip. It is
    recorded, and every plan shows it until an ordinary apply runs those gates and has those approvals.

    Exit codes: 0, 1 error, 3 denied, 4 gate failed or inconclusive, 5 lock held, 6 stale plan,
    130 interrupted.

    \b
    Examples:
      llmctl apply
      llmctl apply --yes -e dev
      llmctl apply plan.json
      llmctl apply --target route.support
      llmctl apply --break-glass "Support is down: the model was withdrawn"
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
        from_record=from_record,
        allowed_signers=allowed_signers,
        break_glass=break_glass,
        reason=reason,
    )
