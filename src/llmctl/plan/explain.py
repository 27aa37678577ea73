"""Why a plan does with one resource what it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.policies import PolicyResult
from llmctl.core.resources import Recorded, Resource, Spec
from llmctl.core.steps import Action, Move, RunGate, Step
from llmctl.graph import dependents, users_of
from llmctl.plan.changes import by_name
from llmctl.plan.model import Drift, GateForecast, Plan, ResourceChange, Weakening
from llmctl.plan.moves import as_recorded, runs_by_name

#: By kind: the fields of its spec that repeat what a resource of another kind says.
_REPEATED: dict[str, dict[str, tuple[str, ...]]] = {
    "endpoint": {"model": ("model", "model_revision", "weights", "api_key")},
    "route": {"prompt": ("prompt", "prompt_revision", "template"), "endpoint": ("chain", "chain_revisions")},
    "gate": {
        "dataset": ("dataset", "dataset_revision", "dataset_digest", "dataset_format"),
        "route": ("route",),
    },
}


@dataclass(frozen=True, slots=True)
class Cause:
    """A change that another one follows from. ``depth`` is 1 for what causes the explained change directly."""

    address: Address
    action: Action
    reason: str
    depth: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happens to one resource and why; ``summary`` says it in a sentence, also when nothing happens."""

    address: Address
    summary: str
    change: ResourceChange | None
    drift: tuple[Drift, ...]
    causes: tuple[Cause, ...]  # each before what it follows from in turn, down to the roots
    dependents: tuple[Address, ...]  # what needs it directly or through others, as desired or as recorded
    gates: tuple[Address, ...]  # the gates that prove it, or a route that uses it
    runs: tuple[GateForecast, ...]  # those of them that run in this plan
    steps: tuple[tuple[int, Step], ...]  # the steps that touch it, in order, with their numbers from 1
    policies: tuple[PolicyResult, ...]
    denials: tuple[Diagnostic, ...]
    weakened: tuple[Weakening, ...]
    blocked: tuple[Diagnostic, ...]  # what cannot be read and keeps it as it is
    waiting: bool  # it would change, and waits for what is blocked
    left_out: bool  # it would change, and is not among the targets


def explain(plan: Plan, address: Address) -> Explanation | None:
    """Why the plan changes a resource, or why not. None for one that is neither declared nor recorded nor live."""
    change = next((c for c in plan.changes if c.address == address), None)
    drift = tuple(d for d in plan.drift if d.address == address)
    known = address in plan.desired.resources or address in plan.recorded.resources
    if not known and change is None and not drift and address not in (*plan.waiting, *plan.left_out):
        return None
    users = _users(plan)
    blocked = _blocking(plan, address) if address in plan.waiting or _is_blocked(plan, address) else ()
    using = {address, *dependents(users, [address])}
    gates = sorted({a for a in using if a.kind == "gate"}, key=by_name) if address.kind != "gate" else [address]
    return Explanation(
        address=address,
        summary=_summary(plan, address, change, drift, blocked),
        change=change,
        drift=drift,
        causes=tuple(_causes(plan, address, 1, {address})),
        dependents=tuple(sorted(using - {address}, key=by_name)),
        gates=tuple(gates),
        runs=tuple(g for g in plan.gates if g.gate in gates),
        steps=tuple((n, step) for n, step in enumerate(plan.steps, 1) if _touches(step, address)),
        policies=tuple(p for p in plan.policies if p.address == address or p.policy == _own_policy(address)),
        denials=tuple(d for d in plan.denials if d.address == address),
        weakened=tuple(w for w in plan.weakened if w.address == address),
        blocked=blocked,
        waiting=address in plan.waiting,
        left_out=address in plan.left_out,
    )


def _own_policy(address: Address) -> str | None:
    return address.name if address.kind == "policy" else None


def _needs(plan: Plan) -> dict[Address, list[Address]]:
    """What needs what, as planned and as recorded."""
    found: dict[Address, list[Address]] = {}
    for state in (plan.desired.resources, plan.recorded.resources):
        for address, resource in state.items():
            found.setdefault(address, []).extend(resource.needs)
    return found


def _users(plan: Plan) -> dict[Address, list[Address]]:
    return users_of(_needs(plan))


def _touches(step: Step, address: Address) -> bool:
    if isinstance(step, RunGate) and step.route == address:
        return True
    return step.address == address or (isinstance(step, Move) and step.origin == address)


def _is_blocked(plan: Plan, address: Address) -> bool:
    return any(d.address == address for d in plan.blocked)


def _blocking(plan: Plan, address: Address) -> tuple[Diagnostic, ...]:
    """Of what cannot be read, what this resource depends on; all of it where that goes over something else."""
    reached = {address, *dependents(_needs(plan), [address])}
    return tuple(d for d in plan.blocked if d.address in reached) or plan.blocked


def _summary(
    plan: Plan,
    address: Address,
    change: ResourceChange | None,
    drift: tuple[Drift, ...],
    blocked: tuple[Diagnostic, ...],
) -> str:
    if address in plan.left_out:
        return "it would change, and is left out: no target asks for it"
    if blocked:
        named = ", ".join(str(d.address) for d in blocked)
        if _is_blocked(plan, address):
            return "it cannot be read, so that it is neither changed nor taken for absent"
        return f"it waits, as it is recorded, until {named} can be read"
    if change is not None:
        return f"{change.action.value}: {change.reason}"
    if drift:
        return f"restore: what runs is not what is recorded: {drift[0].summary}"
    new = next((new for old, new in plan.desired.moved if old == address), None)
    if new is not None:
        return f"it becomes {new}"
    return f"nothing: it is declared as serial {plan.recorded.serial} recorded it{_why_spared(plan, address)}"


def _why_spared(plan: Plan, address: Address) -> str:
    """What it needs changes, and yet it does not: the revision that it serves from stays."""
    resource = plan.desired.resources.get(address)
    changed = {c.address for c in plan.changes}
    spared = [str(need) for need in (resource.needs if resource else ()) if need in changed]
    return f"; {', '.join(spared)} changes, and nothing of that decides what it does" if spared else ""


def _causes(plan: Plan, address: Address, depth: int, seen: set[Address]) -> Iterator[Cause]:
    by_address = {c.address: c for c in plan.changes}
    if address not in by_address:
        return
    for need in _caused_by(plan, address):
        change = by_address.get(need)
        if change is not None and need not in seen:
            seen.add(need)
            yield Cause(need, change.action, change.reason, depth)
            yield from _causes(plan, need, depth + 1, seen)


def _caused_by(plan: Plan, address: Address) -> list[Address]:
    """What a resource needs and repeats in its own spec, where it says other than the record."""
    want, was = plan.desired.resources.get(address), as_recorded(plan, address)
    if want is None or was is None:
        return []
    if address in {new for _, new in plan.desired.moved} and runs_by_name(address):
        return []
    found = []
    for need in want.needs:
        fields = _REPEATED.get(address.kind, {}).get(need.kind)
        if fields is None or any(_said(want, need, f) != _said(was, need, f) for f in fields):
            found.append(need)
    return found


def _said(resource: Resource | Recorded, need: Address, field: str) -> object:
    """What a spec says of one need: of a chain only that endpoint's link."""
    spec: Spec = resource.spec
    if field == "chain":
        return [link for link in spec["chain"] if link["endpoint"] == need.name]
    if field == "chain_revisions":
        return [text for text in spec[field] if text.startswith(f"{need.name}@")]
    return spec.get(field)
