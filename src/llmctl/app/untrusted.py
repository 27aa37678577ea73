"""A stranger's project: what it says is planned and checked, and it gets to see nothing that it did not bring.

A pull request from a fork runs on a machine that may hold more than it: variables, logins, files of other projects. So
its file reads no variable and only files that git tracks (``spec.tracked``), kinds of other packages are not loaded,
no remote and nothing that runs is asked, and nothing is kept for later commands.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from llmctl import record, spec
from llmctl.app.workspace import Workspace
from llmctl.core import plugins
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.errors import InvalidInput
from llmctl.core.kinds import BY_NAME
from llmctl.core.resources import Desired, RecordState, Resource
from llmctl.spec.tracked import Tracked

VARIABLE = "LLMCTL_UNTRUSTED"


def load_untrusted(file: str | None) -> spec.Document:
    """Find and read a stranger's ``llmops.yaml``. Raises ``InvalidInput``, and ``RecordError`` without git.

    From then on this process loads no kind of another package.
    """
    plugins.leave_out()
    path = spec.find_file(file, Path.cwd())
    return spec.load(path, tracked_around(path))


def open_untrusted(file: str | None, environment: str | None) -> Workspace:
    """The same with the environment chosen; raises ``InvalidInput``."""
    document = load_untrusted(file)
    name = spec.environment_name(document, environment)
    # Whatever the file says of a remote: none is asked.
    declared = replace(document.environments[name], record_remote="")
    return Workspace(document, declared)


def tracked_around(path: Path) -> Tracked:
    """What git tracks in the work tree that a file lies in. Raises ``InvalidInput`` where there is none.

    The work tree is looked for by the path as it is written: a folder of the project may be a link to elsewhere.
    """
    folder = Path(os.path.abspath(path)).parent
    for candidate in (folder, *folder.parents):
        if not candidate.is_symlink() and os.path.lexists(candidate / ".git"):
            top = Path(os.path.realpath(candidate))
            listed = record.open_repository(top).git.run("ls-files", "-z", "--cached", "--full-name")
            names = listed.decode(errors="surrogateescape").split("\0")
            return Tracked(top, frozenset(filter(None, names)))
    summary = f"{path} is in no git work tree, and under --untrusted only what git tracks is read"
    raise InvalidInput([Diagnostic(summary, hint="Name the file by its real path, in a clone.")])


def refuse_where_trusted(command: str) -> None:
    """Raise ``InvalidInput`` for a command that trusts its file, where the environment says that it may not."""
    if os.environ.get(VARIABLE, "").lower() not in ("", "0", "false", "no", "off", "f", "n"):
        hint = f"Only `plan` and `validate` have --untrusted; unset {VARIABLE} to apply what you trust."
        raise InvalidInput([Diagnostic(f"{VARIABLE} is set, and `llmctl {command}` trusts its file", hint=hint)])


def as_far_as_told(
    desired: Desired, recorded: RecordState, unknown: Iterable[Address]
) -> tuple[Desired, tuple[Diagnostic, ...]]:
    """What a sealed file asks for, with what it leaves open as it is recorded; and a warning for each of those."""
    resources = dict(desired.resources)
    left = list(unknown)
    left += _without_what_they_need(resources, left, recorded)
    notes = []
    for address in left:
        was = recorded.resources.get(address)
        shown = "as it is recorded" if was else "not at all"
        summary = f"{address} cannot be told without what --untrusted does not read; it is planned {shown}"
        notes.append(Diagnostic(summary, Severity.WARNING, address=address))
    return replace(desired, resources=resources), tuple(notes)


def _without_what_they_need(
    resources: dict[Address, Resource], left: Iterable[Address], recorded: RecordState
) -> list[Address]:
    """Put into ``resources`` what is left open as it is recorded, with all that it needs; take out, and return, what
    needs something that is neither declared nor recorded."""
    waiting = list(left)
    while waiting:
        address = waiting.pop()
        was = recorded.resources.get(address)
        if was is not None and address not in resources:
            resources[address] = Resource(address, was.spec, was.revision, was.needs)
            waiting += was.needs
    gone: list[Address] = []
    while lost := [a for a, r in resources.items() if any(need not in resources for need in r.needs)]:
        gone += lost
        for address in lost:
            del resources[address]
    return sorted(gone)


def of_built_in_kinds(state: RecordState) -> RecordState:
    """A record without the resources of kinds that other packages add, and without the policies that judge them."""
    kept = {
        address: was
        for address, was in state.resources.items()
        if address.kind in BY_NAME and (address.kind != "policy" or was.spec["applies_to"] in (*BY_NAME, "plan"))
    }
    return replace(state, resources=kept)
