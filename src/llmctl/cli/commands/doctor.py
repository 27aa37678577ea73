"""``llmctl doctor``"""

from __future__ import annotations

import json

import click

from llmctl.cli.options import json_option, project_options
from llmctl.core.exits import ExitCode


@click.command("doctor", short_help="Check this machine and the project, and name what to do.")
@project_options
@json_option
def command(file: str | None, environment: str | None, as_json: bool) -> int:
    """Check this machine and the project, and name what to do.

    A line for each check. Without an llmops.yaml the machine is checked alone; without -e all
    environments are looked at. Nothing is changed. Exit codes: 0, 1 when something would keep an apply
    from getting through.

    \b
    Examples:
      llmctl doctor
      llmctl doctor -e dev --json
    """
    from llmctl.app.checks import Level
    from llmctl.app.doctor import doctor

    checks = doctor(file, environment)
    failed = sum(check.level is Level.FAILED for check in checks)
    code = ExitCode.ERROR if failed else ExitCode.OK
    if as_json:
        shown = [{"name": c.name, "status": c.level.value, "found": c.found, "remedy": c.remedy} for c in checks]
        click.echo(json.dumps({"format": 1, "ok": not failed, "checks": shown, "exit_code": int(code)}, indent=2))
        return code
    signs = {Level.OK: ("✓", "green"), Level.WARNING: ("!", "yellow"), Level.FAILED: ("✗", "red")}
    for check in checks:
        sign, color = signs[check.level]
        click.echo(f"{click.style(sign, fg=color)} {check.name:<11}  {check.found}")
        if check.remedy:
            click.echo(f"  {'':<11}  {check.remedy}")
    warned = sum(check.level is Level.WARNING for check in checks)
    said = [f"{failed} failed"] * bool(failed) + [f"{warned} to look at"] * bool(warned)
    click.echo(f"\n{', '.join(said).capitalize() if said else 'All is well'}.")
    return code
