"""Which entry a rollback goes back to when none is named, and which of what it rejected is meant."""

from __future__ import annotations

from collections.abc import Sequence

from llmctl.app.workspace import Workspace
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.core.resources import Desired, RecordState, Rejection
from llmctl.plan import back_to, undone

#: Stands for the serial of ``last_good``, which is known only under the lock: an interrupted apply is closed first.
LAST_GOOD = 0


def last_good(workspace: Workspace) -> int:
    """The serial to go back to when none is named: the newest good entry whose routes are others than now.

    Entries that declare no route, and those whose routes were rejected, are passed over; a route that only got
    another name since is no other. Raises ``InvalidInput`` when there is none.
    """
    now = workspace.recorded()
    if not now.serial:
        raise InvalidInput([Diagnostic("nothing is applied yet in this environment", hint="Run `llmctl apply` first.")])
    rejected = {(r.address, r.revision) for r in now.rejections}
    serving = _routes(now)
    for entry in workspace.reader.entries():
        if entry.outcome in ("applied", "rolled back") and entry.action in ("apply", "rollback"):
            then = workspace.reader.state_at(entry.serial)
            names = {before: here for here, before in undone(then, now)}
            routes = {names.get(a, a): revision for a, revision in _routes(then).items()}
            if routes and routes != serving and rejected.isdisjoint(routes.items()):
                return entry.serial
    raise InvalidInput(
        [
            Diagnostic(
                "there is no earlier good entry with other routes to go back to",
                hint="`llmctl audit log` lists what is recorded; name one with --to SERIAL.",
            )
        ]
    )


def desired_at(workspace: Workspace, serial: int) -> Desired:
    """What an earlier entry of the record declared, with the renames that lead back there.

    Raises ``InvalidInput`` for an entry that was interrupted and recorded a part of what it meant to do.
    """
    entry = workspace.reader.entry(serial).entry
    if entry.outcome == "interrupted" and entry.resources:
        summary = f"serial {serial} was interrupted half-way: what it recorded was never declared like that"
        hint = "Go back to one that was applied: `llmctl audit log --outcome applied` lists them."
        raise InvalidInput([Diagnostic(summary, hint=hint)])
    then, now = workspace.reader.state_at(serial), workspace.recorded()
    return back_to(then, now, workspace.environment, str(workspace.root))


def find_rejection(rejections: Sequence[Rejection], text: str) -> Rejection:
    """The one that a revision's first digits name, after its route where several have them: ``support@3fa9``.

    Raises ``InvalidInput`` when it is not exactly one.
    """
    route, _, prefix = text.rpartition("@")
    found = [
        r
        for r in rejections
        if prefix and r.revision.startswith(prefix) and route in ("", r.address.name, str(r.address))
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{r.address}@{r.revision[:8]}" for r in rejections) or "none"
    what = "is not rejected" if not found else "names several rejected revisions; put the route before it"
    raise InvalidInput([Diagnostic(f"{text!r} {what}", hint=f"Rejected: {known}.")])


def _routes(state: RecordState) -> dict[Address, str]:
    return {a: r.revision for a, r in state.resources.items() if a.kind == "route"}
