"""Forging a signed record with git's own plumbing: what is not touched keeps its id and its signature."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from llmctl.core.digests import Json, pretty_json
from llmctl.record import open_repository
from llmctl.record.objects import list_files
from llmctl.record.signatures import split
from llmctl.record.tree import Tree
from llmctl.record.writing import Batch, store
from tests.record.helpers import BRANCH, git
from tests.record.signing_keys import Key, put_commit, raw

Files = dict[str, bytes]


@dataclass
class Forged:
    """One commit while history is forged: its text and files can be changed, it can be left out, or moved."""

    subject: str
    message: str
    files: Files
    parents: list[str]
    head: bytes = b""  # author and committer
    dropped: bool = False
    before: list[tuple[str, Files]] = field(default_factory=list)  # commits to put in: text and files

    def edit(self, path: str, change: Callable[[Json], None]) -> None:
        value = json.loads(self.files[path])
        change(value)
        self.files[path] = pretty_json(value).encode()


Edit = Callable[[Forged], None]


def at(subject: str, change: Callable[[Forged], None]) -> Edit:
    """The same edit of the commits with that subject alone."""

    def edit(old: Forged) -> None:
        if old.subject == subject:
            change(old)

    return edit


def forge(folder: Path, edit: Edit, key: Key | None = None, *, stale: bool = False) -> dict[str, str]:
    """Write history anew from the first commit that ``edit`` changes on; returns the new ids by the old ones.

    New commits are signed with ``key``, or not at all; with ``stale`` they keep the signatures of the old ones.
    """
    new: dict[str, str] = {}
    repository = open_repository(folder)
    for name in git(folder, "rev-list", "--topo-order", "--reverse", BRANCH).split():
        _, signature = split(raw(folder, name), repository.algorithm)
        old = read(folder, name)
        parents, message, files = [new[p] for p in old.parents], old.message, dict(old.files)
        moved = parents != old.parents
        old.parents = parents
        edit(old)
        if not moved and (old.message, old.files, old.before, old.parents, old.dropped) == (
            message,
            files,
            [],
            parents,
            False,
        ):
            new[name] = name
            continue
        for text, extra in old.before:
            old.parents = [write(folder, extra, old.parents[:1], text, old.head, key), *old.parents[1:]]
        made = b"" if not stale else signature
        new[name] = (
            old.parents[0] if old.dropped else write(folder, old.files, old.parents, old.message, old.head, key, made)
        )
    git(folder, "update-ref", BRANCH, new[git(folder, "rev-parse", BRANCH)])
    return new


def read(folder: Path, name: str) -> Forged:
    """A commit of the record as it is."""
    repository = open_repository(folder)
    payload, _ = split(raw(folder, name), repository.algorithm)
    head, _, message = payload.partition(b"\n\n")
    lines = head.split(b"\n")
    parents = [line.split()[1].decode() for line in lines if line.startswith(b"parent ")]
    people = b"\n".join(line for line in lines if line.startswith((b"author ", b"committer ")))
    files = {path: blob(folder, name) for path, name in list_files(repository, name).items()}
    text = message.decode()
    return Forged(text.split("\n")[0], text, files, parents, people)


def blob(folder: Path, name: str) -> bytes:
    return subprocess.run(["git", "cat-file", "blob", name], cwd=folder, capture_output=True, check=True).stdout


def write(
    folder: Path,
    files: Files,
    parents: list[str],
    message: str,
    head: bytes,
    key: Key | None,
    signature: bytes = b"",
) -> str:
    """Store a commit; returns its id."""
    repository = open_repository(folder)
    batch, tree = Batch(repository.algorithm), Tree()
    for path, data in files.items():
        tree.put(path, batch.add("blob", data))
    lines = [f"tree {tree.write(batch)}", *(f"parent {parent}" for parent in parents)]
    store(repository, batch)
    payload = "\n".join(lines).encode() + b"\n" + head + b"\n\n" + message.encode()
    made = signed(payload, key) if key else signature
    return put_commit(folder, with_signature(payload, made, repository.algorithm) if made else payload)


def signed(payload: bytes, key: Key) -> bytes:
    """OpenSSH's own signature."""
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", str(key.path)]
    return subprocess.run(command, input=payload, capture_output=True, check=True).stdout


def with_signature(payload: bytes, signature: bytes, algorithm: str = "sha1") -> bytes:
    """The commit with a signature in its head, folded as git does it."""
    head, _, message = payload.partition(b"\n\n")
    name = b"gpgsig " if algorithm == "sha1" else b"gpgsig-sha256 "
    return head + b"\n" + name + signature.rstrip(b"\n").replace(b"\n", b"\n ") + b"\n\n" + message
