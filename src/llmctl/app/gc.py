"""Use case: clear away what no record of any environment of this repository needs any more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from llmctl.app.planning import in_progress
from llmctl.app.recorded_change import Held, Notice, changing
from llmctl.app.workspace import Workspace
from llmctl.core.address import Address
from llmctl.core.digests import Json, canonical_json
from llmctl.core.errors import RecordError
from llmctl.core.evidence import Evidence
from llmctl.core.protocols import Change
from llmctl.core.resources import Recorded, RecordState
from llmctl.providers.local import Keep, Leftover, contents
from llmctl.record import GateClaim, Reader, Trailers, recorded_environments, value, values
from llmctl.record.messages import serial_of, trailers_of

KEEP = 10
_DEPLOYS = ("apply", "rollback", "destroy")  # actions of entries that may be rolled back to
_GOOD = ("applied", "rolled back")  # … and their outcomes
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FEW = 16  # entries to read at first


@dataclass(frozen=True, slots=True)
class Needed:
    """What records need: content by digest, artifacts and routes by revision, evidence by its path in a record."""

    digests: frozenset[str] = frozenset()
    artifacts: frozenset[tuple[str, str]] = frozenset()
    routes: frozenset[str] = frozenset()
    evidence: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Past:
    """An entry, as far as its commit tells."""

    commit: str
    trailers: Trailers

    @property
    def serial(self) -> int:
        return serial_of(self.trailers) or 0

    @property
    def action(self) -> str:
        return value(self.trailers, "Action")

    @property
    def outcome(self) -> str:
        return value(self.trailers, "Outcome")

    @property
    def is_good(self) -> bool:
        """Whether it deployed something that one may want back."""
        return self.action in _DEPLOYS and self.outcome in _GOOD


@dataclass(frozen=True, slots=True)
class Garbage:
    """What can go. ``evidence`` are paths in the record, whose history keeps them; ``serial`` is 0 while nothing was
    cleared away. ``note`` says what may change the answer before that."""

    environment: str
    keep: int
    leftovers: tuple[Leftover, ...]
    evidence: tuple[str, ...]
    serial: int = 0
    note: str = ""

    @property
    def bytes(self) -> int:
        """What the leftovers take on disk."""
        return sum(item.bytes for item in self.leftovers)

    @property
    def is_empty(self) -> bool:
        return not self.leftovers and not self.evidence


def look(workspace: Workspace, keep: int) -> Garbage:
    """What could be cleared away now, with ``keep`` (1 or more) entries of each environment to go back to. Nothing is
    changed."""
    state = workspace.recorded()
    working, interrupted = in_progress(workspace)
    note = f"somebody works on it at this moment: {working}" if working else interrupted
    return replace(_find(workspace, state, keep), note=note)


def collect(workspace: Workspace, keep: int, confirm: Callable[[Garbage], bool], notice: Notice) -> Garbage:
    """Clear it away and record that; ``confirm`` is shown what. Half-way through, nothing needed is lost.

    Raises ``RecordError`` when a record cannot be read, also another environment's, and ``ProviderError`` when
    it cannot be told what runs: nothing is cleared away then.
    """
    with changing(workspace, "gc", notice) as held:
        found = _find(workspace, held.state, keep)
        if not confirm(found) or found.is_empty:
            return found
        return replace(found, serial=_clear(held, found))


def _clear(held: Held, found: Garbage) -> int:
    """The record first: what it no longer names is needed by nobody, so that a crash from here on loses nothing."""
    attempt = held.begin()
    if found.evidence:
        attempt.commit(Change("take out evidence that nothing needs", removes=found.evidence))
    if found.leftovers:
        names = [item.name for item in found.leftovers]
        intent = attempt.intend("gc", "clear away", {"names": names})
        held.workspace.target.collector.remove(found.leftovers, held.lock.check)
        attempt.done(intent, "ok", {})
    removed = {
        "leftovers": [{"what": i.what, "name": i.name, "bytes": i.bytes} for i in found.leftovers],
        "evidence": list(found.evidence),
    }
    counts = ((len(found.leftovers), "file"), (len(found.evidence), "piece"))
    parts = [f"{number} {word}{'s' if number > 1 else ''}" for number, word in counts if number]
    parts[-1] += " of evidence" if found.evidence else ""
    return held.close(
        attempt,
        subject=f"gc: cleared away {' and '.join(parts)}",
        reason="",
        decided={"keep": found.keep, "removed": removed, "bytes": found.bytes},
    )


def _find(workspace: Workspace, state: RecordState, keep: int) -> Garbage:
    needed = Needed()
    cut_short = False
    for reader in _readers(workspace):
        entries, states = _kept(reader, keep)
        needed = united(needed, needed_by(states), claimed_by(entries, _decisions(reader, entries, workspace)))
        if reader.environment == state.environment:
            cut_short = next((e.outcome for e in entries if e.action in _DEPLOYS), "") == "interrupted"
    spare, rows = split_evidence(workspace.reader.evidence_files(), needed)
    known = Keep(needed.digests | rows, needed.artifacts, gate_answers=cut_short)
    found = workspace.target.collector.find(known)
    return Garbage(state.environment, keep, tuple(found), spare)


def _readers(workspace: Workspace) -> Iterator[Reader]:
    """The record of this environment and of every other that the repository has."""
    own = workspace.reader
    yield own
    for name in recorded_environments(workspace.repository):
        if name != own.environment:
            yield Reader(workspace.repository, name)


def _kept(reader: Reader, keep: int) -> tuple[list[_Past], list[RecordState]]:
    """The newest entries, as many as it takes to have ``keep`` good ones to roll back to, and what is recorded now
    and was by each.

    Raises ``RecordError`` when one of them cannot be read: what cannot be read is not taken for not needed.
    """
    try:
        entries = _newest(reader, keep)
        commits = dict.fromkeys(filter(None, [reader.head(), *(entry.commit for entry in entries)]))
        return entries, [reader.state_of(commit) for commit in commits]
    except RecordError as error:
        raise RecordError(
            f"the record of {reader.environment} cannot be read, so nobody knows what it needs, and nothing is "
            "cleared away",
            detail=f"{error.summary}\n{error.detail}".strip(),
            hint=error.hint,
        ) from error


def _newest(reader: Reader, keep: int) -> list[_Past]:
    limit = keep + _FEW
    while True:
        commits = reader.commits_of(reader.entry_ids(f"--max-count={limit}"))
        entries = [_Past(commit.id, trailers_of(commit.message)) for commit in commits]
        places = [n for n, entry in enumerate(entries, 1) if entry.is_good]
        if len(places) >= keep:
            return entries[: places[keep - 1]]
        if len(entries) < limit - 1:  # the beginning of a record is a commit, and no entry
            break
        limit *= 8
    if entries and entries[-1].serial > 1:
        raise RecordError(
            f"this clone has the record only from serial {entries[-1].serial} on",
            hint="It is shallow: run `git fetch --unshallow`.",
        )
    return entries


def _decisions(reader: Reader, entries: Iterable[_Past], workspace: Workspace) -> list[Json]:
    """What applies of another environment decided: a promotion names the evidence that it went by."""
    if reader.environment == workspace.environment.name:
        return []
    return [reader.entry(entry.serial).decisions for entry in entries if entry.action == "apply"]


def cleared_by(reader: Reader, digests: Iterable[str]) -> dict[str, int]:
    """Which entry cleared each of these contents away, newest first found; those that none did are left out."""
    wanted = set(digests)
    found: dict[str, int] = {}
    for commit in reader.commits_of(reader.entry_ids("--grep=^Llmctl-Action: gc$")):
        serial = serial_of(trailers_of(commit.message)) or 0
        removed = reader.entry(serial).decisions.get("removed", {})
        for item in removed.get("leftovers", ()):
            if item["name"] in wanted:
                found.setdefault(item["name"], serial)
    return found


def needed_by(states: Iterable[RecordState]) -> Needed:
    """All that has to be there so that each of these states can be brought back."""
    digests: set[str] = set()
    artifacts: set[tuple[str, str]] = set()
    routes: set[str] = set()
    for address, was in (item for state in states for item in state.resources.items()):
        digests |= _digests(address, was)
        artifacts.add((address.kind, was.revision))
        if address.kind == "route":
            routes.add(was.revision)
            artifacts.add(("prompt", was.spec["prompt_revision"]))
            artifacts.update(("model", link["spec"]["model_revision"]) for link in was.spec["chain"])
    return Needed(frozenset(digests), frozenset(artifacts), frozenset(routes))


def _digests(address: Address, was: Recorded) -> set[str]:
    """Every digest that a spec names, of whatever kind, and the content that is made of the spec itself."""
    found = set(_DIGEST.findall(canonical_json(was.spec)))
    if address.kind == "prompt":
        found.update(content.digest for content in contents("prompt", was.spec))
    return found


def claimed_by(entries: Iterable[_Past], decisions: Iterable[Json]) -> Needed:
    """The evidence that entries claim, and the digests that decisions name."""
    paths = set()
    for entry in entries:
        for text in values(entry.trailers, "Gate"):
            try:
                paths.add(GateClaim.parse(text).path)
            except ValueError as error:
                raise RecordError(f"serial {entry.serial} has a damaged trailer: {error}") from error
    named = {digest for decided in decisions for digest in _DIGEST.findall(canonical_json(decided))}
    return Needed(digests=frozenset(named), evidence=frozenset(paths))


def united(*parts: Needed) -> Needed:
    """All that any of these needs."""
    return Needed(
        frozenset().union(*(p.digests for p in parts)),
        frozenset().union(*(p.artifacts for p in parts)),
        frozenset().union(*(p.routes for p in parts)),
        frozenset().union(*(p.evidence for p in parts)),
    )


def split_evidence(known: Mapping[str, Evidence], needed: Needed) -> tuple[tuple[str, ...], frozenset[str]]:
    """Paths of the evidence that can go, and the content that the rest of it needs: its rows."""
    spare = []
    rows: set[str] = set()
    for path, evidence in sorted(known.items()):
        digest = f"sha256:{path.rpartition('/')[2].removesuffix('.json')}"
        if evidence.route_revision in needed.routes or path in needed.evidence or digest in needed.digests:
            rows.update([evidence.rows] if evidence.rows else [])
        else:
            spare.append(path)
    return tuple(spare), frozenset(rows)
