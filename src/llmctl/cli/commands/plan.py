"""``llmctl plan``"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from llmctl.cli.options import json_option, project_options
from llmctl.core.exits import ExitCode


@click.command("plan", short_help="Show what would change, why, and which gates would prove it.")
@project_options
@json_option
@click.option("--out", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Save the plan for apply.")
@click.option("--offline", is_flag=True, help="Do not read what runs; such a plan cannot be applied.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when there is something to do.")
def command(
    file: str | None, environment: str | None, as_json: bool, out: Path | None, offline: bool, detailed_exitcode: bool
) -> int:
    """Show what would change, why, and which gates would prove it.

    Compares llmops.yaml with the record (change) and what runs with the record (drift). Nothing is
    changed. Exit codes: 0, 1 error, 3 a policy denies; with --detailed-exitcode 2 when apply would do
    something.

    \b
    Examples:
      llmctl plan
      llmctl plan --out plan.json && llmctl apply plan.json
      llmctl plan --detailed-exitcode --json
    """
    from llmctl.app.planning import plan
    from llmctl.app.workspace import open_workspace
    from llmctl.cli.views.plan import render_plan
    from llmctl.core.errors import LlmctlError
    from llmctl.core.files import write_atomic
    from llmctl.plan import plan_json

    made = plan(open_workspace(file, environment), offline=offline)
    if out is not None:
        try:
            write_atomic(out, (json.dumps(plan_json(made), indent=2) + "\n").encode(), mode=0o644)
        except OSError as error:
            raise LlmctlError(f"{out} cannot be written: {error.strerror}") from None
    click.echo(json.dumps(plan_json(made), indent=2) if as_json else render_plan(made))
    if out is not None and not as_json:
        click.echo(f"\nSaved to {out}; apply it with `llmctl apply {shlex.quote(str(out))}`.")
    if made.blocked:
        return ExitCode.ERROR
    if made.denials or any(p.denies for p in made.policies):
        return ExitCode.DENIED
    return ExitCode.CHANGES if detailed_exitcode and not made.is_empty else ExitCode.OK
