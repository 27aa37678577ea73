"""An export as one page that needs nothing else: to read on a screen, to print, to file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.app.audit_export import Report
from llmctl.app.packets import ChangeTold, GateTold, Packet
from llmctl.cli.views.audit import moment, name_of, versions_told
from llmctl.cli.views.audit_packet import packet_json
from llmctl.cli.views.changed import field_lines
from llmctl.cli.views.layout import cut
from llmctl.core.diagnostics import printable
from llmctl.core.digests import Json
from llmctl.core.evidence import Judgement, Verdict

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATE = Path(__file__).with_name("audit_report.html.j2")
_RULE = {"min": "≥", "max": "≤", "max_drop": "drop ≤"}
_OUTCOME = {
    "applied": ("✓", "good"),
    "failed": ("✗", "bad"),
    "rolled back": ("↶", "back"),
    "interrupted": ("‖", "bad"),
    "aborted": ("■", "bad"),
}
_VERDICT = {"PASS": "good", "FAIL": "bad", "INCONCLUSIVE": "back"}
_NOT_KEPT = {"taken back": "tried, and taken back", "not reached": "planned, and not reached"}
_FIELDS = 60  # of one resource; the JSON export has all
_MADE = 30  # resources of one entry whose first fields are listed
_WHOLE = 400  # characters of a value of what was created or deleted


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a difference; ``kind`` is "gone", "come" or "" for neither."""

    text: str
    kind: str
    depth: int


@dataclass(frozen=True, slots=True)
class _Notice:
    """Something to look at first, with the serials that it is about."""

    tone: str
    title: str
    text: str
    serials: tuple[int, ...]


def report_json(report: Report) -> dict[str, Json]:
    """The same for programs: every packet, with the numbers of the period."""
    return {
        "format": 1,
        "kind": "llmctl audit export",
        "environment": report.environment,
        "project": report.project,
        "head": report.head,
        "since": report.since or None,
        "before": report.before or None,
        "made_at": report.made_at,
        "llmctl": report.version,
        "entries_in_record": report.total,
        "missing_serials": list(report.missing),
        "open_elsewhere": [broken.to_json() for broken in report.open_elsewhere],
        "figures": asdict(report.figures),
        "entries": [packet_json(report.environment, packet) for packet in report.packets],
    }


def render_report(report: Report) -> str:
    """The page as HTML. Texts of the record are data in it: escaped, and without what steers a display."""
    return (
        _environment()
        .from_string(_TEMPLATE.read_text(encoding="utf-8"))
        .render(
            report=report,
            figures=report.figures,
            notices=list(_notices(report)),
            span=_span(report),
            completeness=_completeness(report),
        )
    )


def _environment() -> Environment:
    from jinja2 import Environment, StrictUndefined

    made = Environment(
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(when=moment, who=name_of, short=lambda text: str(text)[:8])
    made.globals.update(
        changed=_changed,
        difference=_difference,
        rule=_rule,
        figure=_figure,
        interval=_interval,
        outcome_of=lambda outcome: _OUTCOME.get(outcome, ("·", "")),
        verdict_of=lambda verdict: _VERDICT.get(verdict, ""),
        gates_told=_gates_told,
        not_kept=lambda change: _NOT_KEPT.get(change.state, ""),
        versions_told=versions_told,
        is_link=lambda text: str(text).startswith(("https://", "http://")),
        skipped_told=_skipped_told,
        seconds=lambda step: f"{step['seconds']:.3f}" if isinstance(step.get("seconds"), int | float) else "",
    )
    return made


def _shown(value: Any) -> Any:
    """Text as it may be shown, and nothing for what is not there."""
    if value is None:
        return ""
    return printable(value) if type(value) is str else value


def _span(report: Report) -> str:
    """The period in words."""
    if not report.since and not report.before:
        return "from the beginning of the record until the export"
    since = f"from {moment(report.since)}" if report.since else "from the beginning of the record"
    return f"{since} {f'to before {moment(report.before)}' if report.before else 'until the export'}"


def _completeness(report: Report) -> str:
    """How much of the record this is, so that nobody has to believe that nothing was left out."""
    serials = [packet.entry.serial for packet in report.packets]
    if not serials:
        return f"none of the {report.total:,} entries of the record lies in this period"
    which = f"serials {serials[0]} to {serials[-1]}" if len(serials) > 1 else f"serial {serials[0]}"
    gaps = "the record has gaps, see below" if report.missing else "none left out"
    return f"{len(serials):,} of the {report.total:,} in the record: {which}, {gaps}"


def _notices(report: Report) -> Iterator[_Notice]:
    """What an auditor looks at first, the gravest before the others."""
    figures, by = report.figures, {p.entry.serial: p for p in report.packets}
    if report.missing:
        text = "The record ought to have these serials and has not. Run llmctl audit verify."
        yield _Notice("bad", "Missing serials", text, report.missing)
    if figures.still_open:
        text = "Approvals or gates were skipped in an emergency, and no apply has reconciled it yet."
        yield _Notice("bad", "Break-glass, still open", text, figures.still_open)
    for broken in report.open_elsewhere:
        title = f"Break-glass of serial {broken.serial}, in another period, still open"
        yield _Notice("bad", title, f"{broken.at}, {broken.actor}: {broken.reason}", ())
    closed = tuple(n for n in figures.broken if n not in figures.still_open)
    if closed:
        yield _Notice("back", "Break-glass, reconciled", "A later apply, or a rollback, put it right.", closed)
    damaged = tuple(n for n, p in by.items() if p.damaged or any(gate.evidence is None for gate in p.gates))
    if damaged:
        yield _Notice("bad", "Parts that are missing or damaged", "Run llmctl audit verify.", damaged)
    unapproved = tuple(n for n in figures.short_of_approvals if n not in figures.broken)
    if unapproved:
        text = "Fewer approvals are recorded than the environment required."
        yield _Notice("bad", "Short of approvals", text, unapproved)
    for outcome, title, text in (
        ("failed", "Failed", "What served before still served; what was made was taken back."),
        ("interrupted", "Interrupted", "A crash, a vanished runner or Ctrl-C; the next apply went on from there."),
        ("aborted", "Aborted", "Ended before anything was done."),
        ("rolled back", "Rolled back", "The revision that was left is refused until somebody allows it again."),
    ):
        if serials := tuple(n for n, p in by.items() if p.entry.outcome == outcome):
            yield _Notice("bad" if outcome == "interrupted" else "back", title, text, serials)
    if figures.waived:
        yield _Notice("", "Policies waived", "A policy was not met, and somebody answers for that.", figures.waived)
    if figures.modified:
        text = "The files that were applied differed from the source commit."
        yield _Notice("", "Applied from uncommitted files", text, figures.modified)


def _changed(change: ChangeTold, place: int) -> list[_Line]:
    """What differs in one resource, by lines. Of what is new or gone, what it held; not for hundreds at once."""
    if not change.fields or (place >= _MADE and not (change.version_before and change.version_after)):
        return []
    lines: list[_Line] = []
    for diff in change.fields[:_FIELDS]:
        if change.version_before and change.version_after:
            lines += [_Line(line.text, _kind(line.text, line.fg), (line.indent - 4) // 2) for line in field_lines(diff)]
        else:
            value = diff.after if diff.after is not None else diff.before
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            lines.append(_Line(f"{diff.path}: {cut(text, _WHOLE)}", "", 0))
    if len(change.fields) > _FIELDS:
        lines.append(_Line(f"… and {len(change.fields) - _FIELDS} more fields; the JSON export has all", "", 0))
    return lines


def _difference(change: ChangeTold) -> bool:
    """Whether both sides are there, so that a difference can be told."""
    return bool(change.version_before and change.version_after)


def _kind(text: str, color: str | None) -> str:
    return {"red": "gone", "green": "come"}.get(color or "", "") if text[:1] in "+-" else ""


def _rule(j: Judgement) -> str:
    return f"{j.metric} {_RULE.get(j.rule, j.rule)} {j.threshold:g}" + (f" where {j.slice}" if j.slice else "")


def _figure(j: Judgement) -> str:
    return "–" if j.verdict is Verdict.NOT_APPLICABLE else _number(j.estimate)


def _interval(j: Judgement) -> str:
    return "–" if j.verdict is Verdict.NOT_APPLICABLE else f"{_number(j.lower)} … {_number(j.upper)}"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def _gates_told(gates: Sequence[GateTold]) -> list[tuple[str, str, int]]:
    """Gate, verdict and how often, for a cell of the table."""
    found: dict[tuple[str, str], int] = {}
    for gate in gates:
        found[gate.gate, gate.verdict] = found.get((gate.gate, gate.verdict), 0) + 1
    return [(name, verdict, n) for (name, verdict), n in found.items()]


def _skipped_told(packet: Packet) -> str:
    broken = packet.break_glass
    if broken is None:
        return ""
    missing = [f"{broken.approvals} approval{'s' * (broken.approvals != 1)}"] if broken.approvals else []
    return ", ".join([*missing, *map(str, broken.gates)]) or "nothing"
