"""A gate's evidence: metric, threshold, estimate, interval, verdict, and the worst rows."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Container, Iterator
from dataclasses import replace

import click

from llmctl.apply import GateReport
from llmctl.cli.views.layout import one_line, screen_width
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.evidence import Evidence, Judgement, Verdict
from llmctl.gates import METRICS, Failures, limits_of
from llmctl.gates.metrics import Figure
from llmctl.gates.request import REQUEST_TIMEOUT_S
from llmctl.gates.verdicts import POINT

_TEXT = 116  # columns for a row's text where no terminal sets them
_INDENT = 16
_RULE = 28  # columns of a threshold, where all are short
_SIGN = {"min": "≥", "max": "≤", "max_drop": "drop ≤"}
_COLOR = {
    Verdict.PASS: "green",
    Verdict.FAIL: "red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.NOT_APPLICABLE: None,
}


def gate_json(report: GateReport) -> dict[str, Json]:
    """The evidence as it is recorded, with the ids of the worst rows and without their texts."""
    more = {"digest": report.evidence.digest, "cached": list(report.cached), "as_recorded": report.as_recorded}
    return {**report.evidence.to_json(), **more}


def render_gate(report: GateReport) -> str:
    """What the gate measured, and when it blocks the worst rows to look at."""
    return "\n".join(_lines(report))


def _lines(report: GateReport) -> Iterator[str]:
    evidence = report.evidence
    verdict = click.style(evidence.verdict.value, fg=_COLOR[evidence.verdict], bold=True)
    against = f" compared with {evidence.baseline_revision[:8]}" if evidence.baseline_revision else ""
    which = f"{evidence.gate} as recorded" if report.as_recorded else evidence.gate
    yield (
        f"gate.{which} {verdict}  {evidence.route}@{evidence.route_revision[:8]}{against}, "
        f"{evidence.samples} samples in {evidence.seconds:.1f} s"
    )
    failures = _failures(report)
    if failures is not None:
        yield click.style(f"  {_cut(_said(failures))}", fg="red" if evidence.verdict.blocks else "yellow")
    for text in judgement_lines(evidence, report.cached):
        yield f"  {text}"
    if evidence.verdict.blocks and report.worst:
        yield click.style("  worst rows", bold=True)
        for row in report.worst:
            asked = "; ".join(f"{value}" for value in row.inputs.values())
            yield f"    {one_line(row.id)}  {_cut(asked)}"
            yield click.style(f"      expected  {_cut(str(row.expected))}", fg="green")
            if row.answer or not row.error:
                yield click.style(f"      answered  {_cut(str(row.answer))}", fg="red")
            if row.error:
                yield click.style(f"      no answer {_cut(row.error)}", fg="red")


def refusal(diagnostic: Diagnostic, report: GateReport) -> Diagnostic:
    """What is said of a gate that stopped an apply. Where requests failed, the figures say little of the answers,
    and what is to be done is done at the endpoint."""
    failures = _failures(report)
    if failures is None:
        return diagnostic
    blocking = replace(report.evidence, judgements=tuple(j for j in report.evidence.judgements if j.verdict.blocks))
    figures = [click.unstyle(text).rstrip() for text in judgement_lines(blocking, report.cached)]
    which = ["Judged as it is recorded, because this change weakens or deletes it."] if report.as_recorded else []
    hint = "Look at the endpoint: `llmctl logs` and `llmctl status` say why requests fail."
    if failures.failed < failures.asked:
        hint = f"{hint} {diagnostic.hint}".rstrip()
    return replace(diagnostic, detail="\n".join([_said(failures), *which, *figures]), hint=hint)


def _failures(report: GateReport) -> Failures | None:
    return next((row.failures for row in report.worst), None)


def _said(failures: Failures) -> str:
    """``60 of 60 requests got no answer: HTTP 502: …``, with how many of them where there are other reasons."""
    which = f", {failures.alike:,} of them" if failures.alike < failures.failed else ""
    return f"{failures.failed:,} of {failures.asked:,} requests got no answer{which}: {one_line(failures.reason)}"


def judgement_lines(evidence: Evidence, cached: Container[str] = ()) -> Iterator[str]:
    """One for each threshold, in columns: rule, estimate, interval, verdict; ``cached`` were not measured anew."""
    rules = [(_rule(j), j) for j in evidence.judgements]
    width = max((len(rule) for rule, _ in rules), default=0)
    no_answer = limits_of(evidence.gate_spec).get("request_timeout_s", REQUEST_TIMEOUT_S) * 1000
    for rule, judgement in rules:
        text = f"{rule:<{max(width, _RULE)}}"
        yield _judgement(text, judgement, cached=judgement.metric in cached, no_answer=no_answer)


def _rule(j: Judgement) -> str:
    return f"{j.metric} {_SIGN[j.rule]} {j.threshold:g}" + (f" where {one_line(j.slice)}" if j.slice else "")


def _judgement(rule: str, j: Judgement, *, cached: bool, no_answer: float) -> str:
    """``no_answer`` is the latency that stands for a failed request, which is none that was measured."""
    if j.verdict is Verdict.NOT_APPLICABLE:
        return click.style(f"{rule} n/a: nothing else is live to compare with", dim=True)
    known = METRICS.get(j.metric)  # a later version may have recorded one that this one does not know
    failed = known is not None and known.figure is Figure.QUANTILE and j.estimate >= no_answer
    told = f"    none  [{'–' if j.lower >= no_answer else _number(j.lower)}, –]" if failed else _interval(j)
    text = f"{rule} {told} at {j.confidence:.0%}"
    more = f"  {j.samples_needed} samples would settle it" if j.samples_needed else ""
    more += "  by the figure alone" if j.method == POINT else ""
    note = click.style("  from recorded evidence", dim=True) if cached else ""
    return f"{text}  {click.style(j.verdict.value, fg=_COLOR[j.verdict])}{more}{note}"


def _interval(j: Judgement) -> str:
    return f"{_number(j.estimate):>8}  [{_number(j.lower)}, {_number(j.upper)}]"


def _number(value: float) -> str:
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "-∞"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _cut(text: str) -> str:
    return textwrap.shorten(one_line(text), (screen_width(sys.stderr) or _TEXT) - _INDENT, placeholder=" …")
