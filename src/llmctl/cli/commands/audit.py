"""``llmctl audit``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from llmctl.cli.completing import addresses
from llmctl.cli.options import json_option, project_options
from llmctl.core.exits import ExitCode


@click.group("audit", short_help="Read, export and verify the record of what was applied.")
def command() -> None:
    """Read and verify the record. Needs only the git repository, no llmops.yaml and nothing that runs.

    \b
    Examples:
      llmctl audit log --since 7d
      llmctl audit show 12
      llmctl audit blame prompt.answer
    """


@command.command("log", short_help="List the applies, newest first; failures included.")
@project_options
@json_option
@click.option("--since", metavar="WHEN", help="From then on: 2026-10-01, 2026-10, a time, today, or 7d, 12h, 90m ago.")
@click.option("--until", metavar="WHEN", help="Up to then, that day or month included. All times are UTC.")
@click.option(
    "--resource",
    "resources",
    metavar="ADDRESS",
    multiple=True,
    shell_complete=addresses,
    help="What changed it, tried to, or decided on it; also a kind, or a pattern as `route.*`. May be repeated.",
)
@click.option("--actor", metavar="TEXT", default="", help="By whom: a part of the name or email.")
@click.option("--action", "actions", metavar="ACTION", multiple=True, help="apply, destroy, rollback, import …")
@click.option("--outcome", "outcomes", metavar="OUTCOME", multiple=True, help="applied, failed, rolled back …")
@click.option("--text", metavar="TEXT", default="", help="In the subject or in a reason.")
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(0), default=20, show_default=True, help="The newest; 0 for all."
)
@click.option("--all", "everything", is_flag=True, help="All that match, as -n 0.")
def log(file: str | None, environment: str | None, as_json: bool, limit: int, everything: bool, **filters: Any) -> int:
    """List the applies, newest first: who, when, what, with what outcome.

    Failures, rollbacks, break-glass and state operations are among them. Filters narrow together.

    \b
    Examples:
      llmctl audit log
      llmctl audit log -e prod --since 2026-10-01 --outcome failed --json
      llmctl audit log --resource route.support --actor ada --all
    """
    from llmctl.app import audit
    from llmctl.cli.views.audit import log_json, render_log

    found = audit.log(file, environment, audit.Filters(**filters, limit=0 if everything else limit))
    click.echo(json.dumps(log_json(found), indent=2) if as_json else render_log(found))
    return 0


@command.command("show", short_help="Show one apply: changes, gates, policies, who, when.")
@click.argument("serial", type=click.IntRange(1))
@project_options
@json_option
def show(serial: int, file: str | None, environment: str | None, as_json: bool) -> int:
    """Show one apply: who, when, what changed and why, gates with numbers, policies, approvals, source, CI run.

    \b
    Example:
      llmctl audit show 3
    """
    from llmctl.app import audit
    from llmctl.cli.views.audit_packet import packet_json, render_sample

    found = audit.show(file, environment, serial)
    told = json.dumps(packet_json(found.environment, found.packet), indent=2) if as_json else render_sample(found)
    click.echo(told)
    return 0


@command.command("diff", short_help="What the record says differs between two entries.")
@click.argument("serial", metavar="FROM", type=click.IntRange(0))
@click.argument("other", metavar="[TO]", type=click.IntRange(0), required=False)
@project_options
@json_option
def diff(serial: int, other: int | None, file: str | None, environment: str | None, as_json: bool) -> int:
    """What the record says differs from one entry to another, or to the newest; 0 is the empty beginning.

    Field by field, with the serials of the entries that changed each resource.

    \b
    Examples:
      llmctl audit diff 3
      llmctl audit diff 3 8 --json
    """
    from llmctl.app import audit
    from llmctl.cli.views.audit import difference_json, render_difference

    found = audit.diff(file, environment, serial, other)
    click.echo(json.dumps(difference_json(found), indent=2) if as_json else render_difference(found))
    return 0


@command.command("blame", short_help="Who set each field of a resource, when and why.")
@click.argument("address", shell_complete=addresses)
@project_options
@json_option
def blame(address: str, file: str | None, environment: str | None, as_json: bool) -> int:
    """Who set each field of a resource as it is recorded, when and why; also of one that is deleted.

    A rename by `moved` is followed: what was set under the old name keeps its serial.

    \b
    Example:
      llmctl audit blame prompt.answer
    """
    from llmctl.app import audit
    from llmctl.cli.views.audit import blame_json, render_blame

    found = audit.blame(file, environment, address)
    click.echo(json.dumps(blame_json(found), indent=2) if as_json else render_blame(found))
    return 0


@command.command("export", short_help="Every entry of a period as one page, table or JSON.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "csv", "json"]),
    default="html",
    show_default=True,
    help="A page to read and print, a table for a spreadsheet, or all for programs.",
)
@click.option("--since", metavar="WHEN", help="From then on: 2026-10-01, 2026-10, a time, today, or 7d, 12h, 90m ago.")
@click.option("--until", metavar="WHEN", help="Up to then, that day or month included. All times are UTC.")
@click.option("--out", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Default: stdout.")
@project_options
def export(
    form: str, since: str | None, until: str | None, out: Path | None, file: str | None, environment: str | None
) -> int:
    """Every entry of a period, failures included, with all that `audit show` tells of each.

    The page needs nothing else and prints well. A FILE that is there is replaced only when it is an export.

    \b
    Examples:
      llmctl audit export --out audit.html
      llmctl audit export --since 2026-07 --until 2026-09 --out q3.html
      llmctl audit export --format csv --out audit.csv
    """
    from llmctl.app import audit_export

    report = audit_export.export(file, environment, since, until)
    if form == "html":
        from llmctl.cli.views.audit_report import render_report

        text = render_report(report)
    elif form == "csv":
        from llmctl.cli.views.audit_table import render_table

        text = render_table(report)
    else:
        from llmctl.cli.views.audit_report import report_json

        text = json.dumps(report_json(report), indent=2) + "\n"
    # Spreadsheets take a file for UTF-8 by its mark; in a pipe it would stand in the first column's name.
    data = text.encode("utf-8-sig" if form == "csv" and out else "utf-8", errors="replace")
    if out is None:
        click.echo(data, nl=False)
        return 0
    audit_export.save(out, data)
    entries = f"{len(report.packets):,} entr{'y' if len(report.packets) == 1 else 'ies'}"
    click.echo(f"{out}: {entries} of llmctl/{report.environment}, head {report.head[:12]}", err=True)
    return 0


@command.command("verify", short_help="Check the record offline, evidence and signatures included.")
@project_options
@json_option
@click.option(
    "--expect-head", metavar="COMMIT", envvar="LLMCTL_EXPECT_HEAD", help="The newest commit that the record must have."
)
@click.option(
    "--allowed-signers",
    metavar="FILE",
    type=click.Path(path_type=Path),
    envvar="LLMCTL_ALLOWED_SIGNERS",
    help="Whose keys count: every commit must be signed by one. Default: git's gpg.ssh.allowedSignersFile.",
)
@click.option(
    "--revoked-signers",
    metavar="FILE",
    type=click.Path(path_type=Path),
    envvar="LLMCTL_REVOKED_SIGNERS",
    help="Keys that never count. Default: git's gpg.ssh.revocationFile.",
)
@click.option(
    "--signed-from",
    metavar="SERIAL",
    type=click.IntRange(0),
    envvar="LLMCTL_SIGNED_FROM",
    help="The first entry that must be signed, for a record that began unsigned.",
)
def verify(
    file: str | None,
    environment: str | None,
    as_json: bool,
    expect_head: str | None,
    allowed_signers: Path | None,
    revoked_signers: Path | None,
    signed_from: int | None,
) -> int:
    """Check the record offline: the chain of its commits, serials, changes against trailers, evidence against
    thresholds, approvals and break-glass, secrets, and signatures.

    Exit codes: 0 all holds, 1 a finding; each finding names its commit and what anchors it.

    \b
    Examples:
      llmctl audit verify
      llmctl audit verify -e prod --allowed-signers ~/allowed_signers
      llmctl audit verify -e prod --expect-head 4f2c…
    """
    from llmctl.app import verifying
    from llmctl.cli.views.verification import render_verification, verification_json

    anchors = verifying.Anchors(expect_head, allowed_signers, revoked_signers, signed_from)
    found = verifying.verify(file, environment, anchors)
    click.echo(json.dumps(verification_json(found), indent=2) if as_json else render_verification(found))
    return ExitCode.OK if found.result.ok else ExitCode.ERROR
