"""One resource of a plan: what happens to it, why, what it sets in motion, what has to be proven."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llmctl.cli.views import signs
from llmctl.cli.views.changed import field_lines, versions
from llmctl.cli.views.gist import rollouts
from llmctl.cli.views.layout import Line, Section, first, listed, rendered, screen_width
from llmctl.cli.views.sections import drift_lines, findings, gate_lines, judgement, step_line_of, weakened_lines
from llmctl.core.digests import Json
from llmctl.core.steps import Action
from llmctl.plan import Plan, plan_json
from llmctl.plan.explain import Explanation

_LISTED = 50


def render_explanation(plan: Plan, told: Explanation, *, notice: str = "") -> str:
    """The sentence first, then a section for each thing that is to be known."""
    width = screen_width()
    head = [Line(notice, indent=0, fg="cyan")] if notice else []
    head.append(Line(f"{told.address}: {told.summary}", indent=0, bold=True))
    if told.waiting:
        head.append(Line("It waits: what it needs cannot be read.", indent=0, fg="yellow"))
    if told.left_out:
        head.append(Line("It is left out by --target.", indent=0, fg="yellow"))
    parts = [rendered(head, width)]
    for section in _sections(plan, told):
        if section.lines:
            parts.append(rendered([Line(section.title, indent=0, bold=True), *section.lines], width))
    return "\n\n".join(parts)


def explanation_json(plan: Plan, told: Explanation) -> dict[str, Json]:
    """The same for programs; each part has the form that it has in the plan."""
    shown, address = plan_json(plan), str(told.address)
    runs = {(str(g.gate), str(g.route), g.as_recorded) for g in told.runs}

    def about(part: str, keep: Callable[[Json], bool]) -> list[Json]:
        return [entry for entry in shown[part] if keep(entry)]

    return {
        "format": shown["format"],
        "digest": shown["digest"],
        "address": address,
        "summary": told.summary,
        "change": next(iter(about("changes", lambda c: told.change is not None and c["address"] == address)), None),
        "causes": [
            {"address": str(c.address), "action": c.action.value, "reason": c.reason, "depth": c.depth}
            for c in told.causes
        ],
        "drift": about("drift", lambda d: d["address"] == address),
        "dependents": [str(a) for a in told.dependents],
        "gates": [str(a) for a in told.gates],
        "runs": about("gates", lambda g: (g["gate"], g["route"], g["as_recorded"]) in runs),
        "steps": [{"number": number, **shown["steps"][number - 1]} for number, _ in told.steps],
        "policies": about("policies", lambda p: p["address"] == address),
        "denials": about("denials", lambda d: d["address"] == address),
        "weakened": about("weakened", lambda w: w["address"] == address),
        "blocked": [d for d, known in zip(shown["blocked"], plan.blocked, strict=True) if known in told.blocked],
        "waiting": told.waiting,
        "left_out": told.left_out,
    }


def _sections(plan: Plan, told: Explanation) -> Iterator[Section]:
    yield Section("Cannot be read", findings(told.blocked))
    yield Section("Why", [*_causes(told), *_rollout(plan, told)])
    yield Section("What differs", _differs(told))
    yield Section("Drift", drift_lines(told.drift))
    yield Section("Refused", [*(Line(f"✗ {d.summary}", fg="red", note=d.hint) for d in told.denials)])
    yield Section("Asks for less", weakened_lines(told.weakened))
    yield Section("Gates that will run", gate_lines(told.runs))
    idle = [gate for gate in told.gates if gate not in {g.gate for g in told.runs}]
    yield Section("Gates that guard it and do not run", [Line(listed(idle, 10))] if idle else [])
    yield Section("Policies", [judgement(plan, result) for result in told.policies])
    yield Section("What needs it", _dependents(told))
    yield Section("Steps", [step_line_of(number, step) for number, step in told.steps])


def _causes(told: Explanation) -> Iterator[Line]:
    shown, more = first(told.causes, _LISTED, "causes")
    for cause in shown:
        sign, color = signs.OF_ACTION[cause.action]
        text = f"{sign} {cause.address}  {cause.action.value}: {cause.reason}"
        yield Line(text, indent=2 * cause.depth, fg=color)
    yield from more


def _rollout(plan: Plan, told: Explanation) -> Iterator[Line]:
    then = rollouts(plan).get(told.address)
    if then:
        yield Line(then)


def _differs(told: Explanation) -> list[Line]:
    change = told.change
    if change is None or change.action in (Action.CREATE, Action.DELETE, Action.ADOPT):
        return []
    head = [Line(versions(change))] if change.before != change.after else []
    return head + [line for diff in change.diffs for line in field_lines(diff)]


def _dependents(told: Explanation) -> list[Line]:
    shown, more = first(told.dependents, _LISTED, "dependents")
    return [Line(str(address)) for address in shown] + more
