"""How an apply ended: what happened, what did not and why, where the evidence is, what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from llmctl.app.applying import Outcome
from llmctl.apply import State
from llmctl.cli.views.diagnostics import render
from llmctl.cli.views.gate import gate_json, refusal
from llmctl.cli.views.gist import nothing
from llmctl.cli.views.layout import Line, count, first, rendered, screen_width
from llmctl.cli.views.sections import short_step
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.errors import GateBlocked, Interrupted
from llmctl.core.exits import ExitCode
from llmctl.core.steps import Promote, RunGate, Stage, Step
from llmctl.plan import diagnostic_json, plan_digest
from llmctl.record.layout import evidence_path

_LISTED = 20
_EVIDENCE = 10
_WORDS = {ExitCode.INTERRUPTED: "interrupted", ExitCode.GATE: "stopped by its gate"}


def render_summary(outcome: Outcome, option: str = "") -> str:
    """What is wrong first, the sentence that sums up and what to do next last: nearest to the prompt.

    ``option`` is what the commands that are named need to mean the same project, such as `` -e dev``.
    """
    width, plan = screen_width(), outcome.plan
    if outcome.declined:
        return "Nothing was changed."
    if outcome.serial == 0:
        said = "Nothing to destroy." if plan.action == "destroy" else nothing(plan)
        return rendered([Line(said, indent=0, bold=True)], width)
    warnings = outcome.result.warnings if outcome.result else ()
    parts = _told_once((render(found) for found in _errors(outcome)), "errors", width)
    parts += _told_once((render([warning]) for warning in warnings), "warnings", width)
    told = [*_what_did_not(outcome)]
    if told:
        parts.append(rendered(told, width))
    parts.append(rendered([_headline(outcome), *_evidence(outcome, option), *_next(outcome, option)], width))
    return "\n\n".join(parts)


def _told_once(texts: Iterable[str], what: str, width: int | None) -> list[str]:
    """What hundreds of steps ended with for one cause is said once, and no more than fits on a screen or two."""
    counted = Counter(texts)
    shown, more = first(list(counted), _LISTED, what)
    times = {text: f"\n  = {number:,} times" if number > 1 else "" for text, number in counted.items()}
    return [*(text.rstrip("\n") + times[text] for text in shown), *([rendered(more, width)] if more else [])]


def outcome_json(outcome: Outcome) -> dict[str, Json]:
    """The same for programs."""
    result, plan = outcome.result, outcome.plan
    results = result.results if result else ()
    return {
        "format": 1,
        "action": plan.action,
        "environment": plan.desired.environment.name,
        "plan": plan_digest(plan),
        "serial": outcome.serial,
        "exit_code": int(outcome.exit_code),
        "changed": outcome.serial > 0,
        "finished": outcome.finished or (outcome.serial == 0 and not outcome.declined),  # nothing to do is done
        "declined": outcome.declined,
        "steps": [
            {
                "id": r.step.id,
                "state": r.state.value,
                "text": r.text,
                "seconds": round(r.seconds, 3),
                "tries": r.tries,
                "because": r.because,
            }
            for r in results
        ],
        "break_glass": plan.break_glass,
        "skipped_gates": [str(gate) for gate in plan.skipped_gates],
        "reconciles": list(plan.reconciles),
        "approvals": {"required": plan.approvals.required, "given": list(plan.approvals.given)},
        "held": [str(address) for address in plan.waiting],
        "blocked": [diagnostic_json(d) for d in plan.blocked],
        "left_out": [str(address) for address in plan.left_out],
        "gates": [{**gate_json(g), "path": evidence_path(g.evidence)} for g in (result.gates if result else ())],
        "warnings": [diagnostic_json(d) for d in (result.warnings if result else ())],
        "errors": [diagnostic_json(d) for found in _errors(outcome) for d in found],
    }


def _errors(outcome: Outcome) -> Iterator[list[Diagnostic]]:
    """The findings of each error; of a gate whose requests failed, with why they did."""
    results = outcome.result.results if outcome.result else ()
    judged = {id(r.error): r.step for r in results if isinstance(r.step, RunGate) and r.error is not None}
    reports = {
        (g.evidence.gate, g.evidence.route_revision, g.as_recorded): g
        for g in (outcome.result.gates if outcome.result else ())
    }
    for error in outcome.errors:
        step = judged.get(id(error))
        report = reports.get((step.address.name, step.revision, step.as_recorded)) if step else None
        found = error.diagnostics()
        yield [refusal(d, report) for d in found] if report and isinstance(error, GateBlocked) else found


def _what_did_not(outcome: Outcome) -> Iterator[Line]:
    """What did not happen, or only in the end, and why; what failed itself is told by its error above."""
    result, plan = outcome.result, outcome.plan
    causes: dict[str, list[str]] = {}
    errors = {r.step.id: r.error for r in (result.results if result else ())}
    for skipped in result.skipped if result else ():
        ended = "was interrupted" if isinstance(errors.get(skipped.because), Interrupted) else "failed"
        cause = f"{short_step(skipped.because)} {ended}" if skipped.because else skipped.text or "interrupted"
        causes.setdefault(cause, []).append(short_step(skipped.step.id))
    for cause, names in causes.items():
        yield from _named(f"· not started, {cause}", names)
    undone = [short_step(r.step.id) for r in (result.undone if result else ())]
    yield from _named("↶ taken back, for nothing uses it", undone, "yellow")
    again = [f"{short_step(r.step.id)} ({r.tries} tries)" for r in (result.results if result else ()) if r.tries > 1]
    yield from _named("! tried again", again, "yellow")
    unread = [f"{d.address or 'the target'} ({d.summary})" for d in plan.blocked]
    yield from _named("! left as it is, for it cannot be read", unread, "yellow")
    yield from _named("! held, for it needs that", [str(a) for a in plan.waiting], "yellow")
    yield from _named("! left out by --target", [str(a) for a in plan.left_out], "yellow")


def _named(what: str, names: list[str], color: str | None = None) -> Iterator[Line]:
    if names:
        shown, more = first(names, _LISTED, "of them")
        yield Line(f"{what}: {', '.join(shown)}", indent=0, fg=color)
        yield from more


def _headline(outcome: Outcome) -> Line:
    plan, results = outcome.plan, outcome.result.results if outcome.result else ()
    counts = {state: sum(r.state is state for r in results) for state in State}
    said = ", ".join(f"{number} {state.value}" for state, number in counts.items() if number) or "no steps"
    word, color = ("done", "green") if outcome.finished else (_WORDS.get(outcome.exit_code, "failed"), "red")
    if outcome.finished and plan.blocked:
        word, color = "done in part", "yellow"
    place = f"recorded as serial {outcome.serial} on branch llmctl/{plan.desired.environment.name}"
    what = f"{plan.action.capitalize()}{' (break-glass)' if plan.break_glass else ''}"
    return Line(f"{what} {word} ({said}); {place}.", indent=0, fg=color, bold=True)


def _evidence(outcome: Outcome, option: str) -> Iterator[Line]:
    """Where a gate's figures stand for whoever was not there; one that passed is in `audit show` as well."""
    if outcome.finished or outcome.result is None:
        return
    branch = f"llmctl/{outcome.plan.desired.environment.name}"
    blocking = [report.evidence for report in outcome.result.gates if report.evidence.verdict.blocks]
    for evidence in blocking[:_EVIDENCE]:
        text = f"Evidence of gate.{evidence.gate}: git show {branch}:{evidence_path(evidence)}"
        yield Line(text, indent=0, dim=True)
    if (rest := len(blocking) - _EVIDENCE) > 0:
        yield Line(f"… and {rest:,} more: `llmctl audit show {outcome.serial}{option}`", indent=0, dim=True)


def _next(outcome: Outcome, option: str) -> Iterator[Line]:
    plan = outcome.plan
    if outcome.finished and outcome.exit_code is ExitCode.INTERRUPTED:
        text = "The interruption came when every step was done or in hand: nothing is left to do."
        yield Line(text, indent=0, dim=True)
        return
    rest = len(plan.waiting) + len(plan.left_out)
    if outcome.finished and rest:
        yield Line(
            f"{count(rest, 'change')} still to do: `llmctl plan{option}` shows {'it' if rest == 1 else 'them'}.",
            indent=0,
            dim=True,
        )
    if outcome.finished and plan.break_glass:
        text = f"The break-glass is open until it is put right: `llmctl plan{option}` shows what is missing."
        yield Line(text, indent=0, fg="red", bold=True)
    routes = sorted(a.name for a in plan.desired.resources if a.kind == "route")
    if outcome.finished:
        if routes and plan.action == "apply":
            yield Line(f'Ask it: llmctl chat {routes[0]} "…"{option}', indent=0, dim=True)
        return
    held = "What served before still serves. " if _held(outcome) else ""
    again = "" if outcome.exit_code is ExitCode.GATE else f" `llmctl {plan.action}{option}` goes on from here."
    yield Line(f"{held}llmctl audit show {outcome.serial}{option} tells all.{again}", indent=0, dim=True)


def _restores(step: Step) -> bool:
    return step.id.startswith("restore:")


def _held(outcome: Outcome) -> bool:
    """Whether every route serves what it served before: what was staged is taken back, what was away is back."""
    served = any(address.kind == "route" for address in outcome.plan.recorded.resources)
    results = outcome.result.results if outcome.result else ()
    moved = any(isinstance(r.step, Stage | Promote) and r.state.ok and not _restores(r.step) for r in results)
    lost = any(_restores(r.step) and not r.state.ok for r in results)
    return served and not moved and not lost and outcome.plan.action != "destroy"
