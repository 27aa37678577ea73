"""Checking every file that ever lay in the record, each content once, and keeping what the entries are held to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from llmctl.core.digests import Json, digest, pretty_json
from llmctl.core.errors import RecordError
from llmctl.core.evidence import FORMAT as EVIDENCE_FORMAT
from llmctl.core.evidence import Evidence
from llmctl.record.layout import (
    STATE,
    StateFile,
    address_at,
    evidence_at,
    parse_evidence,
    parse_json,
    parse_resource,
    parse_state,
)
from llmctl.record.objects import object_id
from llmctl.record.repository import Repository
from llmctl.record.secrets_in import secrets_in
from llmctl.record.verifying.chain import History
from llmctl.record.verifying.report import Report
from llmctl.record.verifying.stream import FILE, LARGEST, Stored, stored_objects

Judge = Callable[[Evidence], list[str]]
_LINK = "160000"  # a commit of another repository: there is nothing to read
# All else of decisions is only looked at.
_DECIDED = ("action", "actor", "plan", "source_commit", "approvals", "break_glass", "reconciles", "promotion")


@dataclass(frozen=True, slots=True)
class Files:
    """What was read. States and decisions go by blob, evidence by path and blob: its verdict, "" when unreadable."""

    states: dict[str, StateFile] = field(default_factory=dict)
    decisions: dict[str, Mapping[str, Json]] = field(default_factory=dict)
    evidence: dict[tuple[str, str], str] = field(default_factory=dict)


def check_files(repository: Repository, history: History, judge: Judge, report: Report) -> Files:
    """Read and check all files and folders of a history. Raises ``RecordError`` for one that is missing."""
    empty = object_id("tree", b"", repository.algorithm)
    places, folders = _places(history, report, empty)
    check = _Files(report, judge)
    for item in stored_objects(repository, [*folders, *places]):
        bringer = folders.get(item.id) or places[item.id][0][1]
        if not item.intact:
            report.say(bringer, f"the content of object {item.id} is not what its id says")
        if item.id in places:
            check.content(item, places[item.id])
    for commit in history.damaged:
        report.say(commit, f"the content of object {commit} is not what its id says")
    for commit, what in history.secrets:
        report.say(commit, f"its text holds what looks like {what}")
    return check.files


def _places(history: History, report: Report, empty: str) -> tuple[dict[str, list[tuple[str, str]]], dict[str, str]]:
    """Where each content of a file lies, by its id: paths, each with the commit that brought it first. And the
    same for folders, without their paths."""
    seen: set[tuple[str, str]] = set()
    places: dict[str, list[tuple[str, str]]] = {}
    folders: dict[str, str] = {}
    for node in history.nodes():
        folders.setdefault(node.commit.tree, node.id)
        for change in node.changes:
            if not change.new:
                continue
            if change.is_folder:
                folders.setdefault(change.new, node.id)
                if change.new == empty:
                    report.say(node.id, f"{change.path} is an empty folder")
                continue
            if change.mode != FILE:
                report.say(node.id, f"{change.path} is no plain file (mode {change.mode})")
            if change.mode != _LINK and (change.new, change.path) not in seen:
                seen.add((change.new, change.path))
                places.setdefault(change.new, []).append((change.path, node.id))
    return places, folders


class _Files:
    def __init__(self, report: Report, judge: Judge) -> None:
        self._report = report
        self._judge = judge
        self.files = Files()

    def content(self, item: Stored, places: list[tuple[str, str]]) -> None:
        if item.data is None or item.kind != "blob":
            size = f"{item.size >> 20} MB large; llmctl writes no file above {LARGEST >> 20} MB"
            for path, commit in places:
                self._report.say(commit, f"{path} is {size if item.kind == 'blob' else 'no file'}")
            return
        path, commit = places[0]
        for what, line in secrets_in(item.data):
            self._report.say(commit, f"{path}, line {line}, holds what looks like {what}")
        for path, commit in places:
            for complaint in self._complaints(path, item.id, item.data):
                self._report.say(commit, complaint)

    def _complaints(self, path: str, blob: str, data: bytes) -> Iterator[str]:
        try:
            if place := evidence_at(path):
                yield from self._evidence(path, blob, data, place)
            elif path == STATE:
                self.files.states[blob] = parse_state(data, path)
                yield from _unlike(path, data)
            elif path.startswith("decisions/"):
                found = parse_json(data, path)
                self.files.decisions[blob] = {key: found[key] for key in _DECIDED if key in found}
                yield from _unlike(path, data)
            elif address := address_at(path):
                yield from _unlike(path, data)
                if parse_resource(data, path).address != address:
                    yield f"{path} holds another resource than its name says"
        except RecordError as error:
            yield f"{error.summary}: {error.detail or error.hint}"

    def _evidence(self, path: str, blob: str, data: bytes, place: tuple[str, str]) -> Iterator[str]:
        self.files.evidence[path, blob] = ""
        found = parse_evidence(data, path)
        value = parse_json(data, path, EVIDENCE_FORMAT)
        if (found.gate, digest(value)) != place or data != pretty_json(value).encode():
            yield f"the content of {path} is not what its name says: it was edited"
        for complaint in self._judge(found):
            yield f"{path}: {complaint}"
        self.files.evidence[path, blob] = found.verdict.value


def _unlike(path: str, data: bytes) -> Iterator[str]:
    try:
        same = data == pretty_json(parse_json(data, path)).encode()
    except (ValueError, RecursionError):
        same = False
    if not same:
        yield f"{path} is not as llmctl writes it: it was edited"
