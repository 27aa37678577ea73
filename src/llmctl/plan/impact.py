"""The blast radius: what a changed resource sets in motion, in one sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llmctl.core.address import Address
from llmctl.core.kinds import Role, kind_of
from llmctl.core.steps import Action, Promote, Provision, RunGate, Shift, Step
from llmctl.graph import dependents, users_of
from llmctl.plan.model import ResourceChange
from llmctl.plan.steps import Builder


def blast_radius(b: Builder, steps: Sequence[Step]) -> tuple[str, ...]:
    """One line for each changed resource that others need, each rename, each canary, each endpoint that runs twice."""
    changed = list(b.changes.values())
    return (
        *_chains(b, changed, steps),
        *_renames(b, changed),
        *_canaries(steps),
        *_twice(steps),
    )


def _chains(b: Builder, changed: list[ResourceChange], steps: Iterable[Step]) -> Iterator[str]:
    moved = {c.address for c in changed if c.before != c.after}
    causes = [
        c
        for c in changed
        if c.action in (Action.UPDATE, Action.REPLACE)
        and c.before != c.after
        # a consequence itself is named in the line of its cause
        and moved.isdisjoint(b.desired.resources[c.address].needs)
    ]
    if not causes:
        return
    users = users_of({address: resource.needs for address, resource in b.desired.resources.items()})
    done = tuple(steps)
    rolled = {s.address for s in done if isinstance(s, Promote) and s.action is not Action.RESTORE}
    proven = {(s.address, s.route) for s in done if isinstance(s, RunGate)}
    for change in causes:
        touched = dependents(users, [change.address])
        consequences = [*_consequences(sorted(touched - b.held), moved, rolled, proven)]
        consequences += [
            f"{route} stays as it is recorded" for route in sorted(touched & b.held) if route.kind == "route"
        ]
        if consequences:
            yield f"{change.address} changed: {'; '.join(consequences)}"


def _consequences(
    touched: list[Address], moved: set[Address], rolled: set[Address], proven: set[tuple[Address, Address]]
) -> Iterator[str]:
    for address in touched:
        if address.kind == "gate" and any(gate == address for gate, _ in proven):
            yield f"{address} runs"
        elif address in moved and kind_of(address.kind).role in (Role.DEPLOYMENT, Role.RESOURCE):
            yield f"{address} gets a new revision"
        elif address.kind == "route":
            yield f"{address} rolls out a new revision" if address in rolled else f"{address} unaffected"
    untouched = {route for gate, route in proven if gate in touched} - rolled - set(touched)
    for route in sorted(untouched):
        yield f"{route} unaffected"


def _renames(b: Builder, changed: list[ResourceChange]) -> Iterator[str]:
    for change in changed:
        if change.moved_from is None:
            continue
        renamed = f"{change.moved_from} becomes {change.address}"
        if change.address.kind == "route":
            aliases = b.desired.resources[change.address].spec.get("aliases") or ()
            stays = " without an outage, and still answers to its old name" if change.moved_from.name in aliases else ""
            yield f"{renamed}{stays}"
        elif change.action is Action.MOVE:
            yield f"{renamed}: nothing else of it changes"
        elif change.address.kind == "endpoint":
            yield f"{renamed}: both run until every route uses the new one"
        else:
            yield renamed


def _canaries(steps: Iterable[Step]) -> Iterator[str]:
    shifts: dict[Address, list[Shift]] = {}
    for step in steps:
        if isinstance(step, Shift):
            shifts.setdefault(step.address, []).append(step)
    for address, found in shifts.items():
        if len(found) > 1:
            percents = " → ".join(str(dict(step.weights)[step.revision]) for step in found)
            hold = found[0].hold_s
            yield f"{address} shifts {percents} %" + (f", {hold:g} s each" if hold else "")


def _twice(steps: Iterable[Step]) -> Iterator[str]:
    for step in steps:
        if isinstance(step, Provision) and step.address.kind == "endpoint" and step.action is Action.REPLACE:
            yield f"{step.address} runs twice during the rollout, the new revision beside the old one"
