"""A gate's evidence: metric, threshold, estimate, interval, verdict, and the worst rows."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Container, Iterable, Iterator

import click

from llmctl.apply import GateReport
from llmctl.cli.views.layout import one_line, screen_width
from llmctl.core.digests import Json
from llmctl.core.evidence import Judgement, Verdict
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
    for text in judgement_lines(evidence.judgements, report.cached):
        yield f"  {text}"
    if evidence.verdict.blocks and report.worst:
        yield click.style("  worst rows", bold=True)
        for row in report.worst:
            asked = "; ".join(f"{value}" for value in row.inputs.values())
            yield f"    {one_line(row.id)}  {_cut(asked)}"
            yield click.style(f"      expected  {_cut(str(row.expected))}", fg="green")
            yield click.style(f"      answered  {_cut(str(row.answer))}", fg="red")


def judgement_lines(judgements: Iterable[Judgement], cached: Container[str] = ()) -> Iterator[str]:
    """One for each threshold, in columns: rule, estimate, interval, verdict; ``cached`` were not measured anew."""
    rules = [(_rule(j), j) for j in judgements]
    width = max((len(rule) for rule, _ in rules), default=0)
    for rule, judgement in rules:
        yield _judgement(f"{rule:<{max(width, _RULE)}}", judgement, cached=judgement.metric in cached)


def _rule(j: Judgement) -> str:
    return f"{j.metric} {_SIGN[j.rule]} {j.threshold:g}" + (f" where {one_line(j.slice)}" if j.slice else "")


def _judgement(rule: str, j: Judgement, *, cached: bool) -> str:
    if j.verdict is Verdict.NOT_APPLICABLE:
        return click.style(f"{rule} n/a: nothing else is live to compare with", dim=True)
    text = f"{rule} {_number(j.estimate):>8}  [{_number(j.lower)}, {_number(j.upper)}] at {j.confidence:.0%}"
    more = f"  {j.samples_needed} samples would settle it" if j.samples_needed else ""
    more += "  by the figure alone" if j.method == POINT else ""
    note = click.style("  from recorded evidence", dim=True) if cached else ""
    return f"{text}  {click.style(j.verdict.value, fg=_COLOR[j.verdict])}{more}{note}"


def _number(value: float) -> str:
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "-∞"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _cut(text: str) -> str:
    return textwrap.shorten(one_line(text), (screen_width(sys.stderr) or _TEXT) - _INDENT, placeholder=" …")
