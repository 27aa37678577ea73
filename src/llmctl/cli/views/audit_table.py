"""An export as a table for spreadsheets: a row for each change of each entry, and one for an entry without any."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator

from llmctl.app.audit_export import Report
from llmctl.app.packets import ChangeTold, GateTold, Packet
from llmctl.cli.views.layout import cut, one_line
from llmctl.plan import FieldDiff

COLUMNS = (
    "environment", "serial", "time", "actor", "machine", "action", "outcome", "subject", "reason",
    "resource", "change", "state", "why", "moved_from", "version_before", "version_after", "revision_before",
    "revision_after", "fields", "gates", "policies_not_met", "waivers", "approvals_required", "approvals",
    "break_glass", "break_glass_state", "reconciles", "promoted_from", "plan", "source_commit",
    "source_subject", "source_modified", "ci_run", "commit", "signed",
)  # fmt: skip

_CELL = 30_000  # characters: a spreadsheet takes 32,767
_VALUE = 400  # characters of one side of a field
# What spreadsheets take for a formula, also after blanks and in its full-width forms.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20|%]")


def render_table(report: Report) -> str:
    """The CSV text, with lines that end as RFC 4180 has them."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for packet in report.packets:
        entry = _entry(report.environment, packet)
        for change in packet.changes or (None,):
            row = {**entry, **(_change(change) if change else {})}
            writer.writerow([cell(row.get(column, "")) for column in COLUMNS])
    return out.getvalue()


def cell(value: object) -> str:
    """One cell: a line of text, and never a formula."""
    text = cut(one_line(str(value)), _CELL)
    return f"'{text}" if _FORMULA.match(text) else text


def _entry(environment: str, packet: Packet) -> dict[str, object]:
    entry, broken = packet.entry, packet.break_glass
    closed = f"reconciled by {packet.reconciled_by}" if packet.reconciled_by else "reconciled"
    return {
        "environment": environment,
        "serial": entry.serial,
        "time": entry.time,
        "actor": entry.actor,
        "machine": packet.machine,
        "action": entry.action,
        "outcome": entry.outcome,
        "subject": entry.subject,
        "reason": packet.reason,
        "gates": "; ".join(_gate(gate) for gate in packet.gates),
        "policies_not_met": "; ".join(f"{p['policy']} on {p['address']}" for p in packet.policies if not p["ok"]),
        "waivers": "; ".join(_waivers(packet)),
        "approvals_required": packet.approvals_required or "",
        "approvals": "; ".join(f"{a.signer} {a.key} at {a.at}" for a in packet.approvals),
        "break_glass": broken.reason if broken else "",
        "break_glass_state": "" if broken is None else "open" if packet.is_open else closed,
        "reconciles": " ".join(map(str, packet.reconciles)),
        "promoted_from": f"{packet.promotion.origin} serial {packet.promotion.serial}" if packet.promotion else "",
        "plan": packet.plan,
        "source_commit": packet.source_commit,
        "source_subject": packet.source_subject,
        "source_modified": "yes" if packet.source_modified else "no",
        "ci_run": packet.run,
        "commit": entry.commit,
        "signed": "yes" if packet.signed else "no",
    }


def _change(change: ChangeTold) -> dict[str, object]:
    return {
        "resource": change.address,
        "change": change.action,
        "state": change.state,
        "why": change.why,
        "moved_from": change.moved_from or "",
        "version_before": change.version_before or "",
        "version_after": change.version_after or "",
        "revision_before": change.revision_before,
        "revision_after": change.revision_after,
        "fields": "; ".join(_field(diff) for diff in change.fields),
    }


def _field(diff: FieldDiff) -> str:
    sides = [_value(value) for value in (diff.before, diff.after) if value is not None]
    return f"{diff.path}: {' → '.join(sides)}"


def _value(value: object) -> str:
    return cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), _VALUE)


def _gate(gate: GateTold) -> str:
    if gate.evidence is None:
        return f"{gate.gate} {gate.verdict} (no evidence)"
    figures = ", ".join(f"{j.metric} {j.rule} {j.threshold:g}: {j.estimate:.4g}" for j in gate.evidence.judgements)
    return f"{gate.gate} {gate.verdict} ({figures}; {gate.evidence.samples} samples)"


def _waivers(packet: Packet) -> Iterator[str]:
    for outcome in packet.policies:
        waiver = outcome.get("waiver")
        if isinstance(waiver, dict):
            until = f"until {waiver.get('until')} by {waiver.get('approved_by')}"
            yield f"{outcome['policy']} on {outcome['address']} {until}"
