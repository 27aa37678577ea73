"""Options that many commands share."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llmctl.cli.completing import addresses, environments

if TYPE_CHECKING:
    from llmctl.app.workspace import Workspace

F = TypeVar("F", bound=Callable[..., Any])


def _no_color(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    # https://no-color.org: whatever it is set to, but not when it is empty; so it is no flag's value.
    if value or os.environ.get("NO_COLOR"):
        ctx.color = False


_no_color_option = click.option(
    "--no-color",
    is_flag=True,
    envvar="LLMCTL_NO_COLOR",
    expose_value=False,
    callback=_no_color,
    help="Plain text, also on a terminal.",
)

_environment_option = click.option(
    "-e",
    "--env",
    "environment",
    metavar="ENV",
    envvar="LLMCTL_ENV",
    shell_complete=environments,
    help="Environment; needed when the file has several.",
)

_file_option = click.option(
    "-f",
    "--file",
    metavar="FILE",
    type=click.Path(),
    envvar="LLMCTL_FILE",
    help="The file; default: llmops.yaml here or in a parent folder.",
)


def project_options(function: F) -> F:
    """``-f FILE``, ``-e ENV``, ``--no-color``."""
    return _file_option(_environment_option(_no_color_option(function)))


def file_options(function: F) -> F:
    """``-f FILE``, ``--no-color``: for a command whose arguments name the environments."""
    return _file_option(_no_color_option(function))


def choosing(file: str | None, workspace: Workspace) -> str:
    """The options with which a command that is named to the user means the same file and environment."""
    options = ["-f", shlex.quote(file)] if file else []
    options += ["-e", workspace.environment.name] if len(workspace.document.environments) > 1 else []
    return "".join(f" {option}" for option in options)


def json_option(function: F) -> F:
    """``--json``: the same for programs, on stdout."""
    return click.option("--json", "as_json", is_flag=True, envvar="LLMCTL_JSON", help="JSON for programs.")(function)


yes_option = click.option("-y", "--yes", is_flag=True, envvar="LLMCTL_YES", help="Do not ask.")

target_option = click.option(
    "--target",
    "targets",
    metavar="ADDRESS",
    multiple=True,
    shell_complete=addresses,
    help="Only this resource and what it needs; may be repeated.",
)

from_record_option = click.option(
    "--from-record",
    "from_record",
    metavar="PLACE",
    envvar="LLMCTL_PROMOTE_RECORD",
    default="",
    help="Where the record of the environment before is: another clone, a git URL, a bundle.",
)

untrusted_option = click.option(
    "--untrusted",
    is_flag=True,
    envvar="LLMCTL_UNTRUSTED",
    help="The file is a stranger's: no variables, no plug-ins, only what git tracks.",
)

signers_option = click.option(
    "--allowed-signers",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="LLMCTL_ALLOWED_SIGNERS",
    help="Whose approvals count; default: git's gpg.ssh.allowedSignersFile.",
)

break_glass_option = click.option(
    "--break-glass",
    metavar="REASON",
    help="An emergency: skip approvals and, where policy lets it, gates; it stays open until put right.",
)

out_option = click.option(
    "--out",
    metavar="PATH",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Save what would be done, for `llmctl approve`, and do nothing.",
)
