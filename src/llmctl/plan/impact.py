"""The blast radius: what a changed resource sets in motion, in one sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llmctl.core.address import Address
from llmctl.core.resources import Desired
from llmctl.core.steps import Action, Promote, Provision, RunGate, Step
from llmctl.graph import dependents, users_of
from llmctl.plan.model import ResourceChange


def blast_radius(desired: Desired, changes: Iterable[ResourceChange], steps: Iterable[Step]) -> tuple[str, ...]:
    """One line for each changed resource that others need, and one for each endpoint that runs twice."""
    all_steps, changed = tuple(steps), list(changes)
    moved = {c.address for c in changed if c.before != c.after}
    needs = {address: resource.needs for address, resource in desired.resources.items()}
    users = users_of(needs)
    rolled = {s.address for s in all_steps if isinstance(s, Promote) and s.action is not Action.RESTORE}
    proven = {(s.address, s.route) for s in all_steps if isinstance(s, RunGate)}
    lines = []
    for change in changed:
        if change.action not in (Action.UPDATE, Action.REPLACE) or change.before == change.after:
            continue
        if moved & set(needs[change.address]):
            continue  # a consequence itself; the line of its cause names it
        touched = dependents(users, [change.address])
        consequences = [*_consequences(sorted(touched), moved, rolled, proven)]
        if consequences:
            lines.append(f"{change.address} changed: {'; '.join(consequences)}")
    for step in all_steps:
        if isinstance(step, Provision) and step.address.kind == "endpoint" and step.action is Action.REPLACE:
            lines.append(f"{step.address} runs twice during the rollout, the new revision beside the old one")
    return tuple(lines)


def _consequences(
    touched: list[Address], moved: set[Address], rolled: set[Address], proven: set[tuple[Address, Address]]
) -> Iterator[str]:
    for address in touched:
        if address.kind == "gate" and any(gate == address for gate, _ in proven):
            yield f"{address} runs"
        elif address.kind == "endpoint" and address in moved:
            yield f"{address} gets a new revision"
        elif address.kind == "route":
            yield f"{address} rolls out a new revision" if address in rolled else f"{address} unaffected"
    untouched = {route for gate, route in proven if gate in touched} - rolled - set(touched)
    for route in sorted(untouched):
        yield f"{route} unaffected"
