"""The parts of a plan below its gist, most important first: the same for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from llmctl.cli.views import signs
from llmctl.cli.views.changed import details, ordered, versions, why
from llmctl.cli.views.gist import Gist
from llmctl.cli.views.layout import NAMED, Line, Section, count, first, listed
from llmctl.cli.views.risks import needed, open_since, proven, reason_of, stood_then
from llmctl.core.diagnostics import Diagnostic, render_plain
from llmctl.core.policies import PolicyResult
from llmctl.core.steps import Move, RunGate, Shift, Step
from llmctl.plan import Drift, GateForecast, Plan
from llmctl.plan.model import Weakening

_LISTED = 50
_STEPS = 100


def sections(plan: Plan, gist: Gist) -> list[Section]:
    """Those that say something; what the gist told in full is not told again."""
    all_of_them = (
        Section("Break-glass", _break_glass(plan)),
        Section("Approvals", _approvals(plan)),
        Section("Warnings", findings(plan.warnings)),
        Section("Blocked: cannot be read, so neither changed nor taken for absent", _blocked(plan)),
        Section("Changes", [] if gist.complete else _overview(plan)),
        Section("Asks for less", [] if gist.complete else weakened_lines(plan.weakened)),
        Section("Gates that will run", gate_lines(plan.gates)),
        Section("Policies", _policies(plan)),
        Section("Drift: what runs is not what was recorded", drift_lines(plan.drift)),
        Section("Blast radius", _impact(plan)),
        Section("Left out by --target", _left_out(plan)),
        Section("Details", list(details(plan.changes)), code="diff"),
        Section("Steps", _steps(plan.steps)),
    )
    return [section for section in all_of_them if section.lines]


def _break_glass(plan: Plan) -> list[Line]:
    """What is skipped now, what was skipped before and is open, and what closes that."""
    lines = [Line(f"✗ {gate} is skipped", fg="red") for gate in plan.skipped_gates]
    for each in plan.recorded.break_glass:
        lines.append(Line(f"✗ {open_since(each)}", fg="red"))
        lines += [Line(f"{gate} has not passed what serves since", indent=4) for gate in each.gates]
        if each.approvals:
            verb = "was" if each.approvals == 1 else "were"
            lines.append(Line(f"{count(each.approvals, 'approval')} {verb} missing", indent=4))
    if plan.recorded.break_glass and not plan.break_glass and plan.action == "apply":
        lines.append(Line("An ordinary apply puts it right: its gates pass, and it has its approvals.", dim=True))
    return lines


def _approvals(plan: Plan) -> list[Line]:
    consent = plan.approvals
    if not consent.required:
        return []
    shown, more = first(consent.refused, _LISTED, "approvals")
    return [
        Line(needed(consent), fg="yellow" if consent.missing else "green"),
        *(Line(f"✓ {name}", indent=4, fg="green") for name in consent.given),
        *(Line(f"✗ {text}", indent=4, fg="red") for text in shown),
        *more,
    ]


def drift_lines(drifted: Sequence[Drift]) -> list[Line]:
    """What drifted and how."""
    shown, more = first(drifted, _LISTED, "drifted")
    lines = []
    for drift in shown:
        lines.append(Line(f"↺ {drift.address}: {drift.summary}", fg="cyan"))
        lines += [Line(text, indent=6) for text in drift.details]
    return [*lines, *more]


def short_step(step_id: str) -> str:
    """A step's id with its revision cut to eight digits."""
    head, at, revision = step_id.rpartition("@")
    return f"{head}@{revision[:8]}" if at else step_id


def findings(found: Iterable[Diagnostic]) -> list[Line]:
    """Diagnostics as lines."""
    colors = {"error:": "red", "warning:": "yellow"}
    lines = (line for finding in found for line in render_plain(finding).rstrip().split("\n"))
    return [Line(line, indent=0, fg=colors.get(line.partition(" ")[0])) for line in lines]


def _blocked(plan: Plan) -> list[Line]:
    lines = findings(plan.blocked)
    if plan.waiting:
        shown, more = first(plan.waiting, _LISTED, "held")
        lines += [Line(f"held until it can be read: {address}", fg="yellow") for address in shown] + more
    return lines


def _overview(plan: Plan) -> list[Line]:
    shown, more = first(ordered(plan.changes), _LISTED, "changes")
    width = max(len(str(c.address)) for c in shown)
    lines = []
    for change in shown:
        sign, color = signs.OF_ACTION[change.action]
        text = f"{sign} {change.address!s:<{width}}  {change.action.value:<8} {versions(change):<9} {why(change)}"
        lines.append(Line(text, fg=color))
    return [*lines, *more]


def weakened_lines(weakened: Sequence[Weakening]) -> list[Line]:
    """In which ways each asks for less, and compared with what."""
    lines = []
    for weakening in weakened:
        lines.append(Line(f"▼ {weakening.address}, compared with {weakening.against}", fg="yellow"))
        lines += [Line(text, indent=4) for text in weakening.what]
    return lines


def gate_lines(gates: Sequence[GateForecast]) -> list[Line]:
    """Each gate with its thresholds, why it runs, and what is known of its verdict already."""
    shown, more = first(gates, _LISTED, "gates")
    lines = []
    for gate in shown:
        which = f"{gate.gate} as recorded" if gate.as_recorded else str(gate.gate)
        lines.append(Line(f"{which} on {gate.route}@{gate.revision[:8]}"))
        lines += [Line(rule, indent=4) for rule in gate.rules]
        note = gate.why + (f", compared with {gate.baseline[:8]}" if gate.baseline else "")
        if gate.cached:
            color = "green" if gate.cached == "PASS" else "red"
            lines.append(Line(f"{note}; {proven(gate)}", indent=4, fg=color))
        else:
            lines.append(Line(note, indent=4, dim=True))
    return [*lines, *more]


def _policies(plan: Plan) -> list[Line]:
    """Refusals, then warnings, then exceptions, then how many hold; nothing of it for a plan without steps."""
    lines: list[Line] = []
    shown_denials, more_denials = first(plan.denials, _LISTED, "refusals")
    for denial in shown_denials:
        about = f"{denial.address}: " if denial.address else ""
        lines.append(Line(f"✗ {about}{denial.summary}", fg="red"))
        lines += [Line(text, indent=4) for text in (denial.detail, denial.hint) if text]
    lines += more_denials
    notable = sorted((p for p in plan.policies if not p.ok or p.note), key=lambda p: (not p.denies, p.ok))
    shown, more = first(notable, _LISTED, "judgements")
    lines += [judgement(plan, result) for result in shown]
    lines += more
    held = [p for p in plan.policies if p.ok]
    if held and (lines or not plan.is_empty):
        names = listed(sorted({p.policy for p in held}), 10)
        lines.append(Line(f"✓ {count(len(held), 'check holds', 'checks hold')}: {names}", fg="green"))
    return lines


def judgement(plan: Plan, result: PolicyResult) -> Line:
    """What one policy says of one resource."""
    name = f"policy.{result.policy}{stood_then(plan, result.policy, result.basis)}"
    if result.ok and result.note:
        return Line(f"! {name} holds for {result.address}: {result.note}", fg="yellow")
    if result.ok:
        return Line(f"✓ {name} holds for {result.address}", fg="green")
    if result.waiver is not None:
        waiver = result.waiver
        text = f"! {name} is waived for {result.address} until {waiver.until}: {waiver.reason}"
        note = f"; {result.note}" if result.note else ""
        return Line(f"{text} (approved by {waiver.approved_by}){note}", fg="yellow")
    word, color = ("denies", "red") if result.denies else ("warns about", "yellow")
    return Line(f"✗ {name} {word} {result.address}: {reason_of(result)}", fg=color)


def _impact(plan: Plan) -> list[Line]:
    shown, more = first(plan.impact, _LISTED, "sentences")
    return [Line(text) for text in shown] + more


def _left_out(plan: Plan) -> list[Line]:
    """The gist names three; one that it names all of needs no section."""
    if len(plan.left_out) <= NAMED:
        return []
    shown, more = first(plan.left_out, _LISTED, "left out")
    return [Line(str(address)) for address in shown] + more


def _steps(steps: tuple[Step, ...]) -> list[Line]:
    number = {step.id: index for index, step in enumerate(steps, 1)}
    shown, more = first(steps, _STEPS, "steps")
    lines = []
    for step in shown:
        waits = sorted(number[need] for need in (*step.needs, *step.after) if need in number)
        line = step_line_of(number[step.id], step)
        lines.append(replace(line, note=f"after {listed(waits, 6)}") if waits else line)
    return [*lines, *more]


def step_line_of(number: int, step: Step) -> Line:
    """A planned step with its number."""
    return Line(f"{number:>3} {short_step(step.id)}{_more_of(step)}", hang=4)


def _more_of(step: Step) -> str:
    """What a step's id does not say."""
    if isinstance(step, Shift):
        shares = ", ".join(f"{share} % {revision[:8]}" for revision, share in step.weights if share)
        return f"  {shares}" + (f" for {step.hold_s:g} s" if step.hold_s else "")
    if isinstance(step, Move):
        return f"  from {step.origin}"
    if isinstance(step, RunGate) and step.as_recorded:
        return "  as recorded"
    return ""
