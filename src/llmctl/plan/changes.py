"""Change: desired against recorded, one resource at a time."""

from __future__ import annotations

from llmctl.core.address import Address
from llmctl.core.kinds import Role, kind_of
from llmctl.core.resources import Desired, Key, Recorded, RecordState, Resource
from llmctl.core.steps import Action
from llmctl.live import LiveState
from llmctl.plan.diff import field_diffs
from llmctl.plan.model import ResourceChange


def next_version(recorded: Recorded | None, revision: str) -> int:
    """The number a revision has or will get; content that comes back gets its old number."""
    known = recorded.revisions if recorded else ()
    return known.index(revision) + 1 if revision in known else len(known) + 1


def changes(
    desired: Desired, recorded: RecordState, live: LiveState | None, *, gone: str = "no longer declared"
) -> list[ResourceChange]:
    """Every resource that differs from the record, sorted by address; ``gone`` is why one is to be deleted."""
    found = []
    for address in sorted({*desired.resources, *recorded.resources}):
        want, was = desired.resources.get(address), recorded.resources.get(address)
        change = _change(address, want, was, live, gone)
        if change is not None:
            found.append(change)
    return found


def _change(
    address: Address, want: Resource | None, was: Recorded | None, live: LiveState | None, gone: str
) -> ResourceChange | None:
    if want is None and was is not None:
        return ResourceChange(address, Action.DELETE, gone, was.revision, "", version_before=was.version)
    assert want is not None
    if was is None:
        action, reason = _creation(want, live)
    elif want.revision != was.revision:
        action, reason = _new_revision(want, was)
    elif want.spec != was.spec or want.needs != was.needs:
        action, reason = Action.UPDATE, "changed in place; the revision stays"
    else:
        return None
    return ResourceChange(
        address,
        action,
        reason,
        before=was.revision if was else "",
        after=want.revision,
        version_before=was.version if was else 0,
        version_after=next_version(was, want.revision),
        diffs=field_diffs(address.kind, was.spec if was else None, want.spec),
    )


def _creation(want: Resource, live: LiveState | None) -> tuple[Action, str]:
    there = live.find(want.address.kind, Key(want.address.name, want.revision)) if live else None
    if there is not None and there.healthy:
        return Action.ADOPT, "already live exactly so, but not recorded"
    return Action.CREATE, "newly declared"


def _new_revision(want: Resource, was: Recorded) -> tuple[Action, str]:
    version = next_version(was, want.revision)
    back = ""
    if want.revision in was.revisions:
        back = f"; back to v{version}" if version < was.version else f"; tried before as v{version}"
    moved = [f for f in kind_of(want.address.kind).serving if want.spec.get(f) != was.spec.get(f)]
    what = ", ".join(_SAID.get(field, field) for field in moved) or "kind"
    role = kind_of(want.address.kind).role
    action = Action.REPLACE if role in (Role.DEPLOYMENT, Role.ROUTE) else Action.UPDATE
    return action, f"{what} changed{back}"


#: How a serving field is called when it is the reason of a change.
_SAID = {
    "digest": "content",
    "weights": "weights",
    "model_revision": "model",
    "prompt_revision": "prompt",
    "chain_revisions": "endpoint",
    "dataset_revision": "dataset",
}
