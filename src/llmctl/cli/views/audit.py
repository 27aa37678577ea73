"""The record as an auditor reads it: its entries, what differs between two, who set what."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator
from dataclasses import asdict

import click

from llmctl.app.audit import Blame, Difference, Log
from llmctl.app.packets import ChangeTold
from llmctl.cli.views.changed import field_lines
from llmctl.cli.views.layout import Line, count, cut, first, listed, one_line, rendered, screen_width
from llmctl.core.decisions import BreakGlass
from llmctl.core.digests import Json
from llmctl.record import Entry, Query, value, values

OUTCOME_COLOR = {"applied": "green", "rolled back": "yellow", "failed": "red", "interrupted": "red", "aborted": "red"}
_SIGN = {"create": ("+", "green"), "delete": ("-", "red"), "move": (">", "cyan"), "replace": ("±", "yellow")}
_VALUE = 72  # columns of a field's value in a blame


def moment(time: str) -> str:
    """A time of the record to the minute, as tables show it."""
    return time.replace("T", " ")[:16]


def name_of(person: str) -> str:
    """``Ada`` of ``Ada <ada@acme.example>``."""
    return person.split(" <")[0]


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
        "approvals": values(entry.trailers, "Approval"),
        "break_glass": value(entry.trailers, "Break-Glass") or None,
        "reconciles": values(entry.trailers, "Reconciles"),
        "trailers": [list(t) for t in entry.trailers],
        "resources": [str(a) for a in entry.resources],
    }


def log_json(log: Log) -> dict[str, Json]:
    """The entries that match, for programs."""
    filters = {name: value for name, value in asdict(log.query).items() if value}
    return {
        "format": 1,
        "environment": log.environment,
        "filters": filters,
        "open_break_glass": [b.to_json() for b in log.still_open],
        "entries": [entry_json(e) for e in log.entries],
    }


def render_log(log: Log) -> str:
    """A line an apply, newest first, with its gates and who answers for it below."""
    return rendered(_log_lines(log), screen_width())


def _log_lines(log: Log) -> Iterator[Line]:
    filters = filters_told(log.query)
    if not log.entries:
        yield from _nothing(log, filters)
        yield from open_lines(log.still_open)
        return
    narrowed = f"; {filters}" if filters else ""
    yield Line(f"llmctl/{log.environment}, newest first, times in UTC{narrowed}", indent=0, bold=True)
    yield from open_lines(b for b in log.still_open if b.serial not in {e.serial for e in log.entries})
    for entry in log.entries:
        when, who, subject = moment(entry.time), one_line(name_of(entry.actor)), one_line(entry.subject)
        outcome = click.style(f"{entry.outcome:<11}", fg=OUTCOME_COLOR.get(entry.outcome))
        start, end = f"{entry.serial:>4}  {when}  ", f"  {who}: {subject}"
        yield Line(f"{start}{entry.outcome:<11}{end}", indent=0, hang=6, styled=f"{start}{outcome}{end}")
        yield from _marks(entry, {b.serial for b in log.still_open})
    rest = log.entries[-1].serial - 1
    if log.query.limit == len(log.entries) and rest:
        yield Line(f"… older ones are there: -n {2 * log.query.limit}, or --all", indent=0, dim=True)


def open_lines(still_open: Iterable[BreakGlass]) -> Iterator[Line]:
    """What every answer says until an apply has reconciled it."""
    for broken in still_open:
        text = f"BREAK-GLASS of serial {broken.serial} is STILL OPEN: {broken.reason}"
        yield Line(text, indent=0, fg="red", bold=True)


def _marks(entry: Entry, still_open: Container[int]) -> Iterator[Line]:
    broken = value(entry.trailers, "Break-Glass")
    if broken:
        state = "STILL OPEN" if entry.serial in still_open else "reconciled since"
        yield Line(f"BREAK-GLASS, {state}: {broken}", indent=6, fg="red", bold=True)
    for text in values(entry.trailers, "Reconciles"):
        yield Line(f"reconciles the break-glass of serial {text}", indent=6, fg="cyan")
    for text in values(entry.trailers, "Gate"):
        gate, verdict, *_ = [*text.split(), ""]
        yield Line(f"gate {gate} {verdict}".rstrip(), indent=6, fg="green" if verdict == "PASS" else "red")
    approvals = values(entry.trailers, "Approval")
    if approvals:
        yield Line(f"approved by {listed(text.rpartition(' ')[0] or text for text in approvals)}", indent=6, dim=True)


def _nothing(log: Log, filters: str) -> Iterator[Line]:
    if not log.total:
        yield Line(f"llmctl/{log.environment} has no entry yet", indent=0)
        return
    yield Line(f"no entry of llmctl/{log.environment} matches {filters}", indent=0)
    span = f"from {moment(log.first)} to {moment(log.last)} UTC"
    yield Line(f"the record has {count(log.total, 'entry', 'entries')}, {span}", indent=0, dim=True)
    if log.hint:
        yield Line(log.hint, indent=0)


def filters_told(query: Query) -> str:
    """The filters in words, "" for none."""
    parts = [f"since {moment(query.since)} UTC"] if query.since else []
    parts += [f"before {moment(query.before)} UTC"] if query.before else []
    parts += [f"resource {' or '.join(query.resources)}"] if query.resources else []
    parts += [f"actor {query.actor!r}"] if query.actor else []
    parts += [f"action {' or '.join(query.actions)}"] if query.actions else []
    parts += [f"outcome {' or '.join(query.outcomes)}"] if query.outcomes else []
    parts += [f"text {query.text!r}"] if query.text else []
    return ", ".join(parts)


# -- what differs -------------------------------------------------------------------------------


def change_json(change: ChangeTold) -> dict[str, Json]:
    """One resource's change, for programs."""
    return {
        "address": str(change.address),
        "action": change.action,
        "state": change.state,
        "reason": change.why,
        "moved_from": str(change.moved_from) if change.moved_from else None,
        "before": {"version": change.version_before, "revision": change.revision_before},
        "after": {"version": change.version_after, "revision": change.revision_after},
        "fields": [asdict(diff) for diff in change.fields],
    }


def difference_json(found: Difference) -> dict[str, Json]:
    """What differs between two entries, for programs."""
    changes = [{**change_json(c), "changed_by": list(found.changed_by.get(c.address, ()))} for c in found.changes]
    for change in changes:
        change.pop("state")
        change.pop("reason")
    return {
        "format": 1,
        "environment": found.environment,
        "before": found.before,
        "after": found.after,
        "changes": changes,
    }


def render_difference(found: Difference) -> str:
    """Each resource that differs, by which entries, and its fields."""
    return rendered(_difference_lines(found), screen_width())


def _difference_lines(found: Difference) -> Iterator[Line]:
    yield from open_lines(found.still_open)
    head = f"llmctl/{found.environment} from serial {found.before} to {found.after}"
    if not found.changes:
        yield Line(f"{head}: the same resources are recorded, all alike", indent=0, bold=True)
        return
    kinds = [c.action for c in found.changes]
    told = {"create": "added", "delete": "removed", "move": "renamed"}
    counts = {word: kinds.count(action) for action, word in told.items()}
    counts["changed"] = len(kinds) - sum(counts.values())
    yield Line(f"{head}: {', '.join(f'{n:,} {word}' for word, n in counts.items() if n)}", indent=0, bold=True)
    for change in found.changes:
        serials = found.changed_by.get(change.address, ())
        by = f"by serial {listed(serials, 8)}" if serials else ""
        yield from change_lines(change, note=by)


def versions_told(change: ChangeTold) -> str:
    """``v1 → v2  4917a194 → 16137544``; what stayed is said once, and what is not there not at all."""
    numbers = [f"v{n}" for n in (change.version_before, change.version_after) if n]
    names = [name[:8] for name in (change.revision_before, change.revision_after) if name]
    return "  ".join(" → ".join(dict.fromkeys(part)) for part in (numbers, names) if part)


def change_lines(change: ChangeTold, note: str = "") -> Iterator[Line]:
    """One resource: what was done, versions and revisions, and each field that differs."""
    sign, color = _SIGN.get(change.action, ("~", "yellow"))
    origin = f", renamed from {change.moved_from}" if change.moved_from else ""
    yield Line(f"{sign} {change.address}{origin}  {versions_told(change)}".rstrip(), fg=color, note=note)
    if change.version_before and change.version_after:
        fields, more = first(change.fields, 20, "fields")
        for diff in fields:
            yield from field_lines(diff)
        yield from more


# -- who set what -------------------------------------------------------------------------------


def blame_json(found: Blame) -> dict[str, Json]:
    """Who set each field, for programs."""
    return {
        "format": 1,
        "environment": found.environment,
        "address": str(found.address),
        "version": found.recorded.version,
        "revision": found.recorded.revision,
        "names_before": [str(a) for a in found.names],
        "deleted_by": found.ended.serial if found.ended else None,
        "renamed_to": str(found.moved_to) if found.moved_to else None,
        "serials": [v.entry.serial for v in found.versions],
        "fields": [
            {
                "path": f.path,
                "value": f.value,
                "serial": f.entry.serial,
                "time": f.entry.time,
                "actor": f.entry.actor,
                "commit": f.entry.commit,
                "reason": f.why,
            }
            for f in found.fields
        ],
    }


def render_blame(found: Blame) -> str:
    """A line a field: the serial that set it, when, who; below, why."""
    return rendered(_blame_lines(found), screen_width())


def _blame_lines(found: Blame) -> Iterator[Line]:
    yield from open_lines(found.still_open)
    now, before = found.recorded, ", ".join(map(str, found.names))
    named = f", before that {before}" if before else ""
    yield Line(f"{found.address} v{now.version}, revision {now.revision}{named}; times in UTC", indent=0, bold=True)
    if found.ended:
        what = f"renamed to {found.moved_to} by" if found.moved_to else "gone since"
        who = f"{moment(found.ended.time)} by {name_of(found.ended.actor)}: {found.ended.subject}"
        yield Line(f"{what} serial {found.ended.serial}, {who}", indent=0, fg="red", bold=True)
        yield Line("this is what it was last", indent=0, dim=True)
    setters = {f.entry.serial: f for f in found.fields}
    who_width = max((len(name_of(f.entry.actor)) for f in found.fields), default=0)
    path_width = min(max((len(f.path) for f in found.fields), default=0), 40)
    for f in found.fields:
        who = one_line(name_of(f.entry.actor))
        start = f"{f.entry.serial:>4}  {moment(f.entry.time)}  {who:<{who_width}}  "
        yield Line(f"{start}{one_line(f.path):<{path_width}}  {_short(f.value)}", indent=0, hang=6)
    yield Line("", indent=0)
    yield Line("Why", indent=0, bold=True)
    for serial in sorted(setters, reverse=True):
        yield Line(f"{serial:>4}  {setters[serial].why}", indent=0, hang=6)


def _short(value: object) -> str:
    return cut(one_line(json.dumps(value, ensure_ascii=False)), _VALUE)
