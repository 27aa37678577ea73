"""The plan for people: what changes, why, what it risks, in the first lines."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator

import click

from llmctl.cli.views.diagnostics import render
from llmctl.core.digests import Json
from llmctl.core.steps import Action
from llmctl.plan import FieldDiff, GateForecast, Plan, ResourceChange

_SIGN = {
    Action.CREATE: ("+", "green"),
    Action.UPDATE: ("~", "yellow"),
    Action.REPLACE: ("±", "yellow"),
    Action.DELETE: ("-", "red"),
    Action.ADOPT: ("=", "cyan"),
    Action.RESTORE: ("↺", "cyan"),
    Action.NOOP: (" ", "white"),
}
_SHORT = 70


def render_plan(plan: Plan) -> str:
    """The whole plan; an empty one is a single sentence."""
    parts = [_head(plan)]
    if plan.warnings:
        parts.append(render(list(plan.warnings)))
    if plan.blocked:
        parts.append(
            _section("Blocked: cannot be read, so neither changed nor taken for absent", render(list(plan.blocked)))
        )
    if plan.changes:
        parts.append("\n".join(_overview(plan.changes)))
    if plan.gates:
        parts.append(_section("Gates that will run", "\n".join(_gates(plan.gates))))
    if plan.impact:
        parts.append(_section("Blast radius", "\n".join(f"  {line}" for line in plan.impact)))
    if plan.denials or any(not p.ok for p in plan.policies) or (plan.policies and not plan.is_empty):
        parts.append(_section("Policies", "\n".join(_policies(plan))))
    if plan.drift:
        parts.append(_section("Drift: what runs is not what was recorded", "\n".join(_drift(plan))))
    details = list(_details(plan.changes))
    if details:
        parts.append(_section("Details", "\n".join(details)))
    if plan.steps:
        parts.append(_section("Steps", "\n".join(_steps(plan))))
    parts.append(_summary(plan))
    return "\n\n".join(parts)


def render_drift(plan: Plan) -> str:
    """Only what differs between live and recorded."""
    if plan.blocked:
        return render(list(plan.blocked))
    if not plan.drift:
        return f"No drift: {plan.desired.environment.name} runs as serial {plan.recorded.serial} recorded it."
    head = f"{len(plan.drift)} drifted from serial {plan.recorded.serial}; `llmctl apply` restores:"
    return "\n".join([click.style(head, bold=True), *_drift(plan)])


def _head(plan: Plan) -> str:
    environment = plan.desired.environment
    what = {"rollback": f"rollback to serial {plan.rollback_to}", "destroy": "destroy"}.get(plan.action, "plan")
    recorded = f"serial {plan.recorded.serial}" if plan.recorded.serial else "nothing recorded yet"
    text = f"{what}: {plan.desired.project}, environment {environment.name} ({environment.target}), {recorded}"
    return click.style(text, bold=True) + (
        "\nLive state unknown (--offline): drift is not shown, and this plan cannot be applied." if plan.offline else ""
    )


def _section(title: str, body: str) -> str:
    return f"{click.style(title, bold=True)}\n{body}"


def _overview(changes: tuple[ResourceChange, ...]) -> Iterator[str]:
    width = max(len(str(c.address)) for c in changes)
    for change in changes:
        sign, color = _SIGN[change.action]
        version = _versions(change)
        line = f"  {sign} {change.address!s:<{width}}  {change.action.value:<8} {version:<9} {change.reason}"
        yield click.style(line.rstrip(), fg=color)


def _versions(change: ResourceChange) -> str:
    if change.action is Action.DELETE:
        return f"v{change.version_before}"
    if not change.version_before or change.version_before == change.version_after:
        return f"v{change.version_after}"
    return f"v{change.version_before} → v{change.version_after}"


def _gates(gates: tuple[GateForecast, ...]) -> Iterator[str]:
    for gate in gates:
        yield f"  {gate.gate} on {gate.route}@{gate.revision[:8]}"
        yield from (f"    {rule}" for rule in gate.rules)
        known = f"; already proven by recorded evidence: {gate.cached}" if gate.cached else ""
        against = f", compared with {gate.baseline[:8]}" if gate.baseline else ""
        note = f"    {gate.why}{against}{known}"
        yield click.style(note, fg="red" if gate.cached in ("FAIL", "INCONCLUSIVE") else None, dim=not gate.cached)


def _policies(plan: Plan) -> Iterator[str]:
    for denial in plan.denials:
        yield click.style(f"  ✗ {denial.address}: {denial.summary}", fg="red")
        if denial.detail:
            yield f"    {denial.detail}"
        yield f"    {denial.hint}"
    bad = [p for p in plan.policies if not p.ok]
    for outcome in bad:
        word, color = ("denies", "red") if outcome.denies else ("warns about", "yellow")
        reason = outcome.message + (f" [{outcome.error}]" if outcome.error else "")
        yield click.style(f"  ✗ policy.{outcome.policy} {word} {outcome.address}: {reason}", fg=color)
    held = len(plan.policies) - len(bad)
    if held:
        names = sorted({p.policy for p in plan.policies if p.ok})
        yield click.style(f"  ✓ {held} {'checks hold' if held > 1 else 'check holds'}: {', '.join(names)}", fg="green")


def _drift(plan: Plan) -> Iterator[str]:
    for drift in plan.drift:
        yield click.style(f"  ↺ {drift.address}: {drift.summary}", fg="cyan")
        yield from (f"      {line}" for line in drift.details)


def _details(changes: tuple[ResourceChange, ...]) -> Iterator[str]:
    for change in changes:
        if change.diffs and change.action in (Action.UPDATE, Action.REPLACE):
            yield f"  {change.address}"
            for diff in change.diffs:
                yield from (f"    {line}" for line in _field(diff))


def _field(diff: FieldDiff) -> Iterator[str]:
    old, new = _text(diff.before), _text(diff.after)
    if "\n" not in old + new and len(old) + len(new) <= _SHORT:
        yield f"{diff.path}: {click.style(old, fg='red')} → {click.style(new, fg='green')}"
        return
    yield f"{diff.path}:"
    for line in difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=1):
        if not line.startswith(("---", "+++", "@@")):
            yield click.style(f"  {line}", fg={"-": "red", "+": "green"}.get(line[:1]))


def _text(value: Json) -> str:
    if value is None:
        return "(none)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _steps(plan: Plan) -> Iterator[str]:
    number = {step.id: index for index, step in enumerate(plan.steps, 1)}
    for step in plan.steps:
        after = ", ".join(str(number[need]) for need in step.needs if need in number)
        line = f"  {number[step.id]:>3} {short_step(step.id)}"
        yield line + (click.style(f"  after {after}", dim=True) if after else "")


def short_step(step_id: str) -> str:
    """A step's id with its revision cut to eight digits."""
    head, at, revision = step_id.rpartition("@")
    return f"{head}@{revision[:8]}" if at else step_id


def nothing(plan: Plan) -> str:
    """Why there is nothing to do."""
    return {
        "destroy": "Nothing is recorded; only what is left on this machine goes.",
        "rollback": f"Nothing changes: what runs is what serial {plan.rollback_to} declared.",
    }.get(plan.action, "Nothing changes: what runs and what is recorded is what llmops.yaml declares.")


def _summary(plan: Plan) -> str:
    if plan.blocked:
        return click.style("Nothing is planned while something cannot be read.", fg="red", bold=True)
    if plan.is_empty:
        return click.style(nothing(plan), bold=True)
    counts = {action: sum(c.action is action for c in plan.changes) for action in Action}
    parts = [f"{count} to {action.value}" for action, count in counts.items() if count]
    parts += [f"{len(plan.drift)} to restore"] if plan.drift else []
    parts += [f"{len(plan.gates)} gate{'s' if len(plan.gates) > 1 else ''} to run"] if plan.gates else []
    denied = bool(plan.denials) or any(p.denies for p in plan.policies)
    text = f"Plan: {', '.join(parts) or f'{len(plan.steps)} steps'}."
    if denied and plan.action != "destroy":
        return click.style(f"{text} Apply would refuse it: see Policies.", fg="red", bold=True)
    return click.style(text, bold=True)
