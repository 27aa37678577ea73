"""``llmctl approve``"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from llmctl.cli.options import json_option, project_options, yes_option

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MOST = timedelta(days=365)


def _duration(_ctx: click.Context, _param: click.Parameter, text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,6})([mhdw])", text)
    lasts = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < lasts <= _MOST:
        raise click.BadParameter("say how long it holds, at most a year: 30m, 12h, 7d, 2w")
    return lasts


@click.command("approve", short_help="Sign a saved plan, so that others may apply it.")
@click.argument("plan_file", metavar="PLAN", type=click.Path(dir_okay=False, path_type=Path))
@project_options
@json_option
@yes_option
@click.option(
    "--expires",
    "lasts",
    metavar="TIME",
    default="7d",
    show_default=True,
    callback=_duration,
    help="How long it holds: 30m, 12h, 7d, 2w.",
)
def command(
    plan_file: Path, file: str | None, environment: str | None, as_json: bool, yes: bool, lasts: timedelta
) -> int:
    """Sign a saved plan, so that others may apply it.

    Shows PLAN (from `llmctl plan --out`), asks, and signs its digest with your git signing settings. The
    signature is kept in git beside the record, and pushed where the record has a remote. Nothing that runs
    is read. Where an environment has `approvals: n`, apply wants those of n people for exactly this plan,
    whose keys are allowed signers, who neither apply it nor wrote the change.

    To approve again is to say how long it holds from now on. A plan that has changed needs new approvals.

    Exit codes: 0, 1 error, 6 stale plan.

    \b
    Examples:
      llmctl approve plan.json
      llmctl approve plan.json --expires 12h --yes
    """
    from llmctl.app.approvals import approvable, approve
    from llmctl.app.saved_plan import workspace_of
    from llmctl.cli.asking import confirmed, refuse_to_ask_in_json
    from llmctl.cli.views.approve import approved_json, render_approved
    from llmctl.cli.views.plan import render_plan, saved_notice
    from llmctl.plan import Consent, load_plan, read_plan

    refuse_to_ask_in_json(as_json=as_json, yes=yes)
    workspace = workspace_of(plan_file, file, environment)
    saved, made = read_plan(plan_file), load_plan(plan_file)
    approvable(workspace, plan_file, saved)
    if not as_json:
        made_at = str(json.loads(plan_file.read_bytes()).get("made_at", ""))
        # Who had approved it when it was made says nothing of now.
        shown = replace(made, approvals=Consent())
        click.echo(render_plan(shown, notice=saved_notice(plan_file, shown, made_at)) + "\n")
    if not yes and not confirmed(f"Approve this for {saved.environment} ({saved.digest[:19]}…)?"):
        click.echo("Nothing was approved.")
        return 0
    found = approve(workspace, saved, lasts, datetime.now(UTC))
    click.echo(json.dumps(approved_json(saved, found), indent=2) if as_json else render_approved(saved, found))
    return 0
