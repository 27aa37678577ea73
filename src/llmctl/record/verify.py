"""Checking a record offline on a plain clone, without trusting the tool that wrote it.

Walked from the oldest entry to the newest: the hash chain, serials, parents, trailers against trees, evidence
against its digest, its gate's claim and its own numbers. Signatures are only noted, not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from llmctl.core.errors import RecordError
from llmctl.core.evidence import Evidence
from llmctl.record.chain import History, Link, read_history
from llmctl.record.layout import (
    STATE,
    address_at,
    content_digest,
    decisions_path,
    encode,
    evidence_at,
    parse_evidence,
    parse_json,
    parse_resource,
    parse_state,
)
from llmctl.record.messages import GateClaim, named_resources, serial_of, trailers_of, value, values
from llmctl.record.objects import Object, TreeChange, read_objects
from llmctl.record.reader import Reader
from llmctl.record.repository import Repository

Judge = Callable[[Evidence], list[str]]


def _is_cut(repository: Repository, environment: str) -> bool:
    """Whether a shallow clone lacks a part of the record; one that was made in that clone is whole."""
    shallow = repository.common_dir / "shallow"
    head = Reader(repository, environment).head()
    if not head or not shallow.exists():
        return False
    commits = repository.git.run("rev-list", head, "--").decode().split()
    return not set(shallow.read_text().split()).isdisjoint(commits)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold. ``anchor`` says what vouches for the commit: a signature, the expected
    head, or nothing ("unanchored": history that was rewritten consistently cannot be told)."""

    commit: str
    reason: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of ``verify``. ``anchor`` is that of the head; counts are of what was checked."""

    head: str
    findings: tuple[Finding, ...]
    commits: int
    entries: int
    evidence: int
    anchor: str

    @property
    def ok(self) -> bool:
        return not self.findings


def verify(repository: Repository, environment: str, *, expect_head: str | None, judge: Judge) -> Verification:
    """Check the whole record of an environment.

    ``judge`` derives a verdict again from the numbers of a piece of evidence and returns what is wrong with
    it. Raises ``RecordError`` only where nothing can be checked: a shallow clone that cut it, missing objects.
    """
    if _is_cut(repository, environment):
        raise RecordError(
            "this clone is shallow, and a record can only be verified whole", hint="Run `git fetch --unshallow`."
        )
    history = read_history(repository, environment)
    check = _Check(repository, environment, history, judge)
    check.expected_head(expect_head)
    if history.head:
        check.entries()
        check.files()
    pinned = expect_head is not None and expect_head == history.head
    anchors = dict.fromkeys(history.signed, "signed")
    if pinned:
        anchors |= dict.fromkeys(history.commits, "expected head")
    return Verification(
        head=history.head,
        findings=tuple(Finding(commit, reason, anchors.get(commit, "unanchored")) for commit, reason in check.found),
        commits=len(history.commits),
        entries=sum(1 for link in history.links if serial_of(trailers_of(link.entry.message))),
        evidence=check.evidence_checked,
        anchor=anchors.get(history.head, "unanchored"),
    )


class _Check:
    def __init__(self, repository: Repository, environment: str, history: History, judge: Judge) -> None:
        self._repository = repository
        self._environment = environment
        self._history = history
        self._judge = judge
        self._present: dict[str, str] = {}  # evidence seen so far: path to verdict, "" when unreadable
        self.found: list[tuple[str, str]] = []
        self.evidence_checked = 0

    def expected_head(self, expected: str | None) -> None:
        head = self._history.head
        if expected is not None and expected != head:
            self.found.append((head, f"the record ends at {head or 'nothing'}, expected was {expected}"))
        elif not head:
            self.found.append(("", f"there is no record of {self._environment} in this clone"))

    def entries(self) -> None:
        """Everything that an entry, its place and its attempt must fulfil."""
        before, fence = 0, 0
        for index, link in enumerate(self._history.links):
            serial = serial_of(trailers_of(link.entry.message))
            if index == 0:
                self._beginning(link, serial)
                continue
            if serial is None:
                self._say(link.entry.id, "is no entry that llmctl made: it has no Llmctl-Serial")
            elif serial != before + 1:
                self._say(link.entry.id, f"has serial {serial} after {before}: entries are missing or repeated")
            before = serial if serial is not None else before + 1
            self._attempt(link, before)
            fence = self._entry(link, before, fence)
        inside = {c.id for link in self._history.links for c in (link.entry, *link.changes)}
        for commit in self._history.commits:
            if commit not in inside:
                self._say(commit, "belongs to no entry: it was put in by other means")

    def _beginning(self, link: Link, serial: int | None) -> None:
        if serial != 0 or link.entry.parents or link.differences:
            self._say(link.entry.id, "the record does not begin here: what came before was cut off")

    def _attempt(self, link: Link, serial: int) -> None:
        if len(link.entry.parents) > 2:
            self._say(link.entry.id, "merges more than one attempt")
        if link.changes and link.changes[0].parents != link.entry.parents[:1]:
            self._say(link.changes[0].id, "its attempt does not start at the entry before")
        claimed = set(values(trailers_of(link.entry.message), "Gate"))
        for commit, changes in zip(link.changes, link.change_differences, strict=True):
            trailers = trailers_of(commit.message)
            if serial_of(trailers) != serial or value(trailers, "Outcome"):
                self._say(commit.id, f"is no change of entry {serial}: its trailers say otherwise")
            self._change(commit.id, commit.message, changes)
            for text in values(trailers, "Gate"):
                if text not in claimed:
                    self._say(link.entry.id, f"does not repeat the gate result of its change: {text}")

    def _change(self, commit: str, message: str, changes: Sequence[TreeChange]) -> None:
        trailers = trailers_of(message)
        named = set(named_resources(trailers))
        claimed = {text.rpartition(" ")[2] for text in values(trailers, "Gate")}
        for change in changes:
            address, evidence = address_at(change.path), evidence_at(change.path)
            if address:
                if address not in named:
                    self._say(commit, f"changes {address} without a Llmctl-Resource trailer for it")
            elif not evidence:
                self._say(commit, f"changes {change.path}, which no change may touch")
            elif change.status != "A":
                verb = "removes" if change.status == "D" else "changes"
                self._say(commit, f"{verb} evidence that was recorded before: {change.path}")
            else:
                if evidence[1] not in claimed:
                    self._say(commit, f"brings evidence without a Llmctl-Gate trailer for it: {change.path}")
                self._present[change.path] = self._evidence(commit, change)
        self._claims(commit, values(trailers, "Gate"))

    def _entry(self, link: Link, serial: int, fence: int) -> int:
        """Check the entry's own files; returns its fence, below which no later one may be."""
        commit, trailers = link.entry.id, trailers_of(link.entry.message)
        allowed = {STATE: ("A", "M"), decisions_path(serial): ("A",)}
        changed = {change.path: change for change in link.differences}
        for change in link.differences:
            if change.status not in allowed.get(change.path, ()):
                self._say(commit, f"an entry may not change {change.path}; only its attempt's commits may")
        for path in allowed:
            if path not in changed:
                self._say(commit, f"does not bring {path}")
        self._claims(commit, values(trailers, "Gate"))
        if STATE not in changed or not changed[STATE].new:
            return fence
        try:
            state = parse_state(self._read(changed[STATE].new).data, STATE)
        except RecordError as error:
            self._say(commit, f"{error.summary}: {error.detail}")
            return fence
        said = {
            "serial": (state.serial, serial),
            "environment": (state.environment, self._environment),
            "outcome": (state.outcome, value(trailers, "Outcome")),
            "source commit": (state.source_commit, value(trailers, "Source")),
        }
        for what, (in_file, in_trailer) in said.items():
            if in_file != in_trailer:
                self._say(commit, f"{STATE} says {what} {in_file!r}, the entry {in_trailer!r}")
        if state.fence < fence:
            self._say(commit, f"its fencing token {state.fence} is lower than {fence} before: written by an old holder")
        return max(fence, state.fence)

    def _claims(self, commit: str, texts: Iterable[str]) -> None:
        for text in texts:
            try:
                claim = GateClaim.parse(text)
            except ValueError as error:
                self._say(commit, f"its Llmctl-Gate trailer cannot be read: {error}")
                continue
            verdict = self._present.get(claim.path)
            if verdict is None:
                self._say(commit, f"claims gate {claim.gate} {claim.verdict.value}, but the evidence is absent")
            elif verdict and verdict != claim.verdict.value:
                self._say(commit, f"claims gate {claim.gate} {claim.verdict.value}, but the evidence says {verdict}")

    def _evidence(self, commit: str, change: TreeChange) -> str:
        """Check one new piece of evidence; returns its verdict, "" when it cannot be read."""
        self.evidence_checked += 1
        place = evidence_at(change.path)
        data = self._read(change.new).data
        try:
            evidence = parse_evidence(data, change.path)
            actual = (evidence.gate, content_digest(data, change.path))
        except RecordError as error:
            self._say(commit, f"{error.summary}: {error.detail or error.hint}")
            return ""
        if actual != place or data != encode(change.path, parse_json(data, change.path)):
            self._say(commit, f"the content of {change.path} is not what its name says: it was edited")
        for complaint in self._judge(evidence):
            self._say(commit, f"{change.path}: {complaint}")
        return evidence.verdict.value

    def files(self) -> None:
        """Every other file that was ever recorded can be read and is what llmctl would write."""
        for commit, change in self._history.introduced():
            if not change.new or evidence_at(change.path):
                continue
            data, address = self._read(change.new).data, address_at(change.path)
            try:
                if data != encode(change.path, parse_json(data, change.path)):
                    self._say(commit, f"{change.path} is not as llmctl writes it: it was edited")
                if address and parse_resource(data, change.path).address != address:
                    self._say(commit, f"{change.path} holds another resource than its name says")
            except RecordError as error:
                if change.path != STATE:  # said with its entry
                    self._say(commit, f"{error.summary}: {error.detail or error.hint}")
        for name in sorted(self._history.damaged):
            self._say(self._history.bringer(name), f"the content of object {name} is not what its id says")

    def _read(self, blob: str) -> Object:
        return self._history.blobs.get(blob) or next(read_objects(self._repository, [blob]))

    def _say(self, commit: str, reason: str) -> None:
        if (commit, reason) not in self.found:
            self.found.append((commit, reason))
