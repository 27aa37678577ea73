"""``llmctl gate``"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from llmctl.cli.completing import gates
from llmctl.cli.options import json_option, project_options
from llmctl.core.exits import ExitCode

if TYPE_CHECKING:
    from llmctl.app.gating import GateRun
    from llmctl.core.address import Address

#: Subcommands that the design names and this version does not serve.
_NOT_YET = ("history", "diff")


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in _NOT_YET and not ctx.resilient_parsing:
            raise click.UsageError(f"`llmctl gate {args[0]}` is not served yet.", ctx)
        return super().resolve_command(ctx, args)


@click.group("gate", cls=_Group, short_help="Run gates by hand; nothing is recorded.")
def command() -> None:
    """Run gates by hand; nothing is recorded. `llmctl apply` runs them by itself before anything serves.

    \b
    Example:
      llmctl gate run
    """


@command.command("run", short_help="Measure a gate, or all, against what serves or a staged revision.")
@click.argument("name", required=False, shell_complete=gates)
@project_options
@json_option
@click.option("--route", "at", metavar="ROUTE@REV", help="Judge this revision, promoted or staged; a prefix will do.")
def run(name: str | None, file: str | None, environment: str | None, as_json: bool, at: str | None) -> int:
    """Measure a gate, or all, against what serves or a staged revision.

    The gate is taken from the file as it is now, its rows are asked anew, and max_drop compares with what
    serves. Nothing changes and nothing is recorded in git; answers stay in the artifact store. A run that
    was cut short goes on where it was: start it again.

    Exit codes: 0 every gate passes, 1 error, 4 a gate blocks.

    \b
    Examples:
      llmctl gate run
      llmctl gate run faq --route support@3fa9c1d2 --json
    """
    from llmctl.app.gating import run_gates
    from llmctl.app.workspace import open_workspace
    from llmctl.cli.views.gate import gate_json, render_gate

    workspace = open_workspace(file, environment)
    watched = sys.stderr.isatty() and not as_json
    runs = []
    for ended in run_gates(workspace, name, at, _count if watched else _silent):
        runs.append(ended)
        if not as_json:
            click.echo(f"{render_gate(ended.report)}{_taken_over(ended)}")
    blocked = any(ended.report.evidence.verdict.blocks for ended in runs)
    code = ExitCode.GATE if blocked else ExitCode.OK
    if as_json:
        found = [{**gate_json(ended.report), "taken_over": ended.taken_over} for ended in runs]
        shown = {"format": 1, "environment": workspace.environment.name, "gates": found, "exit_code": int(code)}
        click.echo(json.dumps(shown, indent=2))
    return code


def _taken_over(ended: GateRun) -> str:
    """A line about answers that were not asked for now, "" when there are none."""
    return f"\n  {ended.taken_over} answers are of a run that was cut short" if ended.taken_over else ""


def _count(gate: Address, done: int, total: int) -> None:
    """A counter on a terminal, written over and over."""
    click.echo(f"\r{gate}: {done}/{total} requests", nl=done == total, err=True)


def _silent(_: Address, __: int, ___: int) -> None:
    return None
