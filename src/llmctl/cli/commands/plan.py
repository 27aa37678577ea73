"""``llmctl plan``"""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from llmctl.cli.completing import addresses
from llmctl.cli.options import (
    choosing,
    from_record_option,
    json_option,
    project_options,
    signers_option,
    target_option,
    untrusted_option,
)
from llmctl.cli.saving import refuse_to_replace, save
from llmctl.core.exits import ExitCode

if TYPE_CHECKING:
    from llmctl.core.address import Address
    from llmctl.plan import Plan


@click.command("plan", short_help="Show what would change, why, and which gates would prove it.")
@click.argument("saved", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@project_options
@json_option
@click.option("--markdown", is_flag=True, help="A comment for a pull request, at most 65,000 characters.")
@click.option(
    "--explain", metavar="ADDRESS", shell_complete=addresses, help="All that the plan says of one resource, and why."
)
@target_option
@click.option("--base", metavar="REF", help="Policies of this git revision judge too; gates are compared with it.")
@click.option("--out", metavar="PATH", type=click.Path(dir_okay=False, path_type=Path), help="Save the plan for apply.")
@click.option("--offline", is_flag=True, help="Do not read what runs; such a plan cannot be applied.")
@untrusted_option
@from_record_option
@signers_option
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when there is something to do.")
@click.pass_context
def command(
    ctx: click.Context,
    saved: Path | None,
    file: str | None,
    environment: str | None,
    as_json: bool,
    markdown: bool,
    explain: str | None,
    targets: tuple[str, ...],
    base: str | None,
    out: Path | None,
    offline: bool,
    untrusted: bool,
    from_record: str,
    allowed_signers: Path | None,
    detailed_exitcode: bool,
) -> int:
    """Show what would change, why, and which gates would prove it.

    Compares llmops.yaml with the record (change) and what runs with the record (drift). Nothing is
    changed. A gate or policy that asks for less is marked; with --base it is compared with a git
    revision too, for example the branch that a pull request goes to, and that revision's policies
    judge as well.

    With FILE (from --out) that saved plan is shown as it was made, and nothing else is read.

    --untrusted is for the file of somebody who may not read your secrets, such as a pull request from a
    fork: `${env:…}` stays as it is written, only files that git tracks are read, kinds of other packages
    are left out, no remote and nothing that runs is asked. Such a plan cannot be applied.

    Exit codes: 0, 1 error, 3 denied; with --detailed-exitcode 2 when apply would do something. A saved
    plan that can be shown exits 0.

    \b
    Examples:
      llmctl plan
      llmctl plan --out plan.json && llmctl apply plan.json
      llmctl plan plan.json --markdown
      llmctl plan --target route.support --detailed-exitcode --json
      llmctl plan --explain route.support --base main
      llmctl plan --untrusted --markdown --base origin/main
    """
    _refuse_contradictions(ctx, saved is not None)
    from llmctl.cli.views.plan import saved_notice

    if saved is not None:
        made, made_at = _saved(ctx, saved, environment)
        notice = saved_notice(saved, made, made_at)
        click.echo(_shown(made, made_at, explain, notice, as_json=as_json, markdown=markdown))
        return ExitCode.OK
    if out is not None:
        refuse_to_replace(out)
    from llmctl.app.approvals import shown_plan
    from llmctl.app.planning import Scope
    from llmctl.app.untrusted import open_untrusted
    from llmctl.app.workspace import open_workspace

    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    workspace = open_untrusted(file, environment) if untrusted else open_workspace(file, environment)
    scope = Scope(targets=targets, base=base or "", from_record="" if untrusted else from_record)
    made = shown_plan(workspace, scope, offline=offline or untrusted, allowed=allowed_signers)
    if out is not None:
        save(made, made_at, out)
    click.echo(_shown(made, made_at, explain, "", as_json=as_json, markdown=markdown))
    if out is not None and not as_json and not markdown:
        click.echo(f"\nSaved to {out}; {_use(made, shlex.quote(str(out)), choosing(file, workspace), from_record)}.")
    return _exit_code(made, detailed=detailed_exitcode)


def _refuse_contradictions(ctx: click.Context, saved: bool) -> None:
    given = [
        option.opts[-1]
        for option in ctx.command.params
        if isinstance(option, click.Option)
        and option.name is not None
        and ctx.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    ]
    for pair in (("--json", "--markdown"), ("--explain", "--markdown"), ("--untrusted", "--from-record")):
        if set(pair) <= set(given):
            raise click.UsageError(f"{' and '.join(pair)} exclude each other. Choose one.", ctx)
    making = [
        o
        for o in ("--file", "--target", "--base", "--out", "--offline", "--untrusted", "--detailed-exitcode")
        if o in given
    ]
    if saved and making:
        raise click.UsageError(
            f"{making[0]} is for making a plan, and FILE shows a saved one. Leave one of them out.", ctx
        )


def _saved(ctx: click.Context, path: Path, environment: str | None) -> tuple[Plan, str]:
    """The plan of a file, and when it was made."""
    from llmctl.plan import load_plan

    made = load_plan(path)
    asked = environment if ctx.get_parameter_source("environment") is ParameterSource.COMMANDLINE else None
    if asked not in (None, made.desired.environment.name):
        raise click.UsageError(f"{path} is a plan for {made.desired.environment.name}, not for {asked}", ctx)
    return made, str(json.loads(path.read_bytes()).get("made_at", ""))


def _shown(made: Plan, made_at: str, explain: str | None, notice: str, *, as_json: bool, markdown: bool) -> str:
    if explain is not None:
        return _explanation(made, notice, explain, as_json=as_json)
    if markdown:
        from llmctl.cli.views.markdown import render_markdown

        return render_markdown(made, notice=notice)
    from llmctl.cli.views.plan import render_plan, shown_json

    return json.dumps(shown_json(made, made_at), indent=2) if as_json else render_plan(made, notice=notice)


def _explanation(made: Plan, notice: str, text: str, *, as_json: bool) -> str:
    from llmctl.cli.views.explain import explanation_json, render_explanation
    from llmctl.core.address import Address
    from llmctl.core.diagnostics import Diagnostic
    from llmctl.core.errors import InvalidInput
    from llmctl.plan.explain import explain

    try:
        address = Address.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--explain'") from None
    told = explain(made, address)
    if told is None:
        hint = _nearest(made, address)
        raise InvalidInput([Diagnostic(f"the plan knows nothing of {address}", hint=hint)])
    if as_json:
        return json.dumps(explanation_json(made, told), indent=2)
    return render_explanation(made, told, notice=notice)


def _nearest(made: Plan, address: Address) -> str:
    """What may have been meant, of all that the plan knows; a saved one knows what changes."""
    from llmctl.cli.views.layout import listed
    from llmctl.spec.suggestions import closest

    known = {*made.desired.resources, *made.recorded.resources, *(c.address for c in made.changes)}
    names = sorted(str(a) for a in known)
    if near := closest(str(address), names):
        return "did you mean " + " or ".join(f"`{name}`" for name in near) + "?"
    alike = [str(a) for a in sorted(known) if a.kind == address.kind]
    there = f"There are: {listed(alike, 10)}." if alike else "`llmctl plan` lists what changes."
    return f"{there} What is neither declared nor recorded is not in a plan."


def _use(made: Plan, out: str, options: str, from_record: str) -> str:
    """What can be done with a plan that was saved."""
    if made.offline:
        return "it cannot be applied, for it is offline"
    if _exit_code(made, detailed=False) is ExitCode.DENIED:
        return "apply would refuse it: see above, put that right, and plan again"
    place = f" --from-record {shlex.quote(from_record)}" if from_record else ""
    apply = f"`llmctl apply {out}{options}{place}`"
    if made.approvals.missing:
        return f"others run `llmctl approve {out}{options}`, then apply it with {apply}"
    return f"apply it with {apply}"


def _exit_code(made: Plan, *, detailed: bool) -> ExitCode:
    if made.blocked:
        return ExitCode.ERROR
    if made.denials or any(p.denies for p in made.policies):
        return ExitCode.DENIED
    return ExitCode.CHANGES if detailed and not made.is_empty else ExitCode.OK
