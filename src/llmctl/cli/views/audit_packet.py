"""One entry of the record in full: the packet that an auditor samples."""

from __future__ import annotations

from collections.abc import Iterator

import click

from llmctl.app.audit import Sample
from llmctl.app.packets import ChangeTold, GateTold, Packet
from llmctl.cli.views.audit import OUTCOME_COLOR, change_json, change_lines, entry_json, name_of, open_lines
from llmctl.cli.views.gate import judgement_lines
from llmctl.cli.views.layout import Line, first, one_line, rendered, screen_width
from llmctl.core.digests import Json
from llmctl.core.resources import Rejection

_CHANGES = 50
_FAILING = 10  # row ids of a gate that blocked
_NOT_KEPT = {"taken back": "tried, and taken back", "not reached": "planned, and not reached"}


def packet_json(environment: str, packet: Packet) -> dict[str, Json]:
    """One entry in full, for programs."""
    broken = packet.break_glass
    return {
        "format": 1,
        "environment": environment,
        **entry_json(packet.entry),
        "signed": packet.signed,
        "machine": packet.machine,
        "closed_by": packet.closed_by,
        "reason": packet.reason,
        "run": packet.run,
        "plan": packet.plan,
        "source": {
            "commit": packet.source_commit,
            "subject": packet.source_subject,
            "modified": packet.source_modified,
        },
        "changes": [change_json(c) for c in packet.changes],
        "restored": [dict(d) for d in packet.restored],
        "gates": [_gate_json(g) for g in packet.gates],
        "policies": [dict(p) for p in packet.policies],
        "approvals": {"required": packet.approvals_required, "given": [a.to_json() for a in packet.approvals]},
        "break_glass": broken and {**broken.to_json(), "open": packet.is_open, "reconciled_by": packet.reconciled_by},
        "reconciles": list(packet.reconciles),
        "promotion": packet.promotion and packet.promotion.to_json(),
        "rejected": [_rejection_json(r) for r in packet.rejected],
        "allowed": [_rejection_json(r) for r in packet.allowed],
        "steps": [dict(s) for s in packet.steps],
        "unfinished": list(packet.unfinished),
        "commits": [
            {"commit": c.commit, "time": c.time, "subject": c.subject, "resources": [str(a) for a in c.resources]}
            for c in packet.commits
        ],
        "damaged": list(packet.damaged),
        "decisions": packet.decisions,
    }


def _gate_json(gate: GateTold) -> dict[str, Json]:
    evidence = gate.evidence.to_json() if gate.evidence else None
    return {
        "gate": gate.gate,
        "verdict": gate.verdict,
        "digest": gate.digest,
        "earlier": gate.earlier,
        "evidence": evidence,
    }


def _rejection_json(rejection: Rejection) -> dict[str, Json]:
    return {
        "address": str(rejection.address),
        "revision": rejection.revision,
        "serial": rejection.serial,
        "reason": rejection.reason,
        "actor": rejection.actor,
    }


def render_sample(sample: Sample) -> str:
    """Everything about one apply: who, when, what, why, proven and allowed by what."""
    return rendered(_lines(sample), screen_width())


def _lines(sample: Sample) -> Iterator[Line]:
    packet = sample.packet
    entry = packet.entry
    yield from open_lines(b for b in sample.still_open if b.serial != entry.serial)
    yield Line(f"serial {entry.serial} of llmctl/{sample.environment}: {entry.subject}", indent=0, bold=True)
    yield from _broken_glass(packet)
    for name, text in _facts(packet):
        styled = ""
        if name == "outcome":
            styled = f"{name:<8} {click.style(text, fg=OUTCOME_COLOR.get(text))}"
        yield Line(f"{name:<8} {text}", hang=9, styled=styled)
    for title, lines in (
        ("Changes", _changes(packet)),
        ("Restored after drift", [Line(f"{d['address']}  {d['summary']}") for d in packet.restored]),
        ("Gates", [line for gate in packet.gates for line in _gate(gate)]),
        ("Policies", [line for outcome in packet.policies for line in _policy(outcome)]),
        ("Approvals", _approvals(packet)),
        ("Promotion", _promotion(packet)),
        ("Revisions rejected", [_rejection(r) for r in packet.rejected]),
        ("Revisions allowed again", [_rejection(r) for r in packet.allowed]),
        ("Steps", [_step(s) for s in packet.steps]),
        ("Steps whose outcome is not known", [Line(step) for step in packet.unfinished]),
        ("Recorded, a commit each", [Line(f"{c.commit[:10]}  {c.subject}") for c in packet.commits]),
    ):
        found = list(lines)
        if found:
            yield Line("", indent=0)
            yield Line(title, indent=0, bold=True)
            yield from found
    for part in packet.damaged:
        yield Line(f"the record's {part} of this entry cannot be read: run `llmctl audit verify`", indent=0, fg="red")


def _broken_glass(packet: Packet) -> Iterator[Line]:
    broken = packet.break_glass
    if broken is None:
        return
    skipped = [f"{broken.approvals} missing approval{'s' * (broken.approvals != 1)}"] if broken.approvals else []
    skipped += [str(gate) for gate in broken.gates]
    closed = f"reconciled by serial {packet.reconciled_by}" if packet.reconciled_by else "reconciled since"
    yield Line(f"BREAK-GLASS: {broken.reason}", fg="red", bold=True)
    yield Line(f"by {broken.actor} at {broken.at}", indent=4, fg="red")
    yield Line(f"skipped: {', '.join(skipped) or 'nothing'}", indent=4, fg="red")
    yield Line("STILL OPEN: no apply has reconciled it" if packet.is_open else closed, indent=4, fg="red", bold=True)


def _facts(packet: Packet) -> Iterator[tuple[str, str]]:
    entry = packet.entry
    source = packet.source_commit
    reconciles = ", ".join(f"the break-glass of serial {n}" for n in packet.reconciles)
    signed = "signed (`llmctl audit verify` judges by whom)" if packet.signed else "not signed"
    told = {
        "outcome": entry.outcome,
        "action": entry.action if not entry.subject.startswith(entry.action) else "",
        "who": entry.actor,
        "when": entry.time,
        "recorded by": packet.closed_by if packet.closed_by != entry.actor else "",
        "machine": packet.machine,
        "reason": packet.reason,
        "closes": reconciles,
        "source": f"{source}, with uncommitted changes" if source and packet.source_modified else source,
        "change": packet.source_subject,
        "plan": packet.plan,
        "CI run": packet.run,
        "commit": f"{entry.commit}, {signed}",
    }
    yield from ((name, text) for name, text in told.items() if text)


def _changes(packet: Packet) -> Iterator[Line]:
    shown, more = first(packet.changes, _CHANGES, "changes")
    for change in shown:
        yield from change_lines(change, note=_why(change))
    yield from more


def _why(change: ChangeTold) -> str:
    why = change.why.removeprefix(f"renamed from {change.moved_from}").lstrip(":; ")
    return "; ".join(part for part in (why, _NOT_KEPT.get(change.state, "")) if part)


def _gate(gate: GateTold) -> Iterator[Line]:
    evidence = gate.evidence
    if evidence is None:
        yield Line(f"{gate.gate} {gate.verdict}, and the evidence {gate.digest} is not in the record", fg="red")
        return
    verdict = click.style(gate.verdict, fg="red" if evidence.verdict.blocks else "green", bold=True)
    against = f" compared with {evidence.baseline_revision[:8]}" if evidence.baseline_revision else ""
    reused = ", as an entry before had measured it" if gate.earlier else ""
    rest = f"on {evidence.route}@{evidence.route_revision}{against}, {evidence.samples} samples{reused}"
    yield Line(f"{gate.gate} {gate.verdict} {rest}", styled=f"{one_line(gate.gate)} {verdict} {one_line(rest)}")
    for text in judgement_lines(evidence):
        yield Line(click.unstyle(text), indent=4, styled=text)
    if evidence.failing and evidence.verdict.blocks:
        yield Line(f"failing rows: {', '.join(evidence.failing[:_FAILING])}", indent=4)
    yield Line(f"measured {evidence.measured_at}, evidence {evidence.digest}", indent=4, dim=True)


def _policy(outcome: Json) -> Iterator[Line]:
    ok, waiver = bool(outcome["ok"]), outcome.get("waiver")
    reason = "" if ok else f": {outcome.get('error') or outcome.get('message') or 'no message'}"
    as_before = " as it was before this change" if outcome.get("basis") == "base" else ""
    text = f"{outcome['policy']} ({outcome['severity']}){as_before} on {outcome['address']}{reason}"
    yield Line(f"{'✓' if ok else '✗'} {text}", fg=None if ok else "yellow" if waiver else "red")
    if isinstance(waiver, dict):
        said = f"waived until {waiver.get('until')} by {waiver.get('approved_by')}: {waiver.get('reason')}"
        yield Line(said, indent=4, fg="yellow")


def _approvals(packet: Packet) -> Iterator[Line]:
    if not packet.approvals and not packet.approvals_required:
        return
    yield Line(f"{len(packet.approvals)} given, {packet.approvals_required} required")
    for approval in packet.approvals:
        yield Line(f"{approval.signer}  {approval.key}")
        yield Line(f"at {approval.at}, until {approval.expires}", indent=4, dim=True)
        if approval.plan != packet.plan:
            yield Line(f"for another plan: {approval.plan}", indent=4, fg="red")


def _promotion(packet: Packet) -> Iterator[Line]:
    proof = packet.promotion
    if proof is None:
        return
    yield Line(f"from {proof.origin}, serial {proof.serial}, head {proof.head} ({proof.anchor})")
    for route, found in sorted(proof.routes.items()):
        yield Line(f"route {route}: serial {found.get('serial')} there, revision {found.get('revision')}", indent=4)


def _rejection(rejection: Rejection) -> Line:
    who = f" by {name_of(rejection.actor)}" if rejection.actor else ""
    return Line(f"{rejection.address}@{rejection.revision}  serial {rejection.serial}{who}: {rejection.reason}")


def _step(step: Json) -> Line:
    seconds = step.get("seconds")
    took = f"{seconds:.3f} s" if isinstance(seconds, int | float) else ""
    return Line(f"{step['state']:<8} {took:>10}  {step['id']}  {step.get('text', '')}".rstrip(), hang=21)
