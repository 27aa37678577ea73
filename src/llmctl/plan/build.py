"""Desired × recorded × live → a frozen plan. Pure: nothing is read or written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import digest
from llmctl.core.resources import Desired, RecordState
from llmctl.core.steps import RunGate, Step
from llmctl.graph import in_order
from llmctl.live import LiveState
from llmctl.plan.changes import changes as find_changes
from llmctl.plan.drift import Observed, observe
from llmctl.plan.impact import blast_radius
from llmctl.plan.model import GateForecast, Inputs, Plan, ResourceChange
from llmctl.plan.routes import endpoint_keys
from llmctl.plan.steps import Builder, build_up
from llmctl.plan.teardown import tear_down

_COMPARE = {"min": "≥", "max": "≤", "max_drop": "drop ≤"}


def build_plan(
    desired: Desired,
    recorded: RecordState,
    live: LiveState | None,
    *,
    action: str = "apply",
    gated: bool = True,
    rollback_to: int = 0,
    source_commit: str = "",
) -> Plan:
    """Make a plan. ``live`` is None for an offline plan, which cannot be applied.

    ``gated`` is false for a rollback: its target was proven when it was first applied.
    """
    gone = {"destroy": "goes with the environment", "rollback": f"serial {rollback_to} did not declare it"}
    changes = find_changes(desired, recorded, live, gone=gone.get(action, "no longer declared"))
    observed = Observed()
    if live and action != "destroy":  # which takes everything away, whatever state it is in
        observed = observe(recorded, live, endpoint_keys(desired.resources))
    blocked = observed.blocked
    steps: tuple[Step, ...] = ()
    if not blocked:
        steps = _steps(Builder(desired, recorded, observed, {c.address: c for c in changes}, gated))
    return Plan(
        action=action,
        desired=desired,
        recorded=recorded,
        changes=tuple(changes),
        drift=observed.drift,
        steps=steps,
        gates=_forecasts(desired, changes, steps),
        impact=blast_radius(desired, changes, steps),
        blocked=blocked,
        inputs=Inputs(
            desired={str(a): digest(r.spec) for a, r in sorted(desired.resources.items())},
            serial=recorded.serial,
            head=recorded.head,
            live=live.fingerprint() if live else {},
        ),
        denials=tuple(_denials(desired, recorded, changes)),
        source_commit=source_commit,
        offline=live is None,
        rollback_to=rollback_to,
    )


def _steps(builder: Builder) -> tuple[Step, ...]:
    """All steps in an order in which they could run one by one."""
    build_up(builder)
    tear_down(builder)
    order = in_order({step.id: (*step.needs, *step.after) for step in builder.steps.values()})
    return tuple(builder.steps[step_id] for step_id in order)


def _forecasts(desired: Desired, changes: Sequence[ResourceChange], steps: Sequence[Step]) -> tuple[GateForecast, ...]:
    by_address: Mapping[Address, ResourceChange] = {c.address: c for c in changes}
    forecasts = []
    for step in steps:
        if not isinstance(step, RunGate):
            continue
        spec = desired.resources[step.address].spec
        if step.route in by_address:
            why = f"proves the new revision of {step.route}"
        else:
            why = by_address[step.address].reason if step.address in by_address else "re-run"
        forecasts.append(
            GateForecast(step.address, step.route, step.revision, step.baseline, why, gate_rules(spec["metrics"]))
        )
    return tuple(forecasts)


def gate_rules(metrics: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    """The thresholds of a gate for people: ``exact_match ≥ 0.95``, ``exact_match drop ≤ 0.02``."""
    return tuple(
        f"{metric} {_COMPARE[rule]} {value:g}"
        for metric, rules in metrics.items()
        for rule, value in rules.items()
        if rule in _COMPARE and value is not None
    )


def _denials(desired: Desired, recorded: RecordState, changes: Sequence[ResourceChange]) -> list[Diagnostic]:
    """Revisions that a rollback left behind are refused until somebody says why they are good again."""
    changed = {c.address for c in changes if c.before != c.after}
    return [
        Diagnostic(
            f"revision {r.revision[:8]} was rejected by the rollback of serial {r.serial}",
            address=r.address,
            detail=r.reason,
            hint=f"Change it, or run `llmctl unreject {r.revision[:8]} --reason …` to say why it is good again.",
        )
        for r in recorded.rejections
        if r.address in changed
        and r.address in desired.resources
        and desired.resources[r.address].revision == r.revision
    ]
