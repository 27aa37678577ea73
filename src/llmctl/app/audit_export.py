"""Use case: hand an auditor every entry of a period, failures included, in one file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llmctl import __version__
from llmctl.app.packets import Packet, packet
from llmctl.app.periods import period
from llmctl.app.workspace import record_reader
from llmctl.core.decisions import BreakGlass
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.core.files import write_atomic
from llmctl.record import History, Query

#: What an export of each format says of itself in its first bytes, so that it may be replaced by another one.
MARKS = {
    "html": "<!-- llmctl audit export 1 -->",
    "json": '"kind": "llmctl audit export"',
    "csv": "environment,serial,time,actor,",
}
_LOOKED_AT = 400  # bytes
_AT_ONCE = 200  # entries that are read together


@dataclass(frozen=True, slots=True)
class GateFigures:
    """How often one gate ran, by verdict. ``reused`` are claims of evidence that was there already."""

    gate: str
    runs: int
    verdicts: dict[str, int]
    reused: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The period in numbers."""

    outcomes: dict[str, int]  # most frequent first
    actions: dict[str, int]
    actors: dict[str, dict[str, int]]  # by person: outcome: how many
    gates: tuple[GateFigures, ...]
    approvals: int
    short_of_approvals: tuple[int, ...]  # serials with fewer than were required
    broken: tuple[int, ...]
    still_open: tuple[int, ...]
    waived: tuple[int, ...]
    modified: tuple[int, ...]  # applied from files that were not committed
    unsigned: int


@dataclass(frozen=True, slots=True)
class Report:
    """Every entry of a period, oldest first. ``missing`` are serials that the record ought to have and has not."""

    environment: str
    project: str
    head: str
    since: str
    before: str
    made_at: str
    version: str
    total: int  # entries in the whole record
    packets: tuple[Packet, ...]
    missing: tuple[int, ...]
    open_elsewhere: tuple[BreakGlass, ...]  # emergencies of other periods that are still open
    figures: Figures


def export(file: str | None, environment: str | None, since: str | None, until: str | None) -> Report:
    """Read the period. Raises ``InvalidInput`` for one that means nothing."""
    now = datetime.now(UTC)
    first, before = period(since, until, now)
    repository, reader = record_reader(file, environment)
    history = History(repository, reader.environment)
    everything = history.entries(Query())
    entries = [e for e in everything if (not first or e.time >= first) and (not before or e.time < before)]
    state, reconciled, still_open = reader.summary(), history.reconciled(), history.open_break_glass()
    packets: list[Packet] = []
    for start in range(0, len(entries), _AT_ONCE):
        details = history.details(entries[start : start + _AT_ONCE])
        packets += [packet(d, still_open=still_open, reconciled=reconciled) for d in details]
    packets.reverse()
    serials = {e.serial for e in entries}
    return Report(
        environment=reader.environment,
        project=state.project if state else "",
        head=reader.head(),
        since=first,
        before=before,
        made_at=f"{now:%Y-%m-%dT%H:%M:%SZ}",
        version=__version__,
        total=len(everything),
        packets=tuple(packets),
        missing=_gaps([e.serial for e in everything]),
        open_elsewhere=tuple(b for b in still_open if b.serial not in serials),
        figures=_figures(packets),
    )


def save(path: Path, data: bytes) -> None:
    """Write an export, whole or not at all; a file that is there is only replaced when it is an export or empty.

    Raises ``InvalidInput`` when it is something else, or cannot be written.
    """
    try:
        if path.exists():
            with path.open("rb") as there:
                begins = there.read(_LOOKED_AT).decode(errors="replace")
            if begins and not any(mark in begins for mark in MARKS.values()):
                hint = "Choose another name, or remove the file first."
                raise InvalidInput([Diagnostic(f"{path} exists and is no audit export; it is not replaced", hint=hint)])
        write_atomic(path, data, 0o644)
    except OSError as error:
        raise InvalidInput(
            [Diagnostic(f"{path} cannot be written: {error.strerror}", hint="Make its folder, or choose another.")]
        ) from error


def _gaps(serials: Iterable[int]) -> tuple[int, ...]:
    there = set(serials)
    return tuple(n for n in range(1, max(there, default=0)) if n not in there)


def _figures(packets: Sequence[Packet]) -> Figures:
    actors: dict[str, Counter[str]] = {}
    for p in packets:
        actors.setdefault(p.entry.actor, Counter())[p.entry.outcome] += 1
    broken = [p for p in packets if p.break_glass]
    short = [p for p in packets if len(p.approvals) < p.approvals_required]
    return Figures(
        outcomes=dict(Counter(p.entry.outcome for p in packets).most_common()),
        actions=dict(Counter(p.entry.action for p in packets).most_common()),
        actors={who: dict(n) for who, n in sorted(actors.items(), key=lambda item: -item[1].total())},
        gates=_gates(packets),
        approvals=sum(len(p.approvals) for p in packets),
        short_of_approvals=tuple(p.entry.serial for p in short),
        broken=tuple(p.entry.serial for p in broken),
        still_open=tuple(p.entry.serial for p in broken if p.is_open),
        waived=tuple(p.entry.serial for p in packets if any(o.get("waiver") and not o["ok"] for o in p.policies)),
        modified=tuple(p.entry.serial for p in packets if p.source_modified),
        unsigned=sum(not p.signed for p in packets),
    )


def _gates(packets: Sequence[Packet]) -> tuple[GateFigures, ...]:
    told = [gate for p in packets for gate in p.gates]
    found = []
    for name in sorted({gate.gate for gate in told}):
        own = [gate for gate in told if gate.gate == name]
        verdicts = dict(Counter(gate.verdict for gate in own).most_common())
        found.append(GateFigures(name, len(own), verdicts, sum(gate.earlier for gate in own)))
    return tuple(found)
