"""The plan for people: what changes, why, what it risks, in the first lines."""

from __future__ import annotations

from pathlib import Path

from llmctl.cli.views.diagnostics import render
from llmctl.cli.views.gist import gist, gist_json, gist_lines
from llmctl.cli.views.layout import Line, count, rendered, screen_width
from llmctl.cli.views.sections import drift_lines, sections
from llmctl.core.digests import Json
from llmctl.plan import Plan, plan_json, sealed


def render_plan(plan: Plan, *, notice: str = "") -> str:
    """The whole plan; ``notice`` is said before it."""
    width = screen_width()
    made = gist(plan)
    first = [Line(notice, indent=0, fg="cyan")] if notice else []
    parts = [rendered([*first, *gist_lines(made)], width)]
    below = sections(plan, made)
    for section in below:
        title = Line(section.title, indent=0, bold=True)
        parts.append(rendered([title, *section.lines], width))
    if below and not plan.is_empty:
        parts.append(rendered([Line(f"Plan: {made.verdict}", indent=0, bold=True)], width))  # a long plan scrolls away
    return "\n\n".join(parts)


def render_drift(plan: Plan) -> str:
    """Only what differs between live and recorded, and what cannot be read."""
    parts = [render(list(plan.blocked))] if plan.blocked else []
    serial = plan.recorded.serial
    if plan.drift:
        head = f"{count(len(plan.drift), 'resource')} drifted from serial {serial}; `llmctl apply` restores:"
        parts.append(rendered([Line(head, indent=0, bold=True), *drift_lines(plan.drift)], screen_width()))
    elif not plan.blocked:
        parts.append(f"No drift: {plan.desired.environment.name} runs as serial {serial} recorded it.")
    return "\n\n".join(parts)


def shown_json(plan: Plan, made_at: str) -> dict[str, Json]:
    """The plan for programs and for its file: when it was made (ISO 8601, UTC), and the gist that people are shown."""
    return sealed({**plan_json(plan), "made_at": made_at, "gist": gist_json(plan)})


def saved_notice(path: Path, plan: Plan, made_at: str) -> str:
    """What is to be known of a plan that was read from a file."""
    when = f"{made_at[:16].replace('T', ' ')} UTC" if made_at else "a time that it does not say"
    commit = f"commit {plan.source_commit[:12]}" if plan.source_commit else "a folder without a commit"
    was = ", with the approvals of then" if plan.approvals.required else ""
    return f"saved plan {path}, made {when} from {commit}{was}; it may be stale by now, and `llmctl apply` would say so"
