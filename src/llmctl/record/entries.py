"""Entries of the record: what they are, and all about many of them at once.

Everything is read from the record's own trees and commits. Whether they can be trusted is for ``verify`` to say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.errors import RecordError
from llmctl.core.evidence import Evidence
from llmctl.core.resources import Recorded
from llmctl.record.layout import (
    STATE,
    StateFile,
    address_at,
    decisions_path,
    parse_evidence,
    parse_resource,
    parse_state,
)
from llmctl.record.messages import GateClaim, Trailers, serial_of, subject_of, trailers_of, value, values
from llmctl.record.objects import (
    Commit,
    TreeChange,
    compare_trees,
    list_commits,
    list_files,
    object_id,
    read_commits,
    read_objects,
)
from llmctl.record.repository import Repository


@dataclass(frozen=True, slots=True)
class Entry:
    """One attempt in the record. ``time`` is ISO 8601 in UTC; ``resources`` are those whose record changed."""

    serial: int
    commit: str
    time: str
    actor: str
    action: str
    outcome: str
    subject: str
    trailers: Trailers
    resources: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class ChangeCommit:
    """One change inside an attempt, in the order in which they were made."""

    commit: str
    time: str
    subject: str
    trailers: Trailers
    resources: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Touched:
    """One resource that an entry, or its attempt, changed. ``kept`` is false for what was taken back again: then
    ``after`` is what had been tried. None stands for a resource that was not there."""

    address: Address
    before: Recorded | None
    after: Recorded | None
    kept: bool = True


@dataclass(frozen=True, slots=True)
class EntryDetail:
    """All that the record says of one entry: its changes commit by commit and resource by resource, what was
    decided, and the evidence that its gates claim. ``decisions`` are ``{}`` and states None where it holds none."""

    entry: Entry
    signed: bool  # whether the entry's commit carries a signature; who made it is not looked at
    changes: tuple[ChangeCommit, ...]
    touched: tuple[Touched, ...]
    moves: Mapping[Address, Address]  # renames, the name after: the name before
    decisions: Json
    claims: tuple[GateClaim, ...]  # one without evidence has none in the record
    evidence: tuple[Evidence, ...]
    earlier: frozenset[str]  # digests of evidence that an entry before had brought
    before: StateFile | None
    after: StateFile | None


@dataclass(frozen=True, slots=True)
class _Inner:
    """A commit inside an attempt, and what it changed."""

    commit: Commit
    changes: Sequence[TreeChange]


@dataclass
class Blobs:
    """Resources by the id of their blob, read together."""

    repository: Repository
    known: dict[str, Recorded] = field(default_factory=dict)

    def read(self, changes: Sequence[tuple[str, str, str]]) -> None:
        """Read what these (path, id, id) name."""
        wanted = {name: path for path, *names in changes for name in names if name and name not in self.known}
        for name, item in zip(wanted, read_objects(self.repository, wanted), strict=True):
            self.known[name] = parse_resource(item.data, f"{wanted[name]} ({name[:12]})")

    def get(self, name: str) -> Recorded | None:
        return self.known[name] if name else None


def entries_of(repository: Repository, commits: Sequence[Commit]) -> list[Entry]:
    """The entries that these commits are, in their order."""
    return [_entry(c, changes) for c, changes in zip(commits, differences(repository, commits), strict=True)]


def differences(repository: Repository, commits: Sequence[Commit]) -> list[list[TreeChange]]:
    """What each commit changed against its first parent."""
    try:
        parents = {c.id: c for c in read_commits(repository, {p for c in commits for p in c.parents[:1]})}
    except RecordError as error:
        if not (repository.common_dir / "shallow").is_file():
            raise
        summary = "this clone is shallow: it does not go back far enough in the record to tell"
        raise RecordError(summary, hint="Run `git fetch --unshallow`, then ask again.") from error
    empty = object_id("tree", b"", repository.algorithm)
    pairs = [(parents[c.parents[0]].tree if c.parents else empty, c.tree) for c in commits]
    return compare_trees(repository.git, pairs)


def read_details(repository: Repository, commits: Sequence[Commit]) -> list[EntryDetail]:
    """All about the entries that these commits are. They are read together, fast where they follow each other."""
    changed = differences(repository, commits)
    attempts = _attempts(repository, commits)
    blobs = Blobs(repository)
    every = [*changed, *(inner.changes for chain in attempts for inner in chain)]
    blobs.read([(c.path, c.old, c.new) for changes in every for c in changes if address_at(c.path)])
    return [
        _detail(repository, commit, changes, chain, blobs)
        for commit, changes, chain in zip(commits, changed, attempts, strict=True)
    ]


def _detail(
    repository: Repository, commit: Commit, changes: Sequence[TreeChange], chain: Sequence[_Inner], blobs: Blobs
) -> EntryDetail:
    own = {c.path: c.new for c in changes}
    entry, claims = _entry(commit, changes), _claims(commit)
    # A second apply that proves the same thing claims evidence which lies there already.
    missing = [claim.path for claim in claims if claim.path not in own]
    there = list_files(repository, commit.id, *missing) if missing else {}
    files = {c.path: blob for c in claims if (blob := own.get(c.path) or there.get(c.path, ""))}
    objects = read_objects(repository, files.values())
    state = next((c for c in changes if c.path == STATE), None)
    return EntryDetail(
        entry=entry,
        signed=commit.has_signature,
        changes=tuple(_change_commit(inner) for inner in chain),
        touched=touched(changes, blobs, chain),
        moves=_moves(chain),
        decisions=_decisions(repository, entry.serial, own),
        claims=claims,
        evidence=tuple(parse_evidence(item.data, path) for path, item in zip(files, objects, strict=True)),
        earlier=frozenset(c.digest for c in claims if c.path in there),
        before=_state(repository, state.old) if state else None,
        after=_state(repository, state.new) if state else None,
    )


def touched(changes: Sequence[TreeChange], blobs: Blobs, chain: Sequence[_Inner] = ()) -> tuple[Touched, ...]:
    """The resources among ``changes``, and those that the commits of an attempt changed and took back, by address."""
    kept = {address: (c.old, c.new) for c in changes if (address := address_at(c.path))}
    tried: dict[Address, tuple[str, str]] = {}
    for change in (c for inner in chain for c in inner.changes):
        address = address_at(change.path)
        if address and address not in kept:
            old, _ = tried.setdefault(address, (change.old, change.new))
            if change.new != old:  # not the commit that takes it back
                tried[address] = old, change.new
    both = [(address, ids, True) for address, ids in kept.items()]
    both += [(address, ids, False) for address, ids in tried.items()]
    return tuple(Touched(a, blobs.get(old), blobs.get(new), held) for a, (old, new), held in sorted(both))


def renames(repository: Repository, commit: Commit, address: Address) -> dict[Address, Address]:
    """The renames of this resource, to it or away from it, that the attempt of an entry made: name after, name
    before."""
    if len(commit.parents) < 2:
        return {}
    named = f"--grep=^Llmctl-Resource: {address}$"
    ids = list_commits(repository.git, "--reverse", "-E", named, commit.parents[1], f"^{commit.parents[0]}")
    found = read_commits(repository, ids)
    return _moves([_Inner(c, changes) for c, changes in zip(found, differences(repository, found), strict=True)])


def _attempts(repository: Repository, commits: Sequence[Commit]) -> list[list[_Inner]]:
    """The commits inside the attempt of each entry, oldest first."""
    merges = [c for c in commits if len(c.parents) > 1]
    if not merges:
        return [[] for _ in commits]
    oldest = min(merges, key=lambda c: serial_of(trailers_of(c.message)) or 0)
    asked = "\n".join([*(c.parents[1] for c in merges), f"^{oldest.parents[0]}", ""])
    listed = repository.git.run("rev-list", "--stdin", stdin=asked.encode()).decode().split()
    known = {c.id: c for c in read_commits(repository, listed)}
    chains = [_chain(commit, known) for commit in commits]
    bases = {c.parents[0] for chain in chains for c in chain} - known.keys()
    trees = {c.id: c.tree for c in (*known.values(), *read_commits(repository, bases))}
    compared = iter(compare_trees(repository.git, [(trees[c.parents[0]], c.tree) for chain in chains for c in chain]))
    return [[_Inner(commit, next(compared)) for commit in chain] for chain in chains]


def parse_decisions(data: bytes, path: str) -> Json:
    """Read a file of decisions; raises ``RecordError`` when it is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} in the record cannot be read", detail=str(error)) from error
    if not isinstance(found, dict):
        raise RecordError(f"{path} in the record cannot be read", detail="it is not a JSON object")
    return found


def _decisions(repository: Repository, serial: int, own: Mapping[str, str]) -> Json:
    path = decisions_path(serial)
    blob = own.get(path, "")
    return parse_decisions(next(read_objects(repository, [blob])).data, path) if blob else {}


def _state(repository: Repository, blob: str) -> StateFile | None:
    if not blob:
        return None
    return parse_state(next(read_objects(repository, [blob])).data, f"{STATE} ({blob[:12]})")


def _entry(commit: Commit, changes: Sequence[TreeChange]) -> Entry:
    trailers = trailers_of(commit.message)
    return Entry(
        serial=serial_of(trailers) or 0,
        commit=commit.id,
        time=commit.time,
        actor=value(trailers, "Actor") or commit.author,
        action=value(trailers, "Action"),
        outcome=value(trailers, "Outcome"),
        subject=subject_of(commit.message),
        trailers=trailers,
        resources=_resources(changes),
    )


def _resources(changes: Sequence[TreeChange]) -> tuple[Address, ...]:
    return tuple(sorted(address for c in changes if (address := address_at(c.path))))


def _claims(commit: Commit) -> tuple[GateClaim, ...]:
    try:
        return tuple(GateClaim.parse(text) for text in values(trailers_of(commit.message), "Gate"))
    except ValueError as error:
        raise RecordError(f"entry {commit.id[:12]} has a damaged trailer: {error}") from error


def _chain(entry: Commit, known: Mapping[str, Commit]) -> list[Commit]:
    """The commits of an entry's own attempt, oldest first."""
    if len(entry.parents) < 2:
        return []
    serial, name, chain = serial_of(trailers_of(entry.message)), entry.parents[1], list[Commit]()
    while name in known and name != entry.parents[0] and known[name].parents:
        chain.append(known[name])
        name = chain[-1].parents[0]
    return [c for c in reversed(chain) if serial_of(trailers_of(c.message)) == serial]


def _change_commit(inner: _Inner) -> ChangeCommit:
    commit = inner.commit
    trailers: Trailers = trailers_of(commit.message)
    return ChangeCommit(commit.id, commit.time, subject_of(commit.message), trailers, _resources(inner.changes))


def _moves(chain: Sequence[_Inner]) -> dict[Address, Address]:
    """The renames of an attempt, by the new name: a commit that takes one away and puts one of its kind there."""
    moves: dict[Address, Address] = {}
    for inner in chain:
        named = [(c.status, address) for c in inner.changes if (address := address_at(c.path))]
        gone = [a for status, a in named if status == "D"]
        come = [a for status, a in named if status == "A"]
        if len(gone) == len(come) == 1 and gone[0].kind == come[0].kind:
            moves[come[0]] = moves.pop(gone[0], gone[0])
    return moves
