"""Policies as a list, one of them in full, and how their cases ended: for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from llmctl.app.policy_report import OUTCOMES, Explanation, Judged, PolicyReport, outcome_of
from llmctl.cli.views.layout import Line, count, cut, first, rendered, screen_width
from llmctl.core.digests import Json
from llmctl.core.policies import PolicyResult, Waiver
from llmctl.policy.cases import CaseResult
from llmctl.policy.waivers import SOON_DAYS

_SIGN = {"denies": ("✗", "red"), "warns": ("!", "yellow"), "waived": ("~", "yellow"), "holds": ("✓", "green")}
_SAID = {"denies": "denies", "warns": "warns about", "waived": "waived for", "holds": "holds for"}
_MOST = 20  # results of one sort
_VALUE = 200  # characters of a value


def render_policies(reports: Sequence[PolicyReport], environment: str) -> str:
    """Every policy: what it asks, how often it holds, and its waivers."""
    if not reports:
        return f"llmops.yaml declares no policies for {environment}."
    lines = [Line(f"{count(len(reports), 'policy', 'policies')} in {environment}", indent=0, bold=True)]
    for report in reports:
        lines += [Line("", indent=0), *_headline(report, indent=0)]
        lines += [Line(_waiver(waiver, left), fg=_urgency(left)) for waiver, left in report.waivers]
    return rendered(lines, screen_width())


def render_explanation(found: Explanation) -> str:
    """One policy: its text, what it says of what and why, and what its rule may read."""
    report = found.report
    lines = [*_headline(report, indent=0)]
    lines += [Line(report.spec["message"])] if report.spec["message"] else []
    lines += [Line(str(report.where), dim=True)] if report.where else []
    if found.weakened:
        against = f"Weakened against the record (serial {found.serial})"
        lines += [Line("", indent=0), Line(against, indent=0, bold=True, fg="yellow")]
        lines += [Line(text) for text in found.weakened]
    lines += [Line("", indent=0), Line(f"In {found.environment}", indent=0, bold=True), *_judged(found.judged)]
    if report.waivers:
        lines += [Line("", indent=0), Line("Waivers", indent=0, bold=True)]
        lines += [Line(_waiver(waiver, left), fg=_urgency(left)) for waiver, left in report.waivers]
    lines += [Line("", indent=0), Line("Its rule may read", indent=0, bold=True)]
    width = max(len(path) for path, _ in found.fields)
    lines += [Line(f"{path:<{width}}  {kind}", hang=width + 2) for path, kind in found.fields]
    lines.append(Line("What is not set is null; reading a field of null is an error, and an error denies.", dim=True))
    return rendered(lines, screen_width())


def render_waivers(reports: Sequence[PolicyReport], environment: str) -> str:
    """The waivers of all policies, those that end first on top."""
    found = sorted(((w, left, r.name) for r in reports for w, left in r.waivers), key=lambda f: (f[0].until, f[2]))
    if not found:
        return f"No policy of {environment} has a waiver."
    return rendered(
        [Line(f"policy.{name}: {_waiver(waiver, left)}", indent=0, fg=_urgency(left)) for waiver, left, name in found],
        screen_width(),
    )


def render_cases(results: Sequence[CaseResult], untested: Sequence[str]) -> str:
    """Every case; a failed one with what was expected, what came, and where it stands."""
    lines = []
    for result in results:
        case = result.case
        sign, color = ("✓", "green") if result.passed else ("✗", "red")
        lines.append(Line(f"{sign} {case.policy}: {case.name}", indent=0, fg=color))
        error = f" ({result.error})" if result.error else ""
        if not result.passed:
            lines.append(Line(f"{case.where}: expected {case.expect}, got {result.got}{error}", indent=4))
        elif error:
            lines.append(Line(f"it denies because its rule cannot be evaluated{error}", indent=4, dim=True))
    failed = sum(not result.passed for result in results)
    if untested:
        lines.append(Line(f"No case for: {', '.join(untested)}.", indent=0, dim=True))
    ended = f"{failed:,} of {count(len(results), 'case')} failed" if failed else f"{count(len(results), 'case')} passed"
    lines.append(Line(f"{ended}.", indent=0, bold=True, fg="red" if failed else "green"))
    return rendered(lines, screen_width())


def policies_json(reports: Iterable[PolicyReport], environment: str) -> dict[str, Json]:
    """The list for programs."""
    return {"format": 1, "environment": environment, "policies": [_report_json(report) for report in reports]}


def explanation_json(found: Explanation) -> dict[str, Json]:
    """One policy for programs."""
    return {
        "format": 1,
        "environment": found.environment,
        "serial": found.serial,
        **_report_json(found.report),
        "weakened": list(found.weakened),
        "judged": [
            {**_result_json(judged.result), "values": [{"path": p, "value": v} for p, v in judged.values]}
            for judged in found.judged
        ],
        "fields": [{"path": path, "type": kind} for path, kind in found.fields],
    }


def waivers_json(reports: Iterable[PolicyReport], environment: str) -> dict[str, Json]:
    """The waivers for programs."""
    waivers = [{"policy": r.name, **_waiver_json(w, left)} for r in reports for w, left in r.waivers]
    return {"format": 1, "environment": environment, "waivers": waivers}


def cases_json(results: Sequence[CaseResult], untested: Sequence[str]) -> dict[str, Json]:
    """How the cases ended, for programs."""
    return {
        "format": 1,
        "passed": sum(result.passed for result in results),
        "failed": sum(not result.passed for result in results),
        "untested": list(untested),
        "cases": [
            {
                "policy": r.case.policy,
                "name": r.case.name,
                "expected": r.case.expect,
                "got": r.got,
                "passed": r.passed,
                "error": r.error,
                "where": {"file": r.case.where.file, "line": r.case.where.line, "column": r.case.where.column},
            }
            for r in results
        ],
    }


def _headline(report: PolicyReport, indent: int) -> Iterator[Line]:
    said = [f"{_SAID[outcome]} {report.count(outcome):,}" for outcome in OUTCOMES if report.count(outcome)]
    worst = next((outcome for outcome in OUTCOMES if report.count(outcome)), "holds")
    sign, color = _SIGN[worst]
    spec = report.spec
    text = f"{sign} {report.name}: {spec['severity']}, applies to {spec['applies_to']}; "
    yield Line(text + (", ".join(said) or "nothing to judge"), indent=indent, fg=color)
    yield from (Line(line) for line in spec["require"].strip().splitlines())


def _judged(judged: Sequence[Judged]) -> Iterator[Line]:
    if not judged:
        yield Line("There is nothing of this kind to judge.", dim=True)
    for outcome in OUTCOMES:
        shown, more = first([j for j in judged if outcome_of(j.result) == outcome], _MOST, "like this")
        for one in shown:
            sign, color = _SIGN[outcome]
            yield Line(f"{sign} {one.result.address} {_why(one.result, outcome)}".rstrip(), fg=color)
            yield from (Line(f"{path} = {_value(value)}", indent=6) for path, value in one.values)
        yield from more


def _why(result: PolicyResult, outcome: str) -> str:
    if result.waiver is not None:
        return f"is waived until {result.waiver.until}"
    said = {"denies": "is denied", "warns": "is warned about"}.get(outcome, "")
    if result.basis == "base":
        said += " by the policy as it was before"
    more = ": ".join(text for text in (result.error, result.note) if text)
    return f"{said}: {more}" if more else said


def _value(value: Json) -> str:
    return cut(json.dumps(value, ensure_ascii=False), _VALUE)


def _waiver(waiver: Waiver, left: int) -> str:
    state = "ran out on" if left < 0 else "until"
    when = f" ({count(left, 'day')} left)" if 0 < left <= SOON_DAYS else " (its last day)" if left == 0 else ""
    return (
        f"waiver for {waiver.resource} {state} {waiver.until}{when}: {waiver.reason}, approved by {waiver.approved_by}"
    )


def _urgency(left: int) -> str | None:
    return "red" if left < 0 else "yellow" if left <= SOON_DAYS else None


def _report_json(report: PolicyReport) -> dict[str, Json]:
    spec = report.spec
    where = report.where
    return {
        "name": report.name,
        **{key: spec[key] for key in ("severity", "applies_to", "require", "message")},
        "where": {"file": where.file, "line": where.line, "column": where.column} if where else None,
        "counts": {outcome: report.count(outcome) for outcome in OUTCOMES},
        "waivers": [_waiver_json(waiver, left) for waiver, left in report.waivers],
    }


def _result_json(result: PolicyResult) -> dict[str, Json]:
    return {
        "address": str(result.address),
        "outcome": outcome_of(result),
        "basis": result.basis,
        "error": result.error,
        "note": result.note,
    }


def _waiver_json(waiver: Waiver, left: int) -> dict[str, Json]:
    return {**asdict(waiver), "in_force": left >= 0, "days_left": left}
