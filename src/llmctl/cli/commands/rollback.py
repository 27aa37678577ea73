"""``llmctl rollback``"""

from __future__ import annotations

from pathlib import Path

import click

from llmctl.cli.options import break_glass_option, json_option, out_option, project_options, signers_option, yes_option


@click.command("rollback", short_help="Go back to an earlier entry of the record, without a gate run.")
@project_options
@json_option
@yes_option
@click.option(
    "--to", "serial", metavar="SERIAL", type=click.IntRange(1), help="Which entry; default: the last good one before."
)
@click.option("--reason", default="", help="Why; it stands in the record.")
@out_option
@signers_option
@break_glass_option
def command(
    file: str | None,
    environment: str | None,
    as_json: bool,
    yes: bool,
    serial: int | None,
    reason: str,
    out: Path | None,
    allowed_signers: Path | None,
    break_glass: str | None,
) -> int:
    """Go back to an earlier entry of the record, without a gate run.

    What that entry declared was proven then; only readiness is tested. The revisions that are left are
    rejected: apply refuses exactly those until `llmctl unreject`. Where approvals are needed, save it with
    --out, have that file approved, and run the same again.

    \b
    Examples:
      llmctl rollback
      llmctl rollback --to 1 --reason "wrong refund answers" --yes
    """
    from llmctl.cli.running import run

    return run(
        file,
        environment,
        as_json=as_json,
        yes=yes,
        rollback=True,
        rollback_to=serial,
        reason=reason,
        out=out,
        allowed_signers=allowed_signers,
        break_glass=break_glass,
    )
