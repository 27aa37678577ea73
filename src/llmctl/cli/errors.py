"""Every failure becomes a message on stderr and an exit code; ``--json`` makes it JSON on stdout."""

from __future__ import annotations

import json
import os
import traceback

import click

from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import LlmctlError
from llmctl.core.exits import ExitCode


def exit_code_of(error: BaseException, arguments: list[str]) -> int:
    """Tell the user about ``error`` and return the exit code. Usage mistakes exit 1: 2 means changes."""
    if isinstance(error, SystemExit):
        return int(error.code or 0) if isinstance(error.code, int | None) else 1
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt | click.Abort):
        click.echo("\nInterrupted; nothing was changed.", err=True)
        return int(ExitCode.INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        return int(ExitCode.OK)
    if isinstance(error, click.ClickException):
        error.show()
        return int(ExitCode.ERROR)
    if isinstance(error, LlmctlError):
        _show(error, "--json" in arguments)
        return int(error.exit_code)
    _defect(error)
    return int(ExitCode.ERROR)


def _show(error: LlmctlError, as_json: bool) -> None:
    from llmctl.cli.views.diagnostics import render

    if as_json:
        from llmctl.plan import diagnostic_json

        findings = [diagnostic_json(d) for d in error.diagnostics()]
        click.echo(json.dumps({"format": 1, "errors": findings, "exit_code": int(error.exit_code)}, indent=2))
        return
    click.echo(render(error.diagnostics()), err=True)


def _defect(error: BaseException) -> None:
    """Something that should not happen. The traceback is for whoever mends it, and only when asked for."""
    from llmctl.cli.views.diagnostics import render

    text = f"internal error: {type(error).__name__}: {error}"
    hint = "This is a defect in llmctl, please report it. LLMCTL_TRACEBACK=1 shows where it happened."
    click.echo(render([Diagnostic(text, hint=hint)]), err=True)
    if os.environ.get("LLMCTL_TRACEBACK"):
        click.echo("".join(traceback.format_exception(error)), err=True)
