"""The whole history of a record, in the shape in which ``verify`` walks it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llmctl.record.messages import Trailers, trailers_of
from llmctl.record.objects import Commit, Object, object_id, parse_commit
from llmctl.record.reader import Reader
from llmctl.record.repository import Repository
from llmctl.record.secrets_in import secrets_in
from llmctl.record.signatures import Judged, judge_parts, split
from llmctl.record.signers import Signers
from llmctl.record.verifying.stream import FileChange, Pair, differences, stored_objects

# What git keeps of the history to be fast is not asked: only the objects are what the ids vouch for.
_PLAIN = ("-c", "core.commitGraph=false")
# What llmctl writes, and all that it reads of a commit: no other head, no second text, nothing behind a NUL.
_FORM = re.compile(
    rb"tree [0-9a-f]+\n(?:parent [0-9a-f]+\n)*author [^\n\0]+\ncommitter [^\n\0]+\n"
    rb"\n[^\r\n\0]+\n\n(?:Llmctl-[A-Za-z-]+: [^\r\n\0]*\n)+"
)


@dataclass(frozen=True, slots=True)
class Node:
    """A commit with what it says, what its signature is worth, and what it changes.

    ``changes`` are those against the last commit of its attempt, or where it merges none, against its parent.
    """

    commit: Commit
    trailers: Trailers
    signature: Judged
    changes: tuple[FileChange, ...] = ()

    @property
    def id(self) -> str:
        return self.commit.id


@dataclass(frozen=True, slots=True)
class Link:
    """One entry, and the commits of its attempt, oldest first."""

    entry: Node
    attempt: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class History:
    """A record from its beginning to ``head`` ("" for none). ``strays`` are reachable, and belong to no entry."""

    head: str
    links: tuple[Link, ...] = ()
    strays: tuple[Node, ...] = ()
    damaged: tuple[str, ...] = ()  # commits whose content is not what their id says
    secrets: tuple[tuple[str, str], ...] = ()  # commits whose text has what looks like a secret, and what
    odd: tuple[str, ...] = ()  # commits that are not written as llmctl writes them

    def nodes(self) -> Iterator[Node]:
        """Every commit, oldest first, the strays last."""
        for link in self.links:
            yield from link.attempt
            yield link.entry
        yield from self.strays


@dataclass(frozen=True, slots=True)
class _Read:
    commits: Mapping[str, tuple[Commit, Judged]]
    damaged: tuple[str, ...]
    secrets: tuple[tuple[str, str], ...]
    odd: tuple[str, ...]


def read_history(repository: Repository, environment: str, signers: Signers) -> History:
    """Read all commits that are reachable from the record's head, and what they change.

    Raises ``RecordError`` for what is missing or cannot be read.
    """
    head = Reader(repository, environment).head()
    if not head:
        return History("")
    read = _read_commits(repository, head, signers)
    commits = {name: commit for name, (commit, _) in read.commits.items()}
    pairs = _pairs(commits, object_id("tree", b"", repository.algorithm))
    found = dict(differences(repository.git, dict.fromkeys(pairs.values())))
    nodes = {
        name: Node(commit, trailers_of(commit.message), judged, found.get(pairs[name], ()))
        for name, (commit, judged) in read.commits.items()
    }
    links = _links(head, nodes)
    inside = {node.id for link in links for node in (link.entry, *link.attempt)}
    strays = tuple(node for name, node in nodes.items() if name not in inside)
    return History(head, links, strays, read.damaged, read.secrets, read.odd)


def _read_commits(repository: Repository, head: str, signers: Signers) -> _Read:
    commits: dict[str, tuple[Commit, Judged]] = {}
    damaged: list[str] = []
    secrets: list[tuple[str, str]] = []
    odd: list[str] = []
    wanted = repository.git.run(*_PLAIN, "rev-list", "--topo-order", "--reverse", head, "--").decode().split()
    while wanted:
        for item in stored_objects(repository, wanted):
            data = item.data or b""
            commit = parse_commit(Object(item.id, item.kind, data))
            parts = split(data, repository.algorithm)
            commits[item.id] = commit, judge_parts(*parts, signers)
            if not _FORM.fullmatch(parts[0]):
                odd.append(item.id)
            if not item.intact:
                damaged.append(item.id)
            secrets += [(item.id, what) for what, _ in secrets_in(parts[0])]
        # Old settings (grafts) can show git another history than the one that the commits tell.
        parents = dict.fromkeys(parent for commit, _ in commits.values() for parent in commit.parents)
        wanted = [parent for parent in parents if parent not in commits]
    return _Read(commits, tuple(damaged), tuple(secrets), tuple(odd))


def _pairs(commits: Mapping[str, Commit], empty: str) -> dict[str, Pair]:
    """The trees to compare for each commit: an entry's own changes are those after its attempt."""
    return {
        name: (commits[commit.parents[min(len(commit.parents), 2) - 1]].tree if commit.parents else empty, commit.tree)
        for name, commit in commits.items()
    }


def _links(head: str, nodes: Mapping[str, Node]) -> tuple[Link, ...]:
    entries = [nodes[head]]
    while entries[-1].commit.parents:
        entries.append(nodes[entries[-1].commit.parents[0]])
    taken = {entry.id for entry in entries}
    links: list[Link] = []
    for entry in reversed(entries):
        attempt: list[Node] = []
        name = entry.commit.parents[1] if len(entry.commit.parents) > 1 else ""
        while name and name not in taken:
            taken.add(name)
            attempt.append(nodes[name])
            name = next(iter(nodes[name].commit.parents), "")
        links.append(Link(entry, tuple(reversed(attempt))))
    return tuple(links)
