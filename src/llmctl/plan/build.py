"""Desired × recorded × live → a frozen plan. Pure: nothing is read or written here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.resources import Desired, Key, RecordState, Resource
from llmctl.core.steps import Action, Step
from llmctl.graph import in_order
from llmctl.live import LiveState
from llmctl.plan.changes import by_name
from llmctl.plan.changes import changes as find_changes
from llmctl.plan.drift import Observed, observe
from llmctl.plan.forecasts import forecasts
from llmctl.plan.impact import blast_radius
from llmctl.plan.inputs import inputs_of
from llmctl.plan.model import Plan, ResourceChange
from llmctl.plan.moves import applicable, renamed
from llmctl.plan.routes import endpoint_keys
from llmctl.plan.scope import Scope, find_scope, left_out, restorable
from llmctl.plan.steps import Builder, build_up
from llmctl.plan.teardown import tear_down
from llmctl.plan.weakened import RECORD, weakenings


def build_plan(
    desired: Desired,
    recorded: RecordState,
    live: LiveState | None,
    *,
    action: str = "apply",
    gated: bool = True,
    rollback_to: int = 0,
    source_commit: str = "",
    targets: tuple[Address, ...] = (),
    base: Mapping[Address, Resource] | None = None,
    base_name: str = "",
) -> Plan:
    """Make a plan. ``live`` is None for an offline plan, which cannot be applied.

    ``gated`` is false for a rollback: its target was proven when it was first applied. With ``targets`` only
    those, and what they need, are changed. ``base`` is what another revision of the file declares, with its
    name: gates and policies are compared with it too, and not only with the record.

    The plan's ``desired`` is what it makes true: what is held counts there as it is recorded.
    """
    gone = {"destroy": "goes with the environment", "rollback": f"serial {rollback_to} did not declare it"}
    moves = applicable(desired, recorded.resources)
    every = find_changes(desired, recorded, live, moves=moves, gone=gone.get(action, "no longer declared"))
    seen = live if action != "destroy" else None  # which takes everything away, whatever state it is in
    scope = find_scope(desired, recorded, seen, every, moves, targets)
    changes = [c for c in every if c.address not in scope.held]
    observed = Observed()
    if seen is not None:
        observed = observe(recorded, seen, endpoint_keys(desired.resources) | endpoint_keys(scope.desired.resources))
    touched = {*(c.address for c in every), *(d.address for d in observed.drift)}
    left = left_out(scope, touched - _in_the_way(observed, scope, recorded, seen))
    before = renamed(recorded, scope.moves)
    weakened = () if action == "destroy" else weakenings(scope.desired, before, scope.moves, desired, base, base_name)
    builder = Builder(
        scope.desired,
        before,
        _in_scope(observed, scope, recorded, seen, frozenset(left)),
        {c.address: c for c in changes},
        gated,
        scope.held,
        frozenset(w.address for w in weakened if w.against == RECORD),
        scope.moves,
        _skipped_before(recorded, scope),
    )
    steps = _steps(builder)
    taken_in = {c.address for c in changes if c.action is Action.ADOPT and c.address.kind == "route"}
    return Plan(
        action=action,
        desired=scope.desired,
        recorded=recorded,
        changes=tuple(changes),
        drift=tuple(d for d in observed.drift if d.address not in left and d.address not in taken_in),
        steps=steps,
        gates=forecasts(builder, steps),
        impact=blast_radius(builder, steps),
        blocked=scope.blocked,
        inputs=inputs_of(desired, recorded, every, live),
        denials=(*_rejected(scope.desired, recorded, changes), *_protected(before, changes, action)),
        source_commit=source_commit,
        offline=live is None,
        rollback_to=rollback_to,
        weakened=weakened,
        targets=targets,
        waiting=tuple(sorted(touched & scope.waiting, key=by_name)),
        left_out=left,
        reconciles=tuple(b.serial for b in recorded.break_glass) if action == "apply" and not targets else (),
    )


def _skipped_before(recorded: RecordState, scope: Scope) -> dict[Address, int]:
    """The gates that a break-glass skipped and that have not passed since, by their names now; and its serial."""
    to = dict(scope.moves)
    return {to.get(gate, gate): b.serial for b in reversed(recorded.break_glass) for gate in b.gates}


def _in_the_way(observed: Observed, scope: Scope, recorded: RecordState, live: LiveState | None) -> set[Address]:
    """Routes that nobody recorded, on an endpoint that this plan deletes or changes in place: they go before that,
    targets or not."""
    config = live.gateway_config() if live else None
    desired = scope.desired.resources
    gone = {
        address.name
        for address, was in recorded.resources.items()
        if address.kind == "endpoint"
        and (
            address not in desired or (desired[address].revision == was.revision and desired[address].spec != was.spec)
        )
    }
    return {
        Address("route", name)
        for name in (observed.stray_routes if config else ())
        if config and any(u.endpoint in gone for r in config.routes[name].revisions.values() for u in r.upstreams)
    }


def _in_scope(
    observed: Observed, scope: Scope, recorded: RecordState, live: LiveState | None, left: frozenset[Address]
) -> Observed:
    """What of the drift is put right: not that of held resources, and no stray that one of those may use."""
    allowed = restorable(scope, recorded)
    if allowed is None or live is None:
        return observed
    config = live.gateway_config()
    reading = live.readings.get("endpoint")
    used = {
        Key(upstream.endpoint, upstream.revision)
        for name, route in (config.routes.items() if config else ())
        if Address("route", name) in scope.held | left
        for revision in route.revisions.values()
        for upstream in revision.upstreams
    }
    if live.gateway.unreadable and reading:
        used |= reading.found.keys()  # nobody knows which of them have traffic
    outside = scope.held | left
    return replace(
        observed,
        restore=tuple((a, r) for a, r in observed.restore if a in allowed),
        strays=tuple(k for k in observed.strays if k not in used and Address("endpoint", k.name) not in outside),
        stray_routes=tuple(n for n in observed.stray_routes if Address("route", n) not in outside),
        in_use=frozenset(used),
    )


def _steps(builder: Builder) -> tuple[Step, ...]:
    """All steps in an order in which they could run one by one."""
    build_up(builder)
    tear_down(builder)
    order = in_order({step.id: (*step.needs, *step.after) for step in builder.steps.values()})
    return tuple(builder.steps[step_id] for step_id in order)


def _rejected(desired: Desired, recorded: RecordState, changes: Sequence[ResourceChange]) -> Iterable[Diagnostic]:
    """Revisions that a rollback left behind are refused until somebody says why they are good again."""
    origins = {c.address: c.moved_from for c in changes if c.moved_from and c.address.kind == "route"}
    changed = {c.address for c in changes if c.before != c.after}
    for address in sorted(a for a in changed if a in desired.resources):
        for r in recorded.rejections:
            named = (address, origins.get(address, address))
            if r.address in named and desired.resources[address].revision == r.revision:
                several = sum(other.revision[:8] == r.revision[:8] for other in recorded.rejections) > 1
                which = f"{r.address}@{r.revision[:8]}" if several else r.revision[:8]
                yield Diagnostic(
                    f"revision {r.revision[:8]} was rejected by the rollback of serial {r.serial}",
                    address=address,
                    detail=r.reason,
                    hint=f"Change it, or run `llmctl unreject {which} --reason …` to say why it is good again.",
                )


def _protected(recorded: RecordState, changes: Sequence[ResourceChange], action: str) -> Iterable[Diagnostic]:
    """What the record protects is neither deleted nor replaced, even when this change lifts the protection.

    An endpoint may get another name, with the same revision; the live thing of a plug-in would be lost with its name.
    """
    to = {c.moved_from: c for c in changes if c.moved_from}
    for change in changes:
        was, new = recorded.resources.get(change.address), to.get(change.address)
        if was is None or not was.spec.get("protect"):
            continue
        if new is not None and new.address.kind == "endpoint" and new.after == was.revision:
            continue
        if change.action in (Action.DELETE, Action.REPLACE):
            yield Diagnostic(
                f"it is protected, and this plan would {change.action.value} it",
                address=change.address,
                detail=f"Why: {change.reason}.",
                hint=_how_to_lift(change, new, action),
            )


def _how_to_lift(change: ResourceChange, new: ResourceChange | None, action: str) -> str:
    """How to get past the protection: what an apply no longer declares has no place to write `protect: false` at."""
    if action != "apply":
        return "Apply `protect: false` for it first, in a change of its own."
    if new is not None:
        alone = "Rename it without another change, which is allowed. Or k" if change.address.kind == "endpoint" else "K"
        return f"{alone}eep the name {change.address.name} and apply `protect: false` for it; then rename it."
    if change.action is Action.DELETE:
        return "Keep it, with `protect: false`, and apply that first; then remove it in a change of its own."
    return "Apply `protect: false` for it first, in a change of its own."
