"""``llmctl policy``"""

from __future__ import annotations

import json
from pathlib import Path

import click

from llmctl.cli.completing import policies
from llmctl.cli.options import json_option, project_options
from llmctl.core.exits import ExitCode


@click.group("policy", short_help="List, explain and test the policies of llmops.yaml.")
def command() -> None:
    """List, explain and test the policies of llmops.yaml. What runs is not asked.

    \b
    Example:
      llmctl policy list
    """


@command.command("list", short_help="List the policies, how often each holds, and their waivers.")
@project_options
@json_option
def list_(file: str | None, environment: str | None, as_json: bool) -> int:
    """List the policies: severity, rule, how often each holds, denies or is waived, and their waivers.

    A policy over the plan judges what `llmctl plan --offline` would show.

    \b
    Examples:
      llmctl policy list
      llmctl policy list -e prod --json
    """
    from llmctl.app import policy_report
    from llmctl.app.workspace import open_workspace
    from llmctl.cli.views.policy import policies_json, render_policies

    workspace = open_workspace(file, environment)
    reports, name = policy_report.policies(workspace), workspace.environment.name
    click.echo(json.dumps(policies_json(reports, name), indent=2) if as_json else render_policies(reports, name))
    return 0


@command.command("explain", short_help="Show why a policy decides as it does, and what its rule may read.")
@click.argument("name", shell_complete=policies)
@project_options
@json_option
def explain(name: str, file: str | None, environment: str | None, as_json: bool) -> int:
    """Show why a policy decides as it does: each resource with the values of the fields that the rule names.

    Those that it denies come first. Also shown: its waivers, in which ways it is weaker than recorded, and
    every field that its rule may read.

    \b
    Examples:
      llmctl policy explain open-licence
      llmctl policy explain open-licence -e prod --json
    """
    from llmctl.app import policy_report
    from llmctl.app.workspace import open_workspace
    from llmctl.cli.views.policy import explanation_json, render_explanation

    found = policy_report.explain(open_workspace(file, environment), name)
    click.echo(json.dumps(explanation_json(found), indent=2) if as_json else render_explanation(found))
    return 0


@command.command("waivers", short_help="List all waivers, those that end first on top.")
@project_options
@json_option
def waivers(file: str | None, environment: str | None, as_json: bool) -> int:
    """List all waivers, those that end first on top, with who approved them and why.

    \b
    Example:
      llmctl policy waivers
    """
    from llmctl.app import policy_report
    from llmctl.app.workspace import open_workspace
    from llmctl.cli.views.policy import render_waivers, waivers_json

    workspace = open_workspace(file, environment)
    reports, name = policy_report.policies(workspace), workspace.environment.name
    click.echo(json.dumps(waivers_json(reports, name), indent=2) if as_json else render_waivers(reports, name))
    return 0


@command.command("test", short_help="Check that the policies decide as written cases say.")
@click.argument("files", metavar="[FILE…]", nargs=-1, type=click.Path(dir_okay=False, path_type=Path))
@project_options
@json_option
def test(files: tuple[Path, ...], file: str | None, environment: str | None, as_json: bool) -> int:
    """Check that the policies decide as written cases say; default: policies.test.yaml beside llmops.yaml.

    A case names a policy, what it must say (allow, deny or warn), and a resource or a plan, of which only
    what matters is written; the rest is as in a file that says no more than it must. Waivers are left out.

    \b
    cases:
      - {policy: open-licence, resource: {license: MIT}, expect: allow}
      - name: a licence that nobody knows
        policy: open-licence
        resource: {license: proprietary}
        expect: deny
      - policy: no-mass-deletion
        plan: {counts: {delete: 4}}
        expect: deny

    Exit codes: 0 all cases pass, 1 one fails or a file is wrong.

    \b
    Examples:
      llmctl policy test
      llmctl policy test tests/licences.yaml --json
    """
    from llmctl.app.policy_report import run_cases
    from llmctl.app.workspace import open_workspace
    from llmctl.cli.views.policy import cases_json, render_cases

    results, untested = run_cases(open_workspace(file, environment), files)
    click.echo(json.dumps(cases_json(results, untested), indent=2) if as_json else render_cases(results, untested))
    return ExitCode.OK if all(result.passed for result in results) else ExitCode.ERROR
