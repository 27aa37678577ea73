"""Every failure becomes a message on stderr and an exit code; ``--json`` makes it JSON on stdout."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Sequence

import click

from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import LlmctlError
from llmctl.core.exits import ExitCode

#: Commands that change something and cannot be undone half-way; all others end before their first effect or record it.
_CHANGES_AT_ONCE = ("local", "unlock", "unreject", "state", "import", "gc")


def exit_code_of(error: BaseException, arguments: Sequence[str]) -> int:
    """Tell the user about ``error`` and return the exit code. Usage mistakes exit 1: 2 means changes."""
    if isinstance(error, SystemExit):
        return int(error.code or 0) if isinstance(error.code, int | None) else 1
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        return int(ExitCode.ERROR)  # nobody reads what would be said
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return _interrupted(arguments)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return int(ExitCode.ERROR)
    if isinstance(error, click.ClickException):
        return _show([_usage(error)], ExitCode.ERROR, arguments)
    if isinstance(error, LlmctlError):
        return _show(error.diagnostics(), error.exit_code, arguments)
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return _show([Diagnostic(f"{place}{error.strerror.lower()}")], ExitCode.ERROR, arguments)
    from llmctl.core.secrets import masked

    text = masked(f"internal error: {type(error).__name__}: {error}")
    hint = "This is a defect in llmctl, please report it. LLMCTL_TRACEBACK=1 shows where it happened."
    if os.environ.get("LLMCTL_TRACEBACK"):  # it is for whoever mends the defect, and only when asked for
        click.echo(masked("".join(traceback.format_exception(error))), err=True)
    return _show([Diagnostic(text, hint=hint)], ExitCode.ERROR, arguments)


def _interrupted(arguments: Sequence[str]) -> int:
    text = "interrupted; nothing was changed"
    if arguments and arguments[0] in _CHANGES_AT_ONCE:
        text = "interrupted; `llmctl status` shows what holds now"
    if _asked_for("--json", arguments):
        return _show([Diagnostic(text)], ExitCode.INTERRUPTED, arguments)
    click.echo(f"\n{text.capitalize()}.", err=True)
    return int(ExitCode.INTERRUPTED)


def _usage(error: click.ClickException) -> Diagnostic:
    """What click says of a wrong command line, in the form of all other errors."""
    summary, _, more = error.format_message().partition(". ")
    hints = [more.strip("() ")] if more else []
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hints.append(f"`{error.ctx.command_path} --help` shows what there is.")
    return Diagnostic(summary[:1].lower() + summary[1:].rstrip("."), hint=" ".join(hints))


def _show(findings: list[Diagnostic], code: ExitCode, arguments: Sequence[str]) -> int:
    if _asked_for("--json", arguments):
        from llmctl.plan.planfile import diagnostic_json

        errors = [diagnostic_json(finding) for finding in findings]
        click.echo(json.dumps({"format": 1, "errors": errors, "exit_code": int(code)}, indent=2))
    else:
        from llmctl.cli.views.diagnostics import render

        # The command's context, which knows of --no-color, is gone by now.
        click.echo(render(findings), err=True, color=False if _asked_for("--no-color", arguments) else None)
    return int(code)


def _asked_for(flag: str, arguments: Sequence[str]) -> bool:
    """Whether a flag was given, on the command line or by its environment variable."""
    name = flag.removeprefix("--").upper().replace("-", "_")
    said = os.environ.get(f"LLMCTL_{name}", "").lower() not in ("", "0", "false", "no", "off", "f", "n")
    return flag in arguments or said or (name == "NO_COLOR" and bool(os.environ.get(name)))
