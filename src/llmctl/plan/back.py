"""Back to an earlier entry of the record: what it declared, and the renames that lead there."""

from __future__ import annotations

from dataclasses import replace

from llmctl.core.address import Address
from llmctl.core.resources import Desired, Environment, Recorded, RecordState, Resource
from llmctl.plan.changes import by_name
from llmctl.plan.moves import Pair


def back_to(then: RecordState, now: RecordState, environment: Environment, root: str) -> Desired:
    """What the record declared ``then``, with the renames that undo those made since.

    A route still answers to all names that it has now, unless another route then had one.
    """
    resources = {a: Resource(a, was.spec, was.revision, was.needs) for a, was in then.resources.items()}
    moves = undone(then, now)
    names = {before: here for here, before in moves}
    routes = {a: was for a, was in then.resources.items() if a.kind == "route"}
    taken = {name for a, was in routes.items() for name in (a.name, *_aliases(was))}
    for address, was in routes.items():
        here = names.get(address, address)
        kept = {here.name, *_aliases(now.resources[here])} - taken if here in now.resources else set()
        if kept:
            aliases = sorted({*_aliases(was), *kept})
            resources[address] = replace(resources[address], spec={**was.spec, "aliases": aliases})
    return Desired(now.project, environment, resources, root, moves)


def undone(then: RecordState, now: RecordState) -> tuple[Pair, ...]:
    """The pairs (name now, name then) of what got another name between two entries, sorted by the name then.

    It is told by the history, which a rename takes along and which only ever grows: all revisions that a name
    which is gone had, in their order, under a name that was not there. A route that has the old name as an alias
    comes first, then the longest history, which fits the fewest; of several that fit, the one that grew least.
    """
    free: dict[tuple[str, str], list[Address]] = {}  # by kind and first revision, that which grew least first
    new = (a for a, r in now.resources.items() if a not in then.resources and r.revisions)
    for address in sorted(new, key=lambda a: (len(now.resources[a].revisions), by_name(a))):
        free.setdefault((address.kind, now.resources[address].revisions[0]), []).append(address)
    gone = [a for a, was in then.resources.items() if a not in now.resources and was.revisions]
    gone.sort(key=lambda a: (-len(then.resources[a].revisions), by_name(a)))
    found: dict[Address, Address] = {}
    for by_alias in (True, False):
        for before in (a for a in gone if a not in found):
            was = then.resources[before]
            left = free.get((before.kind, was.revisions[0]), [])
            fitting = (a for a in left if not by_alias or before.name in _aliases(now.resources[a]))
            here = next((a for a in fitting if _goes_on(was, now.resources[a])), None)
            if here is not None:
                left.remove(here)
                found[before] = here
    return tuple((found[before], before) for before in sorted(found, key=by_name))


def _goes_on(was: Recorded, there: Recorded) -> bool:
    """Whether the history of one is the beginning of the other's."""
    return there.revisions[: len(was.revisions)] == was.revisions


def _aliases(resource: Recorded) -> tuple[str, ...]:
    return tuple(resource.spec.get("aliases") or ()) if resource.address.kind == "route" else ()
