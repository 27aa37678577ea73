"""Change: desired against recorded, one resource at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.kinds import Role, kind_of
from llmctl.core.resources import Desired, Key, Recorded, RecordState, Resource, Spec
from llmctl.core.steps import Action
from llmctl.live import LiveState
from llmctl.plan.diff import field_diffs
from llmctl.plan.model import ResourceChange
from llmctl.plan.moves import Pair, renamed, with_new_names
from llmctl.plan.routes import differences, route_revision


def next_version(recorded: Recorded | None, revision: str) -> int:
    """The number a revision has or will get; content that comes back gets its old number."""
    known = recorded.revisions if recorded else ()
    return known.index(revision) + 1 if revision in known else len(known) + 1


def by_name(address: Address) -> tuple[str, str]:
    """The order of addresses, as a key: comparing addresses themselves is slow for thousands."""
    return address.kind, address.name


def same(want: Resource, was: Recorded) -> bool:
    """Whether nothing of a resource differs from the record."""
    return want.revision == was.revision and want.spec == was.spec and want.needs == was.needs


def half_way(was: Recorded, recorded: RecordState) -> bool:
    """Whether a route is recorded with other operating fields of an endpoint than that endpoint is.

    An apply that ended between the two left that. What the gateway was told is then known from neither.
    """
    for link in was.spec["chain"] if was.address.kind == "route" else ():
        used = recorded.resources.get(Address("endpoint", link["endpoint"]))
        if used is not None and used.revision == link["revision"] and used.spec != link["spec"]:
            return True
    return False


def scaled(address: Address, revision: str, spec: Spec, live: LiveState | None) -> bool:
    """Whether an endpoint, or one that a route uses, runs with other replicas than its recorded ``spec`` says.

    An apply that ended before it was recorded left that; what the file asks for may be what is recorded still.
    """
    if live is None or address.kind not in ("endpoint", "route"):
        return False
    links = [(address.name, revision, spec)] if address.kind == "endpoint" else _links(spec)
    found = ((live.find("endpoint", Key(name, used)), what) for name, used, what in links)
    return any(there and there.healthy and there.state.get("replicas") != what.get("replicas") for there, what in found)


def _links(spec: Spec) -> list[tuple[str, str, Spec]]:
    return [(link["endpoint"], link["revision"], link["spec"]) for link in spec["chain"]]


def changes(
    desired: Desired,
    recorded: RecordState,
    live: LiveState | None,
    *,
    moves: Sequence[Pair] = (),
    gone: str = "no longer declared",
) -> list[ResourceChange]:
    """Every resource that differs from the record, sorted by address; ``gone`` is why one is to be deleted.

    ``moves`` are the renames that are made: each compares with what is recorded under the old name.
    """
    compared = _Compared(renamed(recorded, moves), live, moves, gone)
    found = []
    for address, want in desired.resources.items():
        was = compared.recorded.resources.get(address)
        if was is None or address in compared.origins or not same(want, was) or compared.left_half_way(was):
            found.append(_change(want, was, compared))
    for address, was in compared.recorded.resources.items():
        if address not in desired.resources:
            found.append(_deletion(address, was, compared))
    return sorted(found, key=lambda change: by_name(change.address))


@dataclass
class _Compared:
    """What every comparison needs; the record has the new names already."""

    recorded: RecordState
    live: LiveState | None
    moves: Sequence[Pair]
    gone: str
    origins: dict[Address, Address] = field(init=False)

    def __post_init__(self) -> None:
        self.origins = {new: old for old, new in self.moves}

    def left_half_way(self, was: Recorded) -> bool:
        """Whether an apply that did not get to its end left a resource otherwise than it is recorded."""
        return half_way(was, self.recorded) or scaled(was.address, was.revision, was.spec, self.live)


def _deletion(address: Address, was: Recorded, compared: _Compared) -> ResourceChange:
    new = next((new for old, new in compared.moves if old == address), None)
    reason = f"renamed to {new}; goes when nothing uses it any more" if new else compared.gone
    return ResourceChange(address, Action.DELETE, reason, was.revision, "", version_before=was.version)


def _change(want: Resource, was: Recorded | None, compared: _Compared) -> ResourceChange:
    address = want.address
    origin = compared.origins.get(address)
    history = was
    diffs = field_diffs(address.kind, was.spec if was else None, want.spec)
    if was is None:
        action, reason = _creation(want, compared.live)
        if origin is not None:
            history = compared.recorded.resources[origin]
            reason = f"renamed from {origin}: runs beside it until everything uses the new one"
    else:
        before = with_new_names(address, was.spec, compared.moves)
        if not _same_serving(want, before) or (want.revision != was.revision and before == was.spec):
            action, reason = _new_revision(want, was, before, compared)
        elif want.spec == before:
            action, reason = _followed(was, compared, origin)
        else:
            what = "changed in place" if diffs else "what it uses changes in place"
            action, reason = Action.UPDATE, f"{what}; the revision stays"
        if origin is not None:
            reason = f"renamed from {origin}" + ("" if action is Action.MOVE else f"; {reason}")
    return ResourceChange(
        address,
        action,
        reason,
        before=was.revision if was else "",
        after=want.revision,
        version_before=was.version if was else 0,
        version_after=next_version(history, want.revision),
        diffs=diffs,
        moved_from=origin,
    )


def _same_serving(want: Resource, before: dict[str, object]) -> bool:
    return all(want.spec.get(f) == before.get(f) for f in kind_of(want.address.kind).serving)


def _followed(was: Recorded, compared: _Compared, origin: Address | None) -> tuple[Action, str]:
    """Nothing differs but names: its own, or those of what it needs."""
    if origin is not None:
        return Action.MOVE, ""
    if scaled(was.address, was.revision, was.spec, compared.live):
        return Action.UPDATE, "runs with other replicas than is recorded"
    return Action.UPDATE, _renames(was, compared) or "what it needs is declared otherwise"


def _renames(was: Recorded, compared: _Compared) -> str:
    """The renames that a resource follows, "" when there are none."""
    told = [
        f"{old} to {new}"
        for old, new in compared.moves
        if new != was.address and (old in was.needs or with_new_names(was.address, was.spec, [(old, new)]) != was.spec)
    ]
    return f"follows the rename of {', '.join(sorted(told))}" if told else ""


def _creation(want: Resource, live: LiveState | None) -> tuple[Action, str]:
    if live is not None and (_serves(want, live) if want.address.kind == "route" else _runs(want, live)):
        there = (
            live.find("endpoint", Key(want.address.name, want.revision)) if want.address.kind == "endpoint" else None
        )
        if there is not None and there.state != want.spec:
            return Action.ADOPT, "already live, but not recorded; changed in place"
        return Action.ADOPT, "already live exactly so, but not recorded"
    return Action.CREATE, "newly declared"


def _runs(want: Resource, live: LiveState) -> bool:
    key = Key(want.address.name, "" if kind_of(want.address.kind).role is Role.RESOURCE else want.revision)
    there = live.find(want.address.kind, key)
    return there is not None and there.healthy and there.revision == want.revision


def _serves(want: Resource, live: LiveState) -> bool:
    """Whether every replica of the gateway serves a route exactly so, from endpoints that are exactly so."""
    routes = [config.routes.get(want.address.name) for config in live.gateway.configs.values()]
    if not routes or any(route is None or route.promoted != want.revision for route in routes):
        return False
    outputs = {}
    for link in want.spec["chain"]:
        key = Key(link["endpoint"], link["revision"])
        there = live.find("endpoint", key)
        if there is None or not there.healthy or there.state != link["spec"] or "base_url" not in there.outputs:
            return False
        outputs[key] = there.outputs
    wanted = route_revision(want.spec, want.revision, outputs)
    aliases = want.spec.get("aliases") or ()
    return not any(differences(route, wanted, want.revision, aliases) for route in routes)


def _new_revision(want: Resource, was: Recorded, before: dict[str, Json], compared: _Compared) -> tuple[Action, str]:
    version = next_version(was, want.revision)
    back = ""
    if want.revision in was.revisions:
        back = f"; back to v{version}" if version < was.version else f"; tried before as v{version}"
    kind = kind_of(want.address.kind)
    differ = [f for f in kind.serving if want.spec.get(f) != before.get(f)]
    what = ", ".join(dict.fromkeys(_SAID.get(field, field) for field in differ)) + " changed"
    action = Action.REPLACE if kind.role in (Role.DEPLOYMENT, Role.ROUTE) else Action.UPDATE
    if differ == ["chain_revisions"] and want.spec["chain_revisions"] == _chain_under_new_names(before, compared):
        what = _renames(was, compared) or what
    return action, f"{what if differ else 'this version of llmctl tells its revisions otherwise'}{back}"


def _chain_under_new_names(before: dict[str, Json], compared: _Compared) -> list[str]:
    """A route's chain where only the names of its endpoints are others; such a route gets a new revision yet."""
    new = {old.name: to.name for old, to in compared.moves if old.kind == "endpoint"}
    links = [text.partition("@") for text in before.get("chain_revisions") or ()]
    return [f"{new.get(name, name)}@{revision}" for name, _, revision in links]


#: How a serving field is called when it is the reason of a change.
_SAID = {
    "digest": "content",
    "weights": "weights",
    "model_revision": "model",
    "prompt_revision": "prompt",
    "chain_revisions": "endpoint",
    "dataset_revision": "dataset",
}
