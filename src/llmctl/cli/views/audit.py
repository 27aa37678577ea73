"""The record as an auditor reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from llmctl.cli.views.gate import judgement_lines
from llmctl.core.digests import Json
from llmctl.record import Entry, EntryDetail, Verification, value, values

_ANCHOR = {
    "signed": "anchored by its signature",
    "expected head": "anchored: it is the head that was expected",
    "unanchored": "not anchored: unsigned, and without --expect-head a rewrite as a whole cannot be told",
}
_COLOR = {"applied": "green", "rolled back": "yellow", "failed": "red", "interrupted": "red"}


def entry_json(entry: Entry) -> dict[str, Json]:
    """One entry for programs."""
    return {
        "serial": entry.serial,
        "commit": entry.commit,
        "time": entry.time,
        "actor": entry.actor,
        "action": entry.action,
        "outcome": entry.outcome,
        "subject": entry.subject,
        "trailers": [list(t) for t in entry.trailers],
        "resources": [str(a) for a in entry.resources],
    }


def detail_json(environment: str, detail: EntryDetail) -> dict[str, Json]:
    """One entry in full, for programs."""
    return {
        "format": 1,
        "environment": environment,
        **entry_json(detail.entry),
        "changes": [
            {"commit": c.commit, "subject": c.subject, "resources": [str(a) for a in c.resources]}
            for c in detail.changes
        ],
        "decisions": detail.decisions,
        "evidence": [e.to_json() for e in detail.evidence],
    }


def render_log(environment: str, entries: list[Entry]) -> str:
    """A line an apply, newest first, with its gates below."""
    lines = [click.style(f"llmctl/{environment}, newest first, times in UTC", bold=True)]
    for entry in entries:
        outcome = click.style(f"{entry.outcome:<11}", fg=_COLOR.get(entry.outcome))
        when = entry.time.replace("T", " ")[:16]
        lines.append(f"{entry.serial:>4}  {when}  {outcome}  {entry.actor.split(' <')[0]}: {entry.subject}")
        lines += [f"      {line}" for line in _gates(entry)]
    return "\n".join(lines)


def _gates(entry: Entry) -> Iterator[str]:
    for text in values(entry.trailers, "Gate"):
        gate, verdict, *_ = text.split()
        yield click.style(f"gate {gate} {verdict}", fg="green" if verdict == "PASS" else "red")


def render_detail(environment: str, detail: EntryDetail) -> str:
    """Everything about one apply: who, when, what, why, proven by what."""
    return "\n".join(_detail_lines(environment, detail))


def _detail_lines(environment: str, detail: EntryDetail) -> Iterator[str]:
    entry, decisions = detail.entry, detail.decisions
    yield click.style(f"serial {entry.serial} of llmctl/{environment}: {entry.subject}", bold=True)
    facts = {
        "outcome": click.style(entry.outcome, fg=_COLOR.get(entry.outcome)),
        "who": entry.actor,
        "when": entry.time,
        "reason": decisions.get("reason"),
        "source": _source(entry, decisions),
        "plan": value(entry.trailers, "Plan"),
        "CI run": value(entry.trailers, "Run"),
        "commit": entry.commit,
    }
    for name, text in facts.items():
        if text:
            yield f"  {name:<8} {text}"
    for title, lines in (
        ("Changes planned", _planned(decisions)),
        ("Recorded, a commit each", [f"{c.commit[:10]}  {c.subject}" for c in detail.changes]),
        ("Gates", _evidence(detail)),
        ("Policies", _policies(decisions)),
        ("Steps", [f"{s['state']:<8} {s['id']}  {s['text']}" for s in decisions.get("steps", ())]),
    ):
        found = list(lines)
        if found:
            yield ""
            yield click.style(title, bold=True)
            yield from (f"  {line}" for line in found)


def _source(entry: Entry, decisions: Json) -> str:
    commit = value(entry.trailers, "Source")
    return f"{commit}, with uncommitted changes" if commit and decisions.get("source_modified") else commit


def _planned(decisions: Json) -> Iterator[str]:
    told = [(c["action"], c["address"], c["reason"]) for c in decisions.get("changes", ())]
    told += [("restore", d["address"], d["summary"]) for d in decisions.get("drift", ())]
    width = max((len(address) for _, address, _ in told), default=0)
    for action, address, why in told:
        yield f"{action:<8} {address:<{width}}  {why}"


def _evidence(detail: EntryDetail) -> Iterator[str]:
    for evidence in detail.evidence:
        verdict = click.style(evidence.verdict.value, fg="red" if evidence.verdict.blocks else "green", bold=True)
        yield f"{evidence.gate} {verdict} on {evidence.route}@{evidence.route_revision}, {evidence.samples} samples"
        yield from (f"  {text}" for text in judgement_lines(evidence))
        if evidence.failing and evidence.verdict.blocks:
            yield f"  failing rows: {', '.join(evidence.failing[:10])}"
        yield f"  evidence {evidence.digest}"


def _policies(decisions: Json) -> Iterator[str]:
    for outcome in decisions.get("policies", ()):
        sign = "✓" if outcome["ok"] else "✗"
        reason = "" if outcome["ok"] else f": {outcome['error'] or outcome['message']}"
        yield f"{sign} {outcome['policy']} ({outcome['severity']}) on {outcome['address']}{reason}"


def verification_json(environment: str, found: Verification) -> dict[str, Json]:
    """The verdict on the whole record, for programs."""
    return {"format": 1, "environment": environment, "ok": not found.findings, **asdict(found)}


def render_verification(environment: str, found: Verification) -> str:
    """Green in one line; red with one finding a line."""
    counts = f"{_count(found.entries, 'entr', 'y', 'ies')}, {_count(found.commits, 'commit')}, "
    counts += f"{_count(found.evidence, 'piece')} of evidence"
    if not found.findings:
        good = click.style("✓ the record holds", fg="green", bold=True)
        return f"{good}: {counts}\n  head {found.head}\n  {_ANCHOR[found.anchor]}"
    head = click.style(f"✗ {_count(len(found.findings), 'finding')} in llmctl/{environment}", fg="red", bold=True)
    lines = [f"{head} ({counts})"]
    lines += [f"  {f.commit[:12] or '-':<12}  {f.reason}  [{f.anchor}]" for f in found.findings]
    return "\n".join(lines)


def _count(number: int, word: str, one: str = "", many: str = "s") -> str:
    return f"{number} {word}{one if number == 1 else many}"
