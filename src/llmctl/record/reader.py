"""Reading the record: the state, the evidence and the entries. Nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence

from llmctl.core.address import Address
from llmctl.core.errors import RecordError
from llmctl.core.evidence import Evidence
from llmctl.core.resources import Recorded, RecordState
from llmctl.record.entries import Entry, EntryDetail, entries_of, read_details
from llmctl.record.layout import (
    STATE,
    StateFile,
    address_at,
    evidence_at,
    parse_evidence,
    parse_resource,
    parse_state,
    record_state,
)
from llmctl.record.messages import serial_of, trailers_of
from llmctl.record.objects import (
    Commit,
    Object,
    list_commits,
    list_files,
    read_commits,
    read_objects,
)
from llmctl.record.repository import ORIGIN, Repository, branch, remote_branch


class Reader:
    """Reads the record of one environment: the local branch, or where there is none, what was fetched of a remote."""

    def __init__(self, repository: Repository, environment: str) -> None:
        self._repository = repository
        self._git = repository.git
        self.environment = environment

    def head(self) -> str:
        """The commit of the newest entry, "" when nothing is recorded; raises ``RecordError`` for a damaged branch."""
        find, own = self._repository.objects.resolve, branch(self.environment)
        found = find(f"{own}^{{commit}}")
        if not found and self._is_named(own):
            found = find(f"{own}^{{commit}}")  # it may just have been made
            if not found:  # a power cut can leave it empty; that is no record that was never begun
                raise RecordError(
                    f"the branch llmctl/{self.environment} is there, and names no commit that is",
                    hint=f"Run `git fsck`, then name the last whole entry: `git update-ref {own} COMMIT`.",
                )
        fetched = find(f"{remote_branch(self.environment, self._repository.remote or ORIGIN)}^{{commit}}")
        if found and fetched not in ("", found) and self._repository.newest:
            ask = ("merge-base", "--is-ancestor", found, fetched)
            return fetched if self._git.ask(*ask).code == 0 else found
        return found or fetched

    def _is_named(self, ref: str) -> bool:
        """Whether git has a ref of that name, whatever it names: in a file of its own, or packed with others."""
        folder = self._repository.common_dir
        if (folder / ref).is_file():
            return True
        try:
            return f" {ref}\n".encode() in (folder / "packed-refs").read_bytes()
        except FileNotFoundError:
            return False

    def state(self) -> RecordState:
        """What is recorded now; serial 0 when nothing is."""
        head = self.head()
        return self.state_of(head) if head else RecordState(self.environment)

    def state_at(self, serial: int) -> RecordState:
        """What was recorded by the entry with that serial; raises ``RecordError`` when there is none."""
        return self.state_of(self.find(serial).id)

    def summary(self) -> StateFile | None:
        """``state.json`` of the newest entry alone, ``None`` when nothing is recorded."""
        head = self.head()
        if not head:
            return None
        found = list_files(self._repository, head, STATE)
        return self._parse_state(head, [*read_objects(self._repository, found.values())])

    def evidence(self, gate: str | None = None) -> list[Evidence]:
        """All evidence in the record, or that of one gate, oldest measurement first."""
        return sorted(self.evidence_files(gate).values(), key=lambda e: (e.measured_at, e.gate, e.digest))

    def evidence_files(self, gate: str | None = None) -> dict[str, Evidence]:
        """The same by path in the record."""
        head = self.head()
        files = list_files(self._repository, head, f"evidence/{gate}/" if gate else "evidence/") if head else {}
        blobs = {path: blob for path, blob in files.items() if evidence_at(path)}
        objects = read_objects(self._repository, blobs.values())
        return {path: parse_evidence(item.data, path) for path, item in zip(blobs, objects, strict=True)}

    def entries(self, limit: int = 0) -> list[Entry]:
        """The newest entries first; all of them when ``limit`` is 0."""
        ids = self.entry_ids(*([f"--max-count={limit}"] if limit > 0 else []))
        return entries_of(self._repository, self.commits_of(ids))

    def entry_ids(self, *options: str) -> list[str]:
        """Commits that the record's head leads to by first parents, newest first, as ``git rev-list`` narrows them:
        entries, and last the beginning of the record."""
        head = self.head()
        return list_commits(self._git, "--first-parent", *options, head) if head else []

    def commits_of(self, ids: Sequence[str]) -> list[Commit]:
        """Those of these commits that are entries: the beginning of the record is none."""
        return [c for c in read_commits(self._repository, ids) if serial_of(trailers_of(c.message))]

    def entry(self, serial: int) -> EntryDetail:
        """One entry in full; raises ``RecordError`` when there is none with that serial."""
        return read_details(self._repository, [self.find(serial)])[0]

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

    def find(self, serial: int) -> Commit:
        """The commit of the entry with that serial; raises ``RecordError`` when there is none."""
        head = self.head()
        newest = serial_of(trailers_of(read_commits(self._repository, [head])[0].message)) if head else None
        if newest and 0 < serial <= newest:
            # Serials have no gap, so it lies that many entries back; a record that was tampered with is searched.
            place = self._repository.objects.resolve(f"{head}~{newest - serial}^{{commit}}")
            found = read_commits(self._repository, [place] if place else [])
            if found and serial_of(trailers_of(found[0].message)) == serial:
                return found[0]
        known = {serial_of(trailers_of(c.message)): c for c in reversed(self.commits_of(self.entry_ids()))}
        if serial in known:
            return known[serial]
        serials = sorted(s for s in known if s)
        span = "it is empty"
        if serials:
            span = f"it has {serials[0]} to {serials[-1]}" if len(serials) > 1 else f"it has {serials[0]}"
        raise RecordError(
            f"serial {serial} is not in the record of {self.environment}; {span}",
            hint=f"`llmctl audit log -e {self.environment}` lists the entries.",
        )
