"""``llmctl validate``"""

from __future__ import annotations

import json
from pathlib import Path

import click

from llmctl.cli.options import json_option, project_options, untrusted_option


@click.command("validate", short_help="Check llmops.yaml and every file that it refers to.")
@project_options
@json_option
@untrusted_option
def command(file: str | None, environment: str | None, as_json: bool, untrusted: bool) -> int:
    """Check llmops.yaml and every file that it refers to.

    Every error is reported at once, with file, line and column. All environments are checked unless -e
    names one. Nothing is changed, nothing that runs is asked.

    --untrusted is for the file of somebody who may not read your secrets, such as a pull request from a
    fork: `${env:…}` stays as it is written, only files that git tracks are read, kinds of other packages
    are left out.

    \b
    Examples:
      llmctl validate
      llmctl validate -f examples/llmops.yaml --json
      llmctl validate --untrusted
    """
    from llmctl import spec
    from llmctl.app.untrusted import load_untrusted
    from llmctl.app.validate import validate
    from llmctl.cli.views.diagnostics import render
    from llmctl.spec.source import display_path

    document = load_untrusted(file) if untrusted else spec.load(spec.find_file(file, Path.cwd()))
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
