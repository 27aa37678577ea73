"""``llmctl validate``"""

from __future__ import annotations

import json
from pathlib import Path

import click

from llmctl.cli.options import json_option, project_options


@click.command("validate", short_help="Check llmops.yaml and every file that it refers to.")
@project_options
@json_option
def command(file: str | None, environment: str | None, as_json: bool) -> int:
    """Check llmops.yaml and every file that it refers to.

    Every error is reported at once, with file, line and column. All environments are checked unless -e
    names one. Nothing is changed, nothing that runs is asked.

    \b
    Examples:
      llmctl validate
      llmctl validate -f examples/llmops.yaml --json
    """
    from llmctl import spec
    from llmctl.app.validate import validate
    from llmctl.cli.views.diagnostics import render
    from llmctl.spec.source import display_path

    document = spec.load(spec.find_file(file, Path.cwd()))
    warnings = validate(document, environment)
    if as_json:
        from llmctl.plan.planfile import diagnostic_json

        click.echo(
            json.dumps({"format": 1, "valid": True, "warnings": [diagnostic_json(w) for w in warnings]}, indent=2)
        )
        return 0
    if warnings:
        click.echo(render(warnings), err=True)
    environments = ", ".join([environment] if environment else document.environments)
    click.echo(f"{click.style('✓', fg='green')} {display_path(document.path)} is valid ({environments})")
    return 0
