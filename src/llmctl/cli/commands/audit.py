"""``llmctl audit``"""

from __future__ import annotations

import json

import click

from llmctl.cli.options import json_option, project_options
from llmctl.core.exits import ExitCode


@click.group("audit", short_help="Read and verify the record: log, show, verify.")
def command() -> None:
    """Read and verify the record. Needs only the git repository, no llmops.yaml and nothing that runs.

    \b
    Example:
      llmctl audit log
    """


@command.command("log", short_help="List the applies, newest first; failures included.")
@project_options
@json_option
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(1), default=20, show_default=True, help="Newest entries."
)
def log(file: str | None, environment: str | None, as_json: bool, limit: int) -> int:
    """List the applies, newest first: who, when, what, with what outcome; failures included.

    \b
    Examples:
      llmctl audit log
      llmctl audit log -e prod -n 100 --json
    """
    from llmctl.app import audit
    from llmctl.cli.views.audit import entry_json, render_log

    name, entries = audit.log(file, environment, limit)
    if as_json:
        click.echo(
            json.dumps({"format": 1, "environment": name, "entries": [entry_json(e) for e in entries]}, indent=2)
        )
    else:
        click.echo(render_log(name, entries))
    return 0


@command.command("show", short_help="Show one apply: changes, gates, policies, who, when.")
@click.argument("serial", type=click.IntRange(1))
@project_options
@json_option
def show(serial: int, file: str | None, environment: str | None, as_json: bool) -> int:
    """Show one apply: its changes, gates with numbers, policies, who, when, from which commit.

    \b
    Example:
      llmctl audit show 3
    """
    from llmctl.app import audit
    from llmctl.cli.views.audit import detail_json, render_detail

    name, detail = audit.show(file, environment, serial)
    click.echo(json.dumps(detail_json(name, detail), indent=2) if as_json else render_detail(name, detail))
    return 0


@command.command("verify", short_help="Check the record offline, evidence included.")
@project_options
@json_option
@click.option("--expect-head", metavar="COMMIT", help="The newest commit that the record must have.")
def verify(file: str | None, environment: str | None, as_json: bool, expect_head: str | None) -> int:
    """Check the record offline: chain, serials, changes against trailers, evidence against thresholds.

    Exit codes: 0 all holds, 1 a finding; each finding names its commit and what anchors it.

    \b
    Examples:
      llmctl audit verify
      llmctl audit verify -e prod --expect-head 4f2c…
    """
    from llmctl.app import audit
    from llmctl.cli.views.audit import render_verification, verification_json

    name, found = audit.verify(file, environment, expect_head)
    click.echo(json.dumps(verification_json(name, found), indent=2) if as_json else render_verification(name, found))
    return ExitCode.ERROR if found.findings else ExitCode.OK
