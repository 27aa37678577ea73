"""Renames: which are still to be made, and the record as it looks once they are.

Artifacts, routes and rules keep their identity under a new name. What runs does so under its own name:
there a rename makes the new one beside the old one, with the old one's history, and takes the old one away
when nothing uses it any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.kinds import Role, kind_of
from llmctl.core.resources import Desired, Recorded, RecordState, Spec
from llmctl.plan.model import Plan

Pair = tuple[Address, Address]  # from, to

#: By kind: the fields of its spec that name a resource, and of which kind.
_NAMES: dict[str, dict[str, str]] = {
    "endpoint": {"model": "model"},
    "route": {"prompt": "prompt"},
    "gate": {"route": "route", "dataset": "dataset"},
}


def applicable(desired: Desired, known: Collection[Address]) -> tuple[Pair, ...]:
    """The declared renames that are still to be made: of what is ``known`` to what is declared and not known.

    A chain of renames is followed to its end, so that a name which was skipped here does not matter.
    """
    follows = dict(desired.moved)
    found = []
    for old in follows:
        new = follows[old]
        while new in follows and new not in known:
            new = follows[new]
        if old in known and new not in known and new in desired.resources and old not in desired.resources:
            found.append((old, new))
    return tuple(found)


def runs_by_name(address: Address) -> bool:
    """Whether a rename makes a new one beside the old one: processes, and the live things of plug-ins."""
    return kind_of(address.kind).role in (Role.DEPLOYMENT, Role.RESOURCE)


def in_place(moves: Iterable[Pair]) -> dict[Address, Address]:
    """From old to new address, of the renames that keep the resource as it is."""
    return {old: new for old, new in moves if not runs_by_name(old)}


def renamed(recorded: RecordState, moves: Iterable[Pair]) -> RecordState:
    """The record with the new addresses in place of the old ones; specs, and what runs, are as before."""
    pairs = in_place(moves)
    if not pairs:
        return recorded
    resources = {
        pairs.get(address, address): replace(was, address=pairs[address]) if address in pairs else was
        for address, was in recorded.resources.items()
    }
    return replace(recorded, resources=resources)


def with_new_names(address: Address, spec: Spec, moves: Iterable[Pair]) -> Spec:
    """A recorded spec as it reads after the renames: what it refers to, and the aliases of a route that moved.

    ``address`` is the new one.
    """
    pairs = in_place(moves)
    if not pairs:
        return spec
    found = _referring(address.kind, spec, pairs)
    if address.kind == "route":
        links: list[dict[str, Json]] = spec["chain"]
        found["chain"] = [{**link, "spec": _referring("endpoint", link["spec"], pairs)} for link in links]
        before = [old.name for old, new in pairs.items() if new == address]
        if before:
            found["aliases"] = sorted({*(spec.get("aliases") or ()), *before} - {address.name})
    return found


def _referring(kind: str, spec: Spec, pairs: Mapping[Address, Address]) -> Spec:
    found = dict(spec)
    for field, named in _NAMES.get(kind, {}).items():
        new = pairs.get(Address(named, str(spec.get(field))))
        if new is not None:
            found[field] = new.name
    return found


def as_recorded(plan: Plan, address: Address) -> Recorded | None:
    """What the record says of a resource, under the name that it had before this plan moves it."""
    origin = next((old for old, new in plan.desired.moved if new == address), address)
    return plan.recorded.resources.get(address) or plan.recorded.resources.get(origin)
