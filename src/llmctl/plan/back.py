"""Back to an earlier entry of the record: what it declared, and the renames that lead there."""

from __future__ import annotations

from dataclasses import replace

from llmctl.core.resources import Desired, Environment, Recorded, RecordState, Resource
from llmctl.plan.changes import by_name
from llmctl.plan.moves import Pair


def back_to(then: RecordState, now: RecordState, environment: Environment, root: str) -> Desired:
    """What the record declared ``then``, with the renames that undo those made since.

    A route that gets its old name back still answers to the names that it has now, unless another route then had one.
    """
    resources = {a: Resource(a, was.spec, was.revision, was.needs) for a, was in then.resources.items()}
    moves = undone(then, now)
    taken = {name for a, was in then.resources.items() if a.kind == "route" for name in (a.name, *_aliases(was))}
    for here, before in moves:
        if here.kind == "route":
            kept = {here.name, *_aliases(now.resources[here])} - taken
            was = resources[before]
            aliases = sorted({*_aliases(then.resources[before]), *kept})
            resources[before] = replace(was, spec={**was.spec, "aliases": aliases})
    return Desired(now.project, environment, resources, root, moves)


def undone(then: RecordState, now: RecordState) -> tuple[Pair, ...]:
    """The pairs (name now, name then) of what got another name between two entries, sorted.

    It is told by the history, which a rename takes along and which only ever grows: all revisions that a name
    which is gone had, in their order, under a name that was not there. Of several a route goes by its aliases; else
    they have the same content, and any of them may take the name.
    """
    free = sorted((a for a in now.resources if a not in then.resources), key=by_name)
    found = []
    for before in sorted((a for a in then.resources if a not in now.resources), key=by_name):
        fitting = [a for a in free if a.kind == before.kind and _goes_on(then.resources[before], now.resources[a])]
        known_so = [a for a in fitting if before.name in _aliases(now.resources[a])]
        for here in (known_so or fitting)[:1]:
            free.remove(here)
            found.append((here, before))
    return tuple(found)


def _goes_on(was: Recorded, there: Recorded) -> bool:
    """Whether the history of one is the beginning of the other's."""
    return bool(was.revisions) and there.revisions[: len(was.revisions)] == was.revisions


def _aliases(resource: Recorded) -> tuple[str, ...]:
    return tuple(resource.spec.get("aliases") or ()) if resource.address.kind == "route" else ()
