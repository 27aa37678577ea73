"""Checking the entries in their order: serials, attempts, trailers against what was changed, gates against evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llmctl.record.layout import STATE, StateFile, address_at, decisions_path, evidence_at
from llmctl.record.messages import GateClaim, Trailers, named_resources, serial_of, value, values
from llmctl.record.repository import Repository
from llmctl.record.signers import Signers
from llmctl.record.verifying.chain import History, Link, Node
from llmctl.record.verifying.decided import Decided, declared, is_plan, wrong_decisions
from llmctl.record.verifying.files import Files
from llmctl.record.verifying.report import Report
from llmctl.record.verifying.stream import FileChange

_ONCE = ("Serial", "Action", "Outcome", "Plan", "Source", "Actor", "Run", "Break-Glass")  # trailers of an entry
_SAID = {
    "action": "Action",
    "actor": "Actor",
    "plan": "Plan",
    "source_commit": "Source",
}  # in decisions, and in trailers


def numbered(history: History) -> list[tuple[int, Link]]:
    """The entries with the serials that their places give them; the beginning of a record has 0."""
    found: list[tuple[int, Link]] = []
    before = -1
    for link in history.links:
        said = serial_of(link.entry.trailers)
        before = said if said is not None and found else before + 1
        found.append((before, link))
    return found


def check_entries(
    repository: Repository, environment: str, history: History, files: Files, signers: Signers, report: Report
) -> None:
    """Everything that an entry, its place and its attempt must fulfil."""
    check = _Entries(repository, environment, files, signers, report)
    first, *rest = numbered(history)
    check.beginning(first[1])
    for serial, link in rest:
        check.entry(serial, link)
    for node in history.strays:
        report.say(node.id, "belongs to no entry: it was put in by other means")
    for commit in history.odd:
        report.say(commit, "is not written as llmctl writes a commit")


class _Entries:
    def __init__(
        self, repository: Repository, environment: str, files: Files, signers: Signers, report: Report
    ) -> None:
        self._repository = repository
        self._environment = environment
        self._files = files
        self._signers = signers
        self._report = report
        self._present: dict[str, str] = {}  # evidence in the record so far: path to verdict, "" when unreadable
        self._serial, self._fence = 0, 0
        self._state: StateFile | None = None
        self._needed = 0  # approvals, by the entries so far

    def beginning(self, link: Link) -> None:
        """The first commit of all: empty, and of serial 0."""
        entry = link.entry
        if serial_of(entry.trailers) != 0 or entry.commit.parents or entry.changes:
            self._report.say(entry.id, "the record does not begin here: what came before was cut off")

    def entry(self, serial: int, link: Link) -> None:
        """An entry with its attempt."""
        entry = link.entry
        said = serial_of(entry.trailers)
        for name in _ONCE:
            if len(values(entry.trailers, name)) > 1:
                self._report.say(entry.id, f"says Llmctl-{name} more than once")
        if said is None:
            self._report.say(entry.id, "is no entry that llmctl made: it has no Llmctl-Serial")
        elif said != self._serial + 1:
            self._report.say(entry.id, f"has serial {said} after {self._serial}: entries are missing or repeated")
        self._attempt(link, serial)
        self._own_files(entry, serial)
        self._claims(entry)
        after = self._read_state(entry, serial)
        path = decisions_path(serial)
        blob = next((change.new for change in entry.changes if change.path == path), "")
        decisions = self._files.decisions.get(blob, {})
        for key, name in _SAID.items():
            if key in decisions and decisions[key] != value(entry.trailers, name):
                reason = f"{path} says {key} {decisions[key]!r}, the entry {value(entry.trailers, name)!r}"
                self._report.say(entry.id, reason)
        found = Decided(link, serial, decisions, self._state, after, self._needed)
        for reason in wrong_decisions(self._repository, self._environment, found, self._signers):
            self._report.say(entry.id, reason)
        if is_plan(decisions):
            self._needed = declared(decisions)
        self._serial = serial
        self._state = after or self._state

    def _attempt(self, link: Link, serial: int) -> None:
        entry = link.entry
        if len(entry.commit.parents) > 2:
            self._report.say(entry.id, "merges more than one attempt")
        if len(entry.commit.parents) > 1 and not link.attempt:
            # What it changes would else be compared with something older, and hide what that lacks.
            self._report.say(entry.id, "merges what is no attempt of its own")
        if link.attempt and link.attempt[0].commit.parents != entry.commit.parents[:1]:
            self._report.say(link.attempt[0].id, "its attempt does not start at the entry before")
        claimed = set(values(entry.trailers, "Gate"))
        clearing = value(entry.trailers, "Action") == "gc"
        for node in link.attempt:
            if len(node.commit.parents) > 1:
                self._report.say(node.id, "is a merge inside of an attempt")
            if serial_of(node.trailers) != serial or value(node.trailers, "Outcome"):
                self._report.say(node.id, f"is no change of entry {serial}: its trailers say otherwise")
            for reason in self._changes(node, clearing):
                self._report.say(node.id, reason)
            self._claims(node)
            for text in values(node.trailers, "Gate"):
                if text not in claimed:
                    self._report.say(entry.id, f"does not repeat the gate result of its change: {text}")

    def _changes(self, node: Node, clearing: bool) -> Iterator[str]:
        named = set(named_resources(node.trailers))
        for change in node.changes:
            address = address_at(change.path)
            if evidence_at(change.path):
                yield from self._evidence(node.trailers, change, clearing)
            elif address:
                if address not in named:
                    yield f"changes {address} without a Llmctl-Resource trailer for it"
            elif not change.is_folder:
                yield f"changes {change.path}, which no change may touch"

    def _evidence(self, trailers: Trailers, change: FileChange, clearing: bool) -> Iterator[str]:
        path = change.path
        if change.status == "D":
            self._present.pop(path, None)
            if not clearing:
                yield f"removes evidence that was recorded before: {path}"
            elif path not in values(trailers, "Removes"):
                yield f"removes evidence without a Llmctl-Removes trailer for it: {path}"
            return
        if change.status != "A":
            yield f"changes evidence that was recorded before: {path}"
            return
        claimed = {text.rpartition(" ")[2] for text in values(trailers, "Gate")}
        if (place := evidence_at(path)) and place[1] not in claimed:
            yield f"brings evidence without a Llmctl-Gate trailer for it: {path}"
        self._present[path] = self._files.evidence.get((path, change.new), "")

    def _own_files(self, entry: Node, serial: int) -> None:
        allowed = {STATE: ("A", "M"), decisions_path(serial): ("A",)}
        changed = {change.path for change in entry.changes}
        for change in entry.changes:
            if not change.is_folder and change.status not in allowed.get(change.path, ()):
                reason = f"an entry may not change {change.path}; only its attempt's commits may"
                self._report.say(entry.id, reason)
        for path in allowed:
            if path not in changed:
                self._report.say(entry.id, f"does not bring {path}")

    def _read_state(self, entry: Node, serial: int) -> StateFile | None:
        blob = next((change.new for change in entry.changes if change.path == STATE), "")
        state = self._files.states.get(blob)
        if state is None:
            return None
        said = {
            "serial": (state.serial, serial),
            "environment": (state.environment, self._environment),
            "outcome": (state.outcome, value(entry.trailers, "Outcome")),
            "source commit": (state.source_commit, value(entry.trailers, "Source")),
        }
        for what, (in_file, in_trailer) in said.items():
            if in_file != in_trailer:
                self._report.say(entry.id, f"{STATE} says {what} {in_file!r}, the entry {in_trailer!r}")
        if state.fence < self._fence:
            reason = f"its fencing token {state.fence} is lower than {self._fence} before: written by an old holder"
            self._report.say(entry.id, reason)
        self._fence = max(self._fence, state.fence)
        return state

    def _claims(self, node: Node) -> None:
        for reason in self._unproven(values(node.trailers, "Gate")):
            self._report.say(node.id, reason)

    def _unproven(self, texts: Iterable[str]) -> Iterator[str]:
        for text in texts:
            try:
                claim = GateClaim.parse(text)
            except ValueError as error:
                yield f"its Llmctl-Gate trailer cannot be read: {error}"
                continue
            verdict = self._present.get(claim.path)
            if verdict is None:
                yield f"claims gate {claim.gate} {claim.verdict.value}, but the evidence is absent"
            elif verdict and verdict != claim.verdict.value:
                yield f"claims gate {claim.gate} {claim.verdict.value}, but the evidence says {verdict}"
