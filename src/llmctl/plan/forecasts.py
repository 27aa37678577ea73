"""Which gates a plan will run, against what and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from llmctl.core.digests import Json
from llmctl.core.resources import Spec
from llmctl.core.steps import RunGate, Step
from llmctl.plan.model import GateForecast
from llmctl.plan.steps import Builder

_COMPARE = {"min": "≥", "max": "≤", "max_drop": "drop ≤"}


def forecasts(b: Builder, steps: Sequence[Step]) -> tuple[GateForecast, ...]:
    """One for each gate that runs, in the order of the steps."""
    return tuple(_forecast(b, step) for step in steps if isinstance(step, RunGate))


def _forecast(b: Builder, step: RunGate) -> GateForecast:
    spec = (b.recorded if step.as_recorded else b.desired).resources[step.address].spec
    if step.as_recorded:
        done = "weakened" if step.address in b.desired.resources else "deleted"
        why = f"{done} by this change, so that the new revision of {step.route} must also pass it as it was recorded"
    elif step.address in b.unproven and not _is_new(b, step):
        why = f"the break-glass of serial {b.unproven[step.address]} skipped it"
    elif step.route in b.changes:
        why = f"proves the new revision of {step.route}"
    else:
        why = b.changes[step.address].reason if step.address in b.changes else "re-run"
    return GateForecast(
        step.address,
        step.route,
        step.revision,
        step.baseline,
        why,
        (*gate_rules(spec["metrics"]), *_slice_rules(spec)),
        as_recorded=step.as_recorded,
    )


def _is_new(b: Builder, step: RunGate) -> bool:
    change = b.changes.get(step.route)
    return change is not None and change.before != change.after


def gate_rules(metrics: Mapping[str, Mapping[str, Json]]) -> tuple[str, ...]:
    """The thresholds of a gate for people: ``exact_match ≥ 0.95``, ``exact_match drop ≤ 0.02``."""
    return tuple(
        f"{metric} {_COMPARE[rule]} {value:g}"
        for metric, rules in metrics.items()
        for rule, value in rules.items()
        if rule in _COMPARE and value is not None
    )


def _slice_rules(spec: Spec) -> Iterator[str]:
    for column, metrics in (spec.get("slices") or {}).items():
        yield from (f"{rule} for each {column}" for rule in gate_rules(metrics))
