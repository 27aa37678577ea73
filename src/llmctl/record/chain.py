"""The whole history of a record, read with a handful of git commands, in the shape that ``verify`` walks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llmctl.record.objects import (
    Commit,
    Object,
    TreeChange,
    compare_trees,
    object_id,
    parse_commit,
    read_objects,
)
from llmctl.record.reader import Reader
from llmctl.record.repository import Repository


@dataclass(frozen=True, slots=True)
class Link:
    """One entry with the changes of its attempt, oldest first, and what each of them changes.

    ``differences`` is what the entry itself changes against its last change, or where it has none, against
    the entry before.
    """

    entry: Commit
    changes: tuple[Commit, ...]
    differences: tuple[TreeChange, ...]
    change_differences: tuple[tuple[TreeChange, ...], ...]


@dataclass(frozen=True, slots=True)
class History:
    """A record from its beginning to ``head`` ("" for none)."""

    head: str
    links: tuple[Link, ...]
    commits: Mapping[str, Commit]
    blobs: Mapping[str, Object]
    damaged: frozenset[str]  # objects whose content is not what their id says
    signed: frozenset[str]  # commits that git calls well signed

    def introduced(self) -> Iterator[tuple[str, TreeChange]]:
        """Every change of a file, with the commit that made it, oldest first."""
        for link in self.links:
            for commit, changes in zip(link.changes, link.change_differences, strict=True):
                yield from ((commit.id, change) for change in changes)
            yield from ((link.entry.id, change) for change in link.differences)

    def bringer(self, name: str) -> str:
        """The commit that first brought a blob; the head for an object that no commit names as a file."""
        if name in self.commits:
            return name
        return next((commit for commit, change in self.introduced() if change.new == name), self.head)


def read_history(repository: Repository, environment: str) -> History:
    """Read all that is reachable from the record's head. Raises ``RecordError`` for what is missing."""
    head = Reader(repository, environment).head()
    if not head:
        return History("", (), {}, {}, frozenset(), frozenset())
    listed = repository.git.run("rev-list", "--objects", "--no-object-names", head, "--").decode().split()
    commits: dict[str, Commit] = {}
    blobs: dict[str, Object] = {}
    damaged: set[str] = set()
    for item in read_objects(repository, listed):
        if not item.intact:
            damaged.add(item.id)
        if item.kind == "commit":
            commits[item.id] = parse_commit(item)
        elif item.kind == "blob":
            blobs[item.id] = item
    links = _links(repository, head, commits)
    return History(head, links, commits, blobs, frozenset(damaged), _signed(repository, commits))


def _links(repository: Repository, head: str, commits: Mapping[str, Commit]) -> tuple[Link, ...]:
    entries = [commits[head]]
    while entries[-1].parents:
        entries.append(commits[entries[-1].parents[0]])
    entries.reverse()
    known = {entry.id for entry in entries}
    attempts = [_attempt(entry, commits, known) for entry in entries]
    empty = object_id("tree", b"", repository.algorithm)

    def tree_before(commit: Commit) -> str:
        return commits[commit.parents[0]].tree if commit.parents else empty

    pairs = [
        [
            *((tree_before(c), c.tree) for c in attempt),
            (attempt[-1].tree if attempt else tree_before(entry), entry.tree),
        ]
        for entry, attempt in zip(entries, attempts, strict=True)
    ]
    compared = iter(compare_trees(repository.git, [pair for group in pairs for pair in group]))
    links: list[Link] = []
    for entry, attempt, group in zip(entries, attempts, pairs, strict=True):
        found = [tuple(next(compared)) for _ in group]
        links.append(Link(entry, attempt, found[-1], tuple(found[:-1])))
    return tuple(links)


def _attempt(entry: Commit, commits: Mapping[str, Commit], entries: set[str]) -> tuple[Commit, ...]:
    """The commits between the entry and the one its attempt starts at, oldest first."""
    chain: list[Commit] = []
    name = entry.parents[1] if len(entry.parents) > 1 else ""
    while name and name not in entries:
        chain.append(commits[name])
        name = chain[-1].parents[0] if chain[-1].parents else ""
    return tuple(reversed(chain))


def _signed(repository: Repository, commits: Mapping[str, Commit]) -> frozenset[str]:
    """Commits whose signature git finds good, by the user's own settings."""
    asked = "".join(f"{c.id}\n" for c in commits.values() if c.has_signature)
    if not asked:
        return frozenset()
    lines = repository.git.run("log", "--no-walk=unsorted", "--stdin", "--format=%H %G?", stdin=asked.encode())
    pairs = (line.split(" ") for line in lines.decode().splitlines())
    return frozenset(commit for commit, verdict in pairs if verdict in ("G", "U"))
