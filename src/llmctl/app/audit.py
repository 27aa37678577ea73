"""Use cases of an auditor, who has only the repository: what happened, to what, when, by whom and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args

from llmctl.app.blame import Field, blamed
from llmctl.app.packets import ChangeTold, Packet, change_told, packet
from llmctl.app.periods import period
from llmctl.app.workspace import record_reader
from llmctl.core.address import Address
from llmctl.core.decisions import BreakGlass
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.core.resources import Recorded, RecordState
from llmctl.plan import undone
from llmctl.record import Action, Entry, History, Outcome, Query, Touched, Version
from llmctl.spec.suggestions import closest, suggestion

_PATTERN = re.compile(r"[a-z0-9_*-]+(?:\.[a-z0-9_*-]+)?\Z")


@dataclass(frozen=True, slots=True)
class Filters:
    """What a log is narrowed by, as it was asked for. ``limit`` 0 means all."""

    since: str | None = None
    until: str | None = None
    resources: tuple[str, ...] = ()
    actor: str = ""
    actions: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    text: str = ""
    limit: int = 20


@dataclass(frozen=True, slots=True)
class Log:
    """The entries that match, newest first. ``total`` is the newest serial and ``first`` and ``last`` the times of
    the record's ends; ``hint`` says what was meant where nothing matches."""

    environment: str
    query: Query
    entries: tuple[Entry, ...]
    still_open: tuple[BreakGlass, ...]
    total: int = 0
    first: str = ""
    last: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One entry in full, and what is open of all."""

    environment: str
    packet: Packet
    still_open: tuple[BreakGlass, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What the record says differs from one entry to another. ``changed_by`` are serials, by address."""

    environment: str
    before: int
    after: int
    still_open: tuple[BreakGlass, ...]
    changes: tuple[ChangeTold, ...]
    changed_by: dict[Address, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class BlamedField:
    """One field of a resource, the entry that set it last, and why: the reason that was given, or its subject."""

    path: str
    value: object
    entry: Entry
    why: str


@dataclass(frozen=True, slots=True)
class Blame:
    """A resource, field by field. ``recorded`` is what it last was; ``ended`` the entry that took it away, and
    ``moved_to`` its new name where that was a rename. ``names`` are those that it had before, oldest first."""

    environment: str
    still_open: tuple[BreakGlass, ...]
    address: Address
    recorded: Recorded
    versions: tuple[Version, ...]
    fields: tuple[BlamedField, ...]
    names: tuple[Address, ...]
    ended: Entry | None
    moved_to: Address | None


def log(file: str | None, environment: str | None, filters: Filters) -> Log:
    """The entries of a record that match. Raises ``InvalidInput`` for filters that mean nothing."""
    history, name = _history(file, environment)
    query = query_of(filters)
    found = tuple(history.entries(query))
    still_open = history.open_break_glass()
    if found:
        return Log(name, query, found, still_open)
    span = history.span()
    if span is None:
        return Log(name, query, (), still_open)
    oldest, newest = span
    hint = _unknown(history, query.resources)
    return Log(name, query, (), still_open, newest.serial, oldest.time, newest.time, hint)


def query_of(filters: Filters) -> Query:
    """The same in the record's words; raises ``InvalidInput`` for what means nothing."""
    since, before = period(filters.since, filters.until, datetime.now(UTC))
    for pattern in filters.resources:
        if not _PATTERN.match(pattern):
            hint = "Write an address such as prompt.answer, a kind such as route, or a pattern such as `route.*`."
            raise InvalidInput([Diagnostic(f"--resource: {pattern!r} names no resource", hint=hint)])
    return Query(
        since=since,
        before=before,
        actor=filters.actor,
        actions=_known("--action", filters.actions, get_args(Action)),
        outcomes=_known("--outcome", filters.outcomes, get_args(Outcome)),
        text=filters.text,
        resources=filters.resources,
        limit=filters.limit,
    )


def show(file: str | None, environment: str | None, serial: int) -> Sample:
    """One entry with all that the record says of it; raises ``RecordError`` when there is none."""
    history, name = _history(file, environment)
    detail, still_open = history.detail(serial), history.open_break_glass()
    reconciled = history.reconciled() if detail.decisions.get("break_glass") else {}
    return Sample(name, packet(detail, still_open=still_open, reconciled=reconciled), still_open)


def diff(file: str | None, environment: str | None, before: int, after: int | None) -> Difference:
    """What differs from entry ``before`` to ``after``, or to the newest; serial 0 is the empty beginning.

    Raises ``RecordError`` when there is no such entry.
    """
    history, name = _history(file, environment)
    if after is None:
        newest = history.span()
        after = newest[1].serial if newest else 0
    found = history.between(before, after)
    touched = {t.address: t for t in found.touched}
    origins = _renamed(found.touched)
    gone = set(origins.values())
    changes = [
        change_told(t, {}, touched.get(origins.get(t.address, t.address)))
        for t in found.touched
        if not (t.address in gone and t.after is None)
    ]
    changed_by = {
        c.address: tuple(sorted({*found.changed_by.get(c.address, ()), *_also(found.changed_by, c.moved_from)}))
        for c in changes
    }
    return Difference(name, before, after, history.open_break_glass(), tuple(changes), changed_by)


def blame(file: str | None, environment: str | None, address: str) -> Blame:
    """Who set each field of a resource; raises ``InvalidInput`` for one that was never recorded."""
    history, name = _history(file, environment)
    try:
        asked = Address.parse(address)
    except ValueError as error:
        hint = suggestion(address, map(str, history.known()), "recorded")
        raise InvalidInput([Diagnostic(str(error), hint=hint)]) from error
    versions = history.versions(asked)
    if not versions:
        raise InvalidInput(
            [
                Diagnostic(
                    f"{asked} was never recorded in {name}",
                    hint=_unknown(history, [str(asked)])
                    or f"`llmctl audit log -e {name} --resource {asked.kind}` lists what there was of its kind.",
                )
            ]
        )
    ended = versions[-1] if versions[-1].recorded is None else None
    living = _last_life(versions[:-1] if ended else versions)
    recorded = [v.recorded for v in living if v.recorded is not None]
    whys = _whys(history, living)
    fields = (_field(f, living, whys) for f in blamed([r.spec for r in recorded]))
    return Blame(
        environment=name,
        still_open=history.open_break_glass(),
        address=asked,
        recorded=recorded[-1],
        versions=tuple(living),
        fields=tuple(fields),
        names=tuple(dict.fromkeys(v.address for v in living if v.address != asked)),
        ended=ended.entry if ended else None,
        moved_to=ended.moved if ended else None,
    )


def _history(file: str | None, environment: str | None) -> tuple[History, str]:
    repository, reader = record_reader(file, environment)
    return History(repository, reader.environment), reader.environment


def _known(option: str, given: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    names = list(known)
    for word in given:
        if word not in names:
            raise InvalidInput(
                [Diagnostic(f"{option}: there is no {word!r}", hint=suggestion(word, names, "there are"))]
            )
    return tuple(given)


def _unknown(history: History, patterns: Sequence[str]) -> str:
    """What may have been meant, where an address is no recorded resource."""
    known = [str(a) for a in history.known()]
    near = [name for p in patterns if "*" not in p and p not in known for name in closest(p, known)]
    return f"did you mean {' or '.join(f'`{name}`' for name in dict.fromkeys(near))}?" if near else ""


def _renamed(touched: Sequence[Touched]) -> dict[Address, Address]:
    """The renames between two entries: name after, name before, told by the histories."""
    then = RecordState("", resources={t.address: t.before for t in touched if t.before})
    now = RecordState("", resources={t.address: t.after for t in touched if t.after})
    return dict(undone(then, now))


def _also(changed_by: Mapping[Address, tuple[int, ...]], origin: Address | None) -> tuple[int, ...]:
    return changed_by.get(origin, ()) if origin else ()


def _last_life(versions: Sequence[Version]) -> list[Version]:
    """The versions since it was last made anew: what was deleted between set nothing that is there now."""
    begun = max((n + 1 for n, v in enumerate(versions) if v.recorded is None), default=0)
    return list(versions[begun:])


def _whys(history: History, versions: Sequence[Version]) -> list[str]:
    entries = [v.entry for v in versions]
    return [str(d.get("reason") or e.subject) for d, e in zip(history.decisions(entries), entries, strict=True)]


def _field(field: Field, versions: Sequence[Version], whys: Sequence[str]) -> BlamedField:
    return BlamedField(field.path, field.value, versions[field.version].entry, whys[field.version])
