"""Reading the record: the state, the evidence and the entries. Nothing here writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.errors import RecordError
from llmctl.core.evidence import Evidence
from llmctl.core.resources import Recorded, RecordState
from llmctl.record.layout import (
    STATE,
    StateFile,
    address_at,
    decisions_path,
    evidence_at,
    parse_evidence,
    parse_resource,
    parse_state,
    record_state,
)
from llmctl.record.messages import GateClaim, Trailers, serial_of, subject_of, trailers_of, value, values
from llmctl.record.objects import (
    Commit,
    Object,
    compare_trees,
    list_commits,
    list_files,
    object_id,
    read_commits,
    read_objects,
)
from llmctl.record.repository import Repository, branch, remote_branch


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
class EntryDetail:
    """An entry with its changes, what was decided, and the evidence that its gates claim."""

    entry: Entry
    changes: tuple[ChangeCommit, ...]
    decisions: Json
    evidence: tuple[Evidence, ...]


class Reader:
    """Reads the record of one environment: the local branch, or where there is none, that of ``origin``."""

    def __init__(self, repository: Repository, environment: str) -> None:
        self._repository = repository
        self._git = repository.git
        self.environment = environment

    def head(self) -> str:
        """The commit of the newest entry, "" when nothing is recorded; raises ``RecordError`` for a damaged branch."""
        find, own = self._repository.objects.resolve, branch(self.environment)
        found = find(f"{own}^{{commit}}")
        if not found and (self._repository.common_dir / own).is_file():
            found = find(f"{own}^{{commit}}")  # it may just have been made
            if not found:  # a power cut can leave it empty; that is no record that was never begun
                raise RecordError(
                    f"the branch llmctl/{self.environment} is there, and names no commit that is",
                    hint=f"Run `git fsck`, then name the last whole entry: `git update-ref {own} COMMIT`.",
                )
        return found or find(f"{remote_branch(self.environment)}^{{commit}}")

    def state(self) -> RecordState:
        """What is recorded now; serial 0 when nothing is."""
        head = self.head()
        return self.state_of(head) if head else RecordState(self.environment)

    def state_at(self, serial: int) -> RecordState:
        """What was recorded by the entry with that serial; raises ``RecordError`` when there is none."""
        return self.state_of(self._find(serial).id)

    def summary(self) -> StateFile | None:
        """``state.json`` of the newest entry alone, ``None`` when nothing is recorded."""
        head = self.head()
        if not head:
            return None
        found = list_files(self._repository, head, STATE)
        return self._parse_state(head, [*read_objects(self._repository, found.values())])

    def evidence(self, gate: str | None = None) -> list[Evidence]:
        """All evidence in the record, or that of one gate, oldest measurement first."""
        head = self.head()
        files = list_files(self._repository, head, f"evidence/{gate}/" if gate else "evidence/") if head else {}
        blobs = {path: blob for path, blob in files.items() if evidence_at(path)}
        objects = read_objects(self._repository, blobs.values())
        found = [parse_evidence(item.data, path) for path, item in zip(blobs, objects, strict=True)]
        return sorted(found, key=lambda e: (e.measured_at, e.gate, e.digest))

    def entries(self, limit: int = 0) -> list[Entry]:
        """The newest entries first; all of them when ``limit`` is 0."""
        commits = self._entry_commits(*([f"--max-count={limit}"] if limit > 0 else []))
        return [self._entry(c, r) for c, r in zip(commits, self._changed(commits), strict=True)]

    def entry(self, serial: int) -> EntryDetail:
        """One entry in full; raises ``RecordError`` when there is none with that serial."""
        commit = self._find(serial)
        ids = list_commits(self._git, "--reverse", *commit.parents[1:], *(f"^{p}" for p in commit.parents[:1]))
        inner = [] if len(commit.parents) < 2 else read_commits(self._repository, ids)
        made = [c for c in inner if serial_of(trailers_of(c.message)) == serial]
        changes = tuple(
            ChangeCommit(c.id, c.time, subject_of(c.message), trailers_of(c.message), resources)
            for c, resources in zip(made, self._changed(made), strict=True)
        )
        entry = self._entry(commit, self._changed([commit])[0])
        return EntryDetail(entry, changes, self._decisions(commit, serial), self._claimed(commit, entry.trailers))

    def state_of(self, head: str) -> RecordState:
        """What is recorded in a commit: that of an entry, or of an attempt on its way."""
        files = list_files(self._repository, head, STATE, "resources/")
        objects = dict(zip(files, read_objects(self._repository, files.values()), strict=True))
        state = self._parse_state(head, [objects[STATE]] if STATE in files else [])
        resources: dict[Address, Recorded] = {}
        for path, item in objects.items():
            address = address_at(path)
            if address:
                resources[address] = parse_resource(item.data, f"{path} of {head[:12]}")
        return record_state(state, head, resources)

    def _parse_state(self, head: str, found: Sequence[Object]) -> StateFile:
        where = f"{STATE} of {head[:12]}"
        if not found:
            raise RecordError(
                f"llmctl/{self.environment} holds no {STATE}, so it is not a record",
                hint="If you made this branch yourself, rename it: `git branch -m`. Else run `llmctl audit verify`.",
            )
        state = parse_state(found[0].data, where)
        if state.environment != self.environment:
            raise RecordError(
                f"the branch llmctl/{self.environment} holds the record of {state.environment}",
                hint="A branch was renamed or pushed to the wrong name; put it back with `git branch -m`.",
            )
        return state

    def _entry_commits(self, *options: str) -> list[Commit]:
        """Commits of entries, newest first; the beginning of the record is not one."""
        head = self.head()
        ids = list_commits(self._git, "--first-parent", *options, head) if head else []
        commits = read_commits(self._repository, ids)
        return [c for c in commits if serial_of(trailers_of(c.message))]

    def _find(self, serial: int) -> Commit:
        commits = self._entry_commits()
        serials = [serial_of(trailers_of(c.message)) for c in commits]
        if serial in serials:
            return commits[serials.index(serial)]
        known = [s for s in serials if s]
        span = "it is empty"
        if known:
            span = f"it has {min(known)} to {max(known)}" if len(known) > 1 else f"it has {known[0]}"
        raise RecordError(
            f"serial {serial} is not in the record of {self.environment}; {span}",
            hint=f"`llmctl audit log -e {self.environment}` lists the entries.",
        )

    def _entry(self, commit: Commit, resources: tuple[Address, ...]) -> Entry:
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
            resources=resources,
        )

    def _changed(self, commits: Sequence[Commit]) -> list[tuple[Address, ...]]:
        """The resources that each commit changed against its first parent."""
        parents = {c.id: c for c in read_commits(self._repository, {p for c in commits for p in c.parents[:1]})}
        empty = object_id("tree", b"", self._repository.algorithm)
        pairs = [(parents[c.parents[0]].tree if c.parents else empty, c.tree) for c in commits]
        found = ([address_at(change.path) for change in changes] for changes in compare_trees(self._git, pairs))
        return [tuple(sorted(a for a in addresses if a)) for addresses in found]

    def _decisions(self, commit: Commit, serial: int) -> Json:
        path = decisions_path(serial)
        found = list_files(self._repository, commit.id, path)
        if not found:
            return {}
        data = next(read_objects(self._repository, found.values())).data
        try:
            return json.loads(data)
        except ValueError as error:
            raise RecordError(f"{path} in the record cannot be read", detail=str(error)) from error

    def _claimed(self, commit: Commit, trailers: Trailers) -> tuple[Evidence, ...]:
        try:
            claims = [GateClaim.parse(text) for text in values(trailers, "Gate")]
        except ValueError as error:
            raise RecordError(f"entry {commit.id[:12]} has a damaged trailer: {error}") from error
        files = list_files(self._repository, commit.id, *(c.path for c in claims)) if claims else {}
        present = [(c.path, files[c.path]) for c in claims if c.path in files]
        objects = read_objects(self._repository, [blob for _, blob in present])
        return tuple(parse_evidence(item.data, path) for (path, _), item in zip(present, objects, strict=True))
