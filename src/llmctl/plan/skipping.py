"""Break-glass: the same plan without some of its gates."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from llmctl.core.address import Address
from llmctl.core.steps import RunGate, Step
from llmctl.plan.model import Plan


def skippable(plan: Plan) -> tuple[Address, ...]:
    """The gates that could stop this plan: those that recorded evidence does not already prove, in order.

    One that the plan itself weakens or deletes still runs as it was recorded. That run is never skipped: a change
    could else get rid of its gate for good.
    """
    return tuple(
        dict.fromkeys(
            forecast.gate for forecast in plan.gates if forecast.cached != "PASS" and not forecast.as_recorded
        )
    )


def skipped(plan: Plan, gates: Collection[Address], reason: str) -> Plan:
    """The plan in which these gates do not run; ``reason`` is why. What waited for one waits for what that needed."""
    gone = {
        step.id: step
        for step in plan.steps
        if isinstance(step, RunGate) and step.address in gates and not step.as_recorded
    }
    return replace(
        plan,
        steps=tuple(_freed(step, gone) for step in plan.steps if step.id not in gone),
        gates=tuple(f for f in plan.gates if f.as_recorded or f.gate not in gates),
        impact=tuple(_told(line, gates) for line in plan.impact),
        break_glass=reason,
        skipped_gates=tuple(gates),
    )


def _freed(step: Step, gone: dict[str, RunGate]) -> Step:
    if gone.keys().isdisjoint((*step.needs, *step.after)):
        return step
    needs, after = _instead(step.needs, gone), _instead(step.after, gone)
    return replace(step, needs=needs, after=after)


def _instead(ids: Iterable[str], gone: dict[str, RunGate]) -> tuple[str, ...]:
    found: list[str] = []
    for step_id in ids:
        found += gone[step_id].needs if step_id in gone else (step_id,)
    return tuple(dict.fromkeys(found))


def _told(line: str, gates: Collection[Address]) -> str:
    """A sentence of the blast radius that no longer says of these gates that they run."""
    about, colon, rest = line.partition(": ")
    runs = {f"{gate} runs": f"{gate} is skipped" for gate in gates}
    return about + colon + "; ".join(runs.get(part, part) for part in rest.split("; "))
