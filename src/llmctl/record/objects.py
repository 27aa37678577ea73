"""Git objects, read in bulk."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from llmctl.core.errors import RecordError
from llmctl.record.git import GitCommand
from llmctl.record.repository import Repository

_AT_ONCE = 1000  # objects asked for at once: bounds what is held in memory
_FOLDER = b"40000"
_ENTRY = {size: re.compile(rb"([0-7]+) ([^\0]+)\0(.{%d})" % size, re.DOTALL) for size in (20, 32)}


@dataclass(frozen=True, slots=True)
class Object:
    """One git object as it was read."""

    id: str
    kind: str
    data: bytes

    @property
    def intact(self) -> bool:
        """Whether the content is what the id says."""
        return object_id(self.kind, self.data, "sha1" if len(self.id) == 40 else "sha256") == self.id


@dataclass(frozen=True, slots=True)
class Commit:
    """A parsed commit; ``time`` is the committer's, ISO 8601 in UTC."""

    id: str
    tree: str
    parents: tuple[str, ...]
    author: str
    time: str
    message: str
    has_signature: bool


@dataclass(frozen=True, slots=True)
class TreeChange:
    """One path that differs between two trees. ``status`` is git's letter: A, M, D, T; ids are "" when absent."""

    status: str
    path: str
    old: str
    new: str


def object_id(kind: str, data: bytes, algorithm: str) -> str:
    """The id that git gives this content."""
    return hashlib.new(algorithm, b"%s %d\0" % (kind.encode(), len(data)) + data, usedforsecurity=False).hexdigest()


def read_objects(repository: Repository, ids: Iterable[str]) -> Iterator[Object]:
    """The objects in the order of ``ids``; raises ``RecordError`` for one that is missing."""
    wanted = list(ids)
    for start in range(0, len(wanted), _AT_ONCE):
        names = wanted[start : start + _AT_ONCE]
        for name, found in zip(names, repository.objects.contents(names), strict=True):
            if found is None:
                raise RecordError(
                    f"an object of the record is missing: {name}",
                    hint="Run `git fsck`, and fetch the record again from where it was pushed to.",
                )
            yield Object(*found)


def parse_commit(item: Object) -> Commit:
    """Read a commit object; raises ``RecordError`` when it is none."""
    head, _, message = item.data.partition(b"\n\n")
    fields: dict[str, list[str]] = {}
    for line in head.decode(errors="replace").split("\n"):
        name, _, value = line.partition(" ")  # lines that begin with a space continue a signature: name ""
        fields.setdefault(name, []).append(value)
    try:
        author = fields["author"][0].rsplit(" ", 2)[0]
        moment = datetime.fromtimestamp(int(fields["committer"][0].rsplit(" ", 2)[1]), UTC)
        tree = fields["tree"][0]
    except (KeyError, IndexError, ValueError, OverflowError) as error:
        raise RecordError(f"{item.id} in the record is not a commit that git would write") from error
    signed = "gpgsig" in fields or "gpgsig-sha256" in fields
    text = message.decode(errors="replace")
    return Commit(item.id, tree, tuple(fields.get("parent", ())), author, utc(moment), text, signed)


def read_commits(repository: Repository, ids: Iterable[str]) -> list[Commit]:
    """The commits in the order of ``ids``."""
    return [parse_commit(item) for item in read_objects(repository, ids)]


def list_commits(git: GitCommand, *arguments: str) -> list[str]:
    """Commit ids as ``git rev-list`` gives them, newest first."""
    return git.line("rev-list", *arguments, "--").split()


def list_files(repository: Repository, tree: str, *folders: str) -> dict[str, str]:
    """All files of a tree, or of folders (``a/b/``) and files (``a/b``) in it: path to blob id.

    ``tree`` is the id of a tree, or of a commit. Raises ``RecordError`` for a damaged tree.
    """
    files: dict[str, str] = {}
    whole = tuple(folder for folder in folders if folder.endswith("/")) if folders else ("",)
    level = {"": f"{tree}^{{tree}}"}
    while level:
        below: dict[str, str] = {}
        for prefix, item in zip(level, read_objects(repository, level.values()), strict=True):
            inside = prefix.startswith(whole)
            for path, name, is_folder in _entries(item, prefix):
                if is_folder and (inside or any(wanted.startswith(path) for wanted in folders)):
                    below[path] = name
                elif not is_folder and (inside or path in folders):
                    files[path] = name
        level = below
    return files


def _entries(item: Object, prefix: str) -> list[tuple[str, str, bool]]:
    """Path, id and whether it is a folder (its path ends in ``/``) of each entry of a tree object."""
    found: list[tuple[bytes, bytes, bytes]] = _ENTRY[len(item.id) // 2].findall(item.data)
    read = sum(len(mode) + len(name) + len(target) + 2 for mode, name, target in found)
    if item.kind != "tree" or not item.intact or read != len(item.data):
        raise RecordError(f"{item.id} in the record is not a tree that git would write", hint="Run `git fsck`.")
    ends = {_FOLDER: "/"}
    return [
        (f"{prefix}{os.fsdecode(name)}{ends.get(mode, '')}", target.hex(), mode == _FOLDER)
        for mode, name, target in found
    ]


def compare_trees(git: GitCommand, pairs: Sequence[tuple[str, str]]) -> list[list[TreeChange]]:
    """What differs in each pair of trees, in their order, from one git command."""
    asked = "".join(f"{old} {new}\n" for old, new in pairs)
    lines = git.run("diff-tree", "--stdin", "-r", "--raw", "--no-abbrev", "--no-renames", stdin=asked.encode())
    found: dict[tuple[str, str], list[TreeChange]] = {}
    current: list[TreeChange] = []
    for line in lines.decode(errors="surrogateescape").splitlines():
        if not line.startswith(":"):
            old_tree, new_tree = line.split(" ")
            current = found[old_tree, new_tree] = []
            continue
        meta, _, path = line.partition("\t")
        _, _, old, new, status = meta.split(" ")
        current.append(TreeChange(status, path, old.strip("0") and old, new.strip("0") and new))
    return [found.get(pair, []) for pair in pairs]


def utc(moment: datetime) -> str:
    """ISO 8601 in UTC, to the second: 2026-10-01T09:30:00Z."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def now() -> str:
    """The present time as the record writes it."""
    return utc(datetime.now(UTC))
