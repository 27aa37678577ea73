"""What a plan may change: the targets it was asked for, and nothing that hangs on what cannot be read.

What is outside is *held*: it counts as desired exactly as it is recorded, so that nothing it uses goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.kinds import Role, kind_of
from llmctl.core.resources import Desired, Key, Recorded, RecordState, Resource
from llmctl.graph import dependents, users_of
from llmctl.live import LiveState
from llmctl.plan.changes import by_name
from llmctl.plan.model import ResourceChange
from llmctl.plan.moves import Pair
from llmctl.plan.routes import chain_keys, endpoint_keys

_NONE: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """What is held, and why. ``desired`` is what this plan makes true; ``moves`` are the renames that it makes."""

    desired: Desired
    moves: tuple[Pair, ...]
    held: frozenset[Address] = frozenset()
    included: frozenset[Address] | None = None  # what the targets bring; None without targets
    waiting: frozenset[Address] = frozenset()  # of these, held because something cannot be read, changing or not
    blocked: tuple[Diagnostic, ...] = ()


def find_scope(
    desired: Desired,
    recorded: RecordState,
    live: LiveState | None,
    changes: Sequence[ResourceChange],
    moves: tuple[Pair, ...],
    targets: Iterable[Address],
) -> Scope:
    """``changes`` are all that there would be; ``live`` is None where nothing was read or reading does not matter."""
    unreadable = _unreadable(desired, recorded, live) if live and not live.is_readable else {}
    wanted = frozenset(targets)
    if not unreadable and not wanted:
        return Scope(replace(desired, moved=moves), moves)
    relations = _Relations(desired, recorded, changes, moves)
    everything = frozenset({*desired.resources, *recorded.resources})
    included = frozenset(relations.included(wanted)) if wanted else everything
    reached = dependents(relations.needs, included) | included
    blocked = {address: reason for address, reason in unreadable.items() if address in reached}
    waiting = frozenset(relations.waiting(blocked))
    held = waiting | (everything - included)
    kept = tuple(pair for pair in moves if held.isdisjoint(pair))
    resources = {a: r for a, r in desired.resources.items() if a not in held}
    for address in held:
        was = recorded.resources.get(address)
        if was is not None:
            resources[address] = Resource(address, was.spec, was.revision, was.needs)
    ordered = {a: resources[a] for a in sorted(resources, key=by_name)}
    return Scope(
        replace(desired, resources=ordered, moved=kept),
        kept,
        held,
        included if wanted else None,
        waiting & included,
        tuple(blocked[address] for address in sorted(blocked, key=by_name)),
    )


def _unreadable(desired: Desired, recorded: RecordState, live: LiveState) -> dict[Address, Diagnostic]:
    """Why a resource cannot be told apart from an absent one, by address."""
    found: dict[Address, Diagnostic] = {}
    troubled = {kind for kind, reading in live.readings.items() if reading.unreadable}
    if live.gateway.unreadable:
        troubled.add("route")
    for address, key in _keys(desired, recorded, troubled):
        reason = live.unreadable(address.kind, key)
        if reason is not None and address not in found:
            found[address] = replace(reason, address=address, summary=f"cannot be read: {reason.summary}")
    return found


def _keys(desired: Desired, recorded: RecordState, kinds: set[str]) -> Iterator[tuple[Address, Key]]:
    """Under which keys resources of these kinds are live, or will be."""
    states: tuple[Mapping[Address, Resource] | Mapping[Address, Recorded], ...] = (
        recorded.resources,
        desired.resources,
    )
    for state in states:
        for address, resource in state.items():
            if address.kind in kinds:
                single = kind_of(address.kind).role is Role.RESOURCE
                yield address, Key(address.name, "" if single else resource.revision)
            if address.kind == "route" and "endpoint" in kinds:
                yield from ((Address("endpoint", key.name), key) for key in chain_keys(resource.spec))


class _Relations:
    """What needs what, as desired and as recorded, and what must be held or brought along together."""

    def __init__(
        self, desired: Desired, recorded: RecordState, changes: Sequence[ResourceChange], moves: tuple[Pair, ...]
    ) -> None:
        self.desired, self.recorded = desired.resources, recorded.resources
        self.needs: dict[Address, list[Address]] = {}
        for state in (self.desired, self.recorded):
            for address, resource in state.items():
                self.needs.setdefault(address, []).extend(resource.needs)
        self.users = users_of(self.needs)
        self.partner = {**dict(moves), **{new: old for old, new in moves}}
        self.gates: dict[Address, list[Address]] = {}  # by route
        for address, resource in self.desired.items():
            if address.kind == "gate":
                self.gates.setdefault(Address("route", resource.spec["route"]), []).append(address)
        self._leaving = {a for a in self.recorded if a not in self.desired}
        running = endpoint_keys(self.recorded)  # also a revision that an endpoint had before, and routes still run on
        self._in_place = {
            c.address for c in changes if c.address.kind == "endpoint" and Key(c.address.name, c.after) in running
        }
        self._proven_anew = {
            c.address for c in changes if c.address.kind == "route" and c.after and c.before != c.after
        }

    def included(self, targets: Iterable[Address]) -> set[Address]:
        """The targets and what they need; what leaves brings those along that must stop using it first.

        A route brings the gates that prove it, and a gate the route that it would prove anew, or would as it is
        recorded: otherwise that route could be proven by the weaker gate alone later. An endpoint that changes in
        place brings its routes, because the gateway must hear of its addresses.
        """
        found: set[Address] = set()
        waiting = list(targets)
        while waiting:
            address = waiting.pop()
            if address in found:
                continue
            found.add(address)
            waiting += self._together(address)
            waiting += self.desired[address].needs if address in self.desired else _NONE
            waiting += self.gates.get(address, _NONE)
            if address in self._leaving or address in self._in_place:
                waiting += self.users.get(address, _NONE)
        return found & (self.desired.keys() | self.recorded.keys())

    def waiting(self, blocked: Iterable[Address]) -> set[Address]:
        """What is blocked, what depends on it, and what they must find as it is recorded."""
        depends: set[Address] = set()
        kept: set[Address] = set()  # stays for the sake of others; what used it may go on without it
        waiting = [(address, True) for address in blocked]
        while waiting:
            address, strong = waiting.pop()
            if address in depends or (address in kept and not strong):
                continue
            (depends if strong else kept).add(address)
            waiting += [(address, strong) for address in self._together(address)]
            if strong:
                waiting += [(user, True) for user in self.users.get(address, _NONE)]
            waiting += [(need, need not in self._leaving or need in self.partner) for need in self._must_stay(address)]
        return depends | kept

    def _together(self, address: Address) -> Iterator[Address]:
        if address in self.partner:
            yield self.partner[address]
        for state in (self.desired, self.recorded):
            if address.kind == "gate" and address in state:
                route = Address("route", state[address].spec["route"])
                route = self.partner.get(route, route) if route not in self.desired else route
                if route in self._proven_anew:
                    yield route  # it must not serve without the proof that this gate would give

    def _must_stay(self, address: Address) -> Iterator[Address]:
        """What a held resource uses as recorded, and would find gone or changed in place."""
        was = self.recorded.get(address)
        for need in was.needs if was else _NONE:
            if need in self._leaving or need in self._in_place:
                yield need


def restorable(scope: Scope, recorded: RecordState) -> frozenset[Address] | None:
    """Of what drift is brought back: what is not held, and what the recorded routes and endpoints among it run on.

    None when nothing is held, so that everything is.
    """
    if not scope.held:
        return None
    free = {address for address in recorded.resources if address not in scope.held}
    running = {address for address in free if address.kind in ("route", "endpoint")}
    needs = {address: was.needs for address, was in recorded.resources.items()}
    return frozenset(free | (dependents(needs, running) - scope.waiting))


def left_out(scope: Scope, addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Of these, what is held because it is not among the targets, sorted."""
    if scope.included is None:
        return ()
    return tuple(sorted({a for a in addresses if a not in scope.included}, key=by_name))
