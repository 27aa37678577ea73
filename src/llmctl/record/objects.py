"""Git objects: read in bulk, and written in bulk behind the one function ``store``."""

from __future__ import annotations

import hashlib
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from llmctl.core.errors import RecordError
from llmctl.record.git import GitCommand
from llmctl.record.repository import Repository

_PACK_TYPES = {"commit": 1, "tree": 2, "blob": 3}
_AT_ONCE = 1000  # objects asked for in one command: bounds what is held in memory
_FILE, _FOLDER = "100644", "40000"


@dataclass(frozen=True, slots=True)
class Object:
    """One git object as it was read. ``intact`` is false when its content is not what its id says."""

    id: str
    kind: str
    data: bytes
    intact: bool


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
        names = "".join(f"{name}\n" for name in wanted[start : start + _AT_ONCE])
        output = repository.git.run("cat-file", "--batch", "--buffer", stdin=names.encode())
        position = 0
        while position < len(output):
            end = output.index(b"\n", position)
            head = output[position:end].decode(errors="replace").split(" ")
            if len(head) != 3:
                raise RecordError(
                    f"an object of the record is missing: {head[0]}",
                    hint="Run `git fsck`, and fetch the record again from where it was pushed to.",
                )
            size = int(head[2])
            data = output[end + 1 : end + 1 + size]
            position = end + size + 2
            yield Object(head[0], head[1], data, object_id(head[1], data, repository.algorithm) == head[0])


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


def list_files(git: GitCommand, tree: str, *folders: str) -> dict[str, str]:
    """All files of a tree, or of folders in it: path to blob id."""
    output = git.run("ls-tree", "-r", "-z", tree, "--", *folders).decode(errors="surrogateescape")
    files: dict[str, str] = {}
    for line in output.split("\0")[:-1]:
        meta, _, path = line.partition("\t")
        files[path] = meta.split(" ")[2]
    return files


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


@dataclass
class Batch:
    """Objects that belong together and are stored at once."""

    algorithm: str
    objects: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def add(self, kind: str, data: bytes) -> str:
        """Take one object and return its id."""
        name = object_id(kind, data, self.algorithm)
        self.objects[name] = (kind, data)
        return name


def store(repository: Repository, batch: Batch) -> None:
    """Write all objects of a batch durably.

    They go as one pack to one git process: 5 ms, where a process for each object took 2 ms or more each. Not
    with ``--strict``, which looks up every entry of every tree: 13 ms more beside 1,000 resources.
    """
    pack = bytearray(b"PACK" + struct.pack(">II", 2, len(batch.objects)))
    for kind, data in batch.objects.values():
        size = len(data)
        byte, size = (_PACK_TYPES[kind] << 4) | (size & 15), size >> 4
        while size:
            pack.append(byte | 128)
            byte, size = size & 127, size >> 7
        pack.append(byte)
        pack += zlib.compress(data, 1)
    pack += hashlib.new(batch.algorithm, pack, usedforsecurity=False).digest()
    repository.git.run("unpack-objects", "-q", stdin=bytes(pack))


def make_commit(repository: Repository, batch: Batch, tree: str, parents: Sequence[str], message: str) -> str:
    """Store a batch and a commit on its tree; signed by git where the user has commits signed."""
    if repository.signs:
        store(repository, batch)
        return _signed_commit(repository, tree, parents, message)
    moment = f"{int(time.time())} +0000"
    author, committer = repository.identities
    lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
    lines += [f"author {author} {moment}", f"committer {committer} {moment}", "", message]
    name = batch.add("commit", "\n".join(lines).encode(errors="surrogateescape"))
    store(repository, batch)
    return name


def _signed_commit(repository: Repository, tree: str, parents: Sequence[str], message: str) -> str:
    options = [part for parent in parents for part in ("-p", parent)]
    arguments = ("commit-tree", "-S", *options, "-F", "-", tree)
    # In the foreground, because a signer may ask for a passphrase on the terminal. There Ctrl-C kills it
    # together with the rest of the process group, although this outcome must still be recorded: once more.
    try:
        output = repository.git.run(*arguments, stdin=message.encode(), foreground=True)
    except RecordError:
        output = repository.git.run(*arguments, stdin=message.encode(), foreground=True)
    return output.decode().strip()


class Tree:
    """A tree in memory, of which only the folders that changed are written again."""

    def __init__(self, files: Mapping[str, str] | None = None) -> None:
        self._folders: dict[str, dict[str, tuple[str, str]]] = {"": {}}
        self._changed: set[str] = {""}
        for path, blob in (files or {}).items():
            self.put(path, blob)

    def put(self, path: str, blob: str) -> None:
        """Add or replace a file."""
        folder, _, name = path.rpartition("/")
        self._touch(folder)
        self._folders[folder][name] = (_FILE, blob)

    def remove(self, path: str) -> None:
        """Take a file away; one that is not there is already away."""
        folder, _, name = path.rpartition("/")
        if name in self._folders.get(folder, {}):
            del self._folders[folder][name]
            self._touch(folder)

    def _touch(self, folder: str) -> None:
        self._changed.add(folder)
        self._folders.setdefault(folder, {})
        while folder:
            folder = folder.rpartition("/")[0]
            self._changed.add(folder)
            self._folders.setdefault(folder, {})

    def write(self, batch: Batch) -> str:
        """Add the tree objects that are new to ``batch``; returns the id of the whole tree."""
        for folder in sorted(self._changed - {""}, key=len, reverse=True):  # the innermost first
            parent, _, own = folder.rpartition("/")
            entries = self._folders[folder]
            if entries:
                self._folders[parent][own] = (_FOLDER, batch.add("tree", _encode_tree(entries)))
            else:  # git knows no empty folders
                del self._folders[folder]
                self._folders[parent].pop(own, None)
        self._changed = {""}
        return batch.add("tree", _encode_tree(self._folders[""]))


def _encode_tree(entries: Mapping[str, tuple[str, str]]) -> bytes:
    # git sorts a folder as if its name ended in a slash
    ordered = sorted(
        (os.fsencode(name) + (b"/" if mode == _FOLDER else b""), os.fsencode(name), mode, blob)
        for name, (mode, blob) in entries.items()
    )
    return b"".join(b"%s %s\0%s" % (mode.encode(), name, bytes.fromhex(blob)) for _, name, mode, blob in ordered)


def utc(moment: datetime) -> str:
    """ISO 8601 in UTC, to the second: 2026-10-01T09:30:00Z."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def now() -> str:
    """The present time as the record writes it."""
    return utc(datetime.now(UTC))
