"""Questions to the record's past: which entries match, what differs between two, how a resource came to be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from llmctl.core.address import Address
from llmctl.core.decisions import BreakGlass
from llmctl.core.digests import Json
from llmctl.core.resources import Recorded
from llmctl.record.entries import (
    Blobs,
    Entry,
    EntryDetail,
    Touched,
    differences,
    entries_of,
    parse_decisions,
    read_details,
    renames,
    touched,
)
from llmctl.record.layout import address_at, decisions_path, record_path
from llmctl.record.messages import named_resources, serial_of, subject_of, trailers_of, value, values
from llmctl.record.objects import (
    Commit,
    compare_trees,
    list_commits,
    list_files,
    object_id,
    read_commits,
    read_objects,
)
from llmctl.record.reader import Reader
from llmctl.record.repository import Repository

_AT_ONCE = 500  # entries that are looked at before more are read
_DECIDED = re.compile(r"decisions/(\d+)\.json\Z")
_IN_SUBJECT = r"(?<![\w.-])(?:{})(?![\w-])"


@dataclass(frozen=True, slots=True)
class Query:
    """Which entries are wanted: all that are said must hold, and of several values of one any.

    ``since`` is the first moment and ``before`` the first one after the last, ISO 8601 in UTC as entries have it.
    ``resources`` are patterns of addresses, with ``*`` for any characters; ``limit`` 0 means all.
    """

    since: str = ""
    before: str = ""
    actor: str = ""
    actions: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    text: str = ""
    resources: tuple[str, ...] = ()
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Version:
    """What one entry made of a resource. ``recorded`` is None where it is gone; ``moved`` is the other name, where
    the entry renamed it: that before, or where it is gone that after."""

    entry: Entry
    address: Address
    recorded: Recorded | None
    moved: Address | None = None


@dataclass(frozen=True, slots=True)
class Between:
    """What differs between two entries. ``changed_by`` has the serials of the entries that changed each."""

    touched: tuple[Touched, ...]
    changed_by: Mapping[Address, tuple[int, ...]]


class History:
    """The past of one environment's record."""

    def __init__(self, repository: Repository, environment: str) -> None:
        self._repository = repository
        self._git = repository.git
        self._reader = Reader(repository, environment)

    # -- which entries --------------------------------------------------------------------------

    def entries(self, query: Query) -> list[Entry]:
        """The entries that match, newest first."""
        plain = query == Query(limit=query.limit)
        options = [f"--max-count={query.limit}"] if plain and query.limit else []
        ids = self._reader.entry_ids(*options)
        concerned = self._concerned(query.resources)
        said = _reasons(self._decided()) if query.text else {}
        found: list[Commit] = []
        for commit in self._commits(ids):
            if _matches(query, commit, said, concerned):
                found.append(commit)
            if query.limit and len(found) == query.limit:
                break
        return entries_of(self._repository, found)

    def span(self) -> tuple[Entry, Entry] | None:
        """The oldest and the newest entry, None when there is none."""
        ids = self._reader.entry_ids()
        ends = self._reader.commits_of([*ids[:1], *ids[-2:]])  # the last may be the beginning, which is none
        newest_first = entries_of(self._repository, ends)
        return (newest_first[-1], newest_first[0]) if newest_first else None

    def decisions(self, entries: Sequence[Entry]) -> list[Json]:
        """What was decided in each of these entries; ``{}`` where the record does not say."""
        names = [f"{e.commit}:{decisions_path(e.serial)}" for e in entries]
        found = self._repository.objects.contents(names)
        return [parse_decisions(item[2], name) if item else {} for name, item in zip(names, found, strict=True)]

    def known(self) -> list[Address]:
        """Every resource that a commit of the record names, whether it is still there or not, by name."""
        head = self._reader.head()
        named = list_commits(self._git, "-E", "--grep=^Llmctl-Resource: ", head) if head else []
        commits = read_commits(self._repository, named)
        return sorted({address for c in commits for address in named_resources(trailers_of(c.message))})

    def reconciled(self) -> dict[int, int]:
        """Which entry closed which break-glass, by serial of that."""
        ids = self._reader.entry_ids("-E", "--grep=^Llmctl-Reconciles: [0-9]+$")
        closed: dict[int, int] = {}
        for commit in self._reader.commits_of(ids):
            trailers = trailers_of(commit.message)
            for text in values(trailers, "Reconciles"):
                if text.isascii() and text.isdigit():
                    closed[int(text)] = serial_of(trailers) or 0
        return closed

    def _commits(self, ids: Sequence[str]) -> Iterator[Commit]:
        for start in range(0, len(ids), _AT_ONCE):
            yield from self._reader.commits_of(ids[start : start + _AT_ONCE])

    def _decided(self) -> dict[int, bytes]:
        """All files of decisions as the head has them, by serial."""
        head = self._reader.head()
        files = list_files(self._repository, head, "decisions/") if head else {}
        named = {int(match[1]): blob for path, blob in files.items() if (match := _DECIDED.match(path))}
        objects = read_objects(self._repository, named.values())
        return {serial: item.data for serial, item in zip(named, objects, strict=True)}

    def _concerned(self, patterns: Sequence[str]) -> _Concerned | None:
        """Which entries have to do with these resources: changed them, tried to, or decided something about them."""
        if not patterns:
            return None
        any_of = "|".join(_expression(pattern) for pattern in patterns)
        head = self._reader.head()
        if not head:
            return _Concerned(frozenset(), frozenset(), re.compile(any_of))
        paths = [f":(glob)resources/{'/'.join(_halves(pattern))}.json" for pattern in patterns]
        changed = list_commits_of_paths(self._repository, head, paths)
        named = list_commits(self._git, "-E", f"--grep=^Llmctl-Resource: ({any_of})$", head)
        serials = {serial_of(trailers_of(c.message)) for c in read_commits(self._repository, named)}
        serials |= {serial for serial, data in self._decided().items() if _decides_on(data, any_of)}
        return _Concerned(
            frozenset(changed), frozenset(s for s in serials if s), re.compile(_IN_SUBJECT.format(any_of))
        )

    # -- all about entries ----------------------------------------------------------------------

    def head(self) -> str:
        """The commit of the newest entry, "" when nothing is recorded."""
        return self._reader.head()

    def open_break_glass(self) -> tuple[BreakGlass, ...]:
        """The emergencies that no apply has reconciled yet, oldest first."""
        state = self._reader.summary()
        return state.break_glass if state else ()

    def detail(self, serial: int) -> EntryDetail:
        """All about one entry; raises ``RecordError`` when there is none with that serial."""
        return self._reader.entry(serial)

    def details(self, entries: Sequence[Entry]) -> list[EntryDetail]:
        """All about these entries, in their order."""
        return read_details(self._repository, read_commits(self._repository, [e.commit for e in entries]))

    # -- how it came to be ----------------------------------------------------------------------

    def versions(self, address: Address) -> list[Version]:
        """What entries made of a resource, oldest first, also under names that it had before; empty for an unknown
        one. What an attempt took back again is no version."""
        head = self._reader.head()
        return self._versions(address, head, frozenset()) if head else []

    def _versions(self, address: Address, head: str, seen: frozenset[str]) -> list[Version]:
        path = record_path(address)
        ids = list_commits_of_paths(self._repository, head, [f":(literal){path}"])
        commits = self._reader.commits_of(ids)[::-1]
        left = [
            next((c.new for c in changes if c.path == path), "") for changes in differences(self._repository, commits)
        ]
        blobs = Blobs(self._repository)
        blobs.read([(path, blob, "") for blob in left])
        found: list[Version] = []
        for entry, blob in zip(entries_of(self._repository, commits), left, strict=True):
            begins = blob != "" and (not found or found[-1].recorded is None)
            moved = self._renamed(entry, address, begins) if begins or not blob else None
            if begins and moved and entry.commit not in seen:
                # Only what was before the rename: the old name may be another resource's by now.
                found = self._versions(moved, f"{entry.commit}^1", seen | {entry.commit})
            found.append(Version(entry, address, blobs.get(blob), moved))
        return found

    def _renamed(self, entry: Entry, address: Address, begins: bool) -> Address | None:
        """The name that it had before, or where it is gone that it got: a rename does both in one commit."""
        moves = renames(self._repository, read_commits(self._repository, [entry.commit])[0], address)
        if begins:
            return moves.get(address)
        return next((new for new, old in moves.items() if old == address), None)

    def between(self, serial: int, other: int) -> Between:
        """What differs from one entry to another; serial 0 is the empty record before the first."""
        empty = object_id("tree", b"", self._repository.algorithm)
        trees = [self._reader.find(s).tree if s else empty for s in (serial, other)]
        blobs = Blobs(self._repository)
        changes = [c for c in compare_trees(self._git, [(trees[0], trees[1])])[0] if address_at(c.path)]
        blobs.read([(c.path, c.old, c.new) for c in changes])
        first, last = sorted((serial, other))
        newest = self._reader.find(last).id if last else ""
        base = [f"^{self._reader.find(first).id}"] if first else []
        ids = list_commits(self._git, "--first-parent", newest, *base) if newest else []
        changed_by: dict[Address, tuple[int, ...]] = {}
        for entry in reversed(entries_of(self._repository, self._reader.commits_of(ids))):
            for address in entry.resources:
                changed_by[address] = (*changed_by.get(address, ()), entry.serial)
        return Between(tuple(touched(changes, blobs)), changed_by)


@dataclass(frozen=True, slots=True)
class _Concerned:
    """Entries that have to do with some resources: by commit, by serial, or by what their subject names."""

    commits: frozenset[str]
    serials: frozenset[int]
    named: re.Pattern[str]

    def has(self, commit: Commit, serial: int) -> bool:
        found = commit.id in self.commits or serial in self.serials
        return found or self.named.search(subject_of(commit.message)) is not None


def list_commits_of_paths(repository: Repository, head: str, paths: Sequence[str]) -> list[str]:
    """The entries up to ``head`` that changed any of these paths (of git's own form), newest first."""
    return repository.git.line("rev-list", "--first-parent", head, "--", *paths).split()


def _matches(query: Query, commit: Commit, said: Mapping[int, str], concerned: _Concerned | None) -> bool:
    if (query.since and commit.time < query.since) or (query.before and commit.time >= query.before):
        return False
    trailers = trailers_of(commit.message)
    serial = serial_of(trailers) or 0
    if query.actions and value(trailers, "Action") not in query.actions:
        return False
    if query.outcomes and value(trailers, "Outcome") not in query.outcomes:
        return False
    if query.actor.casefold() not in (value(trailers, "Actor") or commit.author).casefold():
        return False
    if concerned is not None and not concerned.has(commit, serial):
        return False
    text = "\n".join([subject_of(commit.message), *values(trailers, "Break-Glass"), said.get(serial, "")])
    return query.text.casefold() in text.casefold()


def _reasons(decided: Mapping[int, bytes]) -> dict[int, str]:
    """Every reason that decisions give: of the apply, of each change, of a break-glass. Damage is for ``verify``."""
    return {serial: "\n".join(_named_reasons(data)) for serial, data in decided.items()}


def _decides_on(data: bytes, any_of: str) -> bool:
    """Whether decisions are about such a resource: its change or drift, its revision, a gate that was skipped. What
    policies said of it does not count, for they judge all there is each time."""
    if not re.search(f'"(?:{any_of})"'.encode(), data):
        return False
    try:
        decided = json.loads(data)
    except (ValueError, RecursionError):
        return False  # damage is for ``verify``
    lists = [decided.get("changes"), decided.get("drift"), [decided]] if isinstance(decided, dict) else []
    items = [item for found in lists if isinstance(found, list) for item in found if isinstance(item, dict)]
    named = [item.get("address") for item in items]
    broken = decided.get("break_glass") if items else None
    named += list(broken.get("gates") or ()) if isinstance(broken, dict) else []
    return any(isinstance(name, str) and re.fullmatch(any_of, name) for name in named)


def _named_reasons(data: bytes) -> Iterator[str]:
    for match in re.finditer(rb'"reason": ("(?:[^"\\]|\\.)*")', data):
        try:
            yield str(json.loads(match[1]))
        except ValueError:
            continue


def _expression(pattern: str) -> str:
    """A pattern of addresses as a regular expression, in the form that git and Python share."""
    kind, name = _halves(pattern)
    return r"\.".join(part.replace("*", "[a-z0-9_-]*") for part in (kind, name))


def _halves(pattern: str) -> tuple[str, str]:
    """Kind and name of a pattern; a kind alone means all of it."""
    kind, dot, name = pattern.partition(".")
    return kind, name if dot else "*"
