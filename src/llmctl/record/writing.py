"""Git objects, written in bulk behind the one function ``store``."""

from __future__ import annotations

import time
from collections.abc import Sequence

from llmctl.core.errors import RecordError
from llmctl.record.objects import object_id
from llmctl.record.pack import Pack
from llmctl.record.repository import Repository
from llmctl.record.signing import UNSIGNED, AgentRefused, signer_of

_LOOSE = 100  # so many objects are unpacked; more stay together in a pack of their own
_UNEXPLAINED = "git commit-tree failed"  # for a reason that is not known by its text: with -S, one of the signer's
_CHECK = "Check `git config user.signingkey` and `gpg.format`, or switch commit.gpgsign off."
_CONFIGURE = (
    "With an SSH key: `git config gpg.format ssh` and `git config user.signingkey ~/.ssh/id_ed25519`; "
    "with an OpenPGP key: `git config user.signingkey KEYID`."
)


class Batch:
    """Objects that belong together and are stored at once."""

    def __init__(self, algorithm: str) -> None:
        self.pack = Pack(algorithm)

    def add(self, kind: str, data: bytes, *, base: str = "") -> str:
        """Take one object and return its id. ``base`` is the id of a like object, if one was added before."""
        name = object_id(kind, data, self.pack.algorithm)
        self.pack.add(name, kind, data, base)
        return name


def store(repository: Repository, batch: Batch) -> None:
    """Write all objects of a batch durably, and empty it.

    They go as one pack to one git process: 5 ms, where a process for each object took 2 ms or more each. Not
    with ``--strict``, which looks up every entry of every tree: 13 ms more beside 1,000 resources.
    """
    if not len(batch.pack):
        return
    command = ("unpack-objects", "-q") if len(batch.pack) <= _LOOSE else ("index-pack", "--stdin")
    repository.git.run(*command, stdin=batch.pack.encoded())
    batch.pack = Pack(batch.pack.algorithm)


def add_commit(repository: Repository, batch: Batch, tree: str, parents: Sequence[str], message: str) -> str:
    """Add a commit on a tree to ``batch``, signed where commits are to be. Where git must sign, it makes the commit:
    then all that is in the batch is stored first."""
    if repository.signs:
        return _add_signed(repository, batch, tree, parents, message)
    return batch.add("commit", _commit(repository, tree, parents, message))


def signed_commit(repository: Repository, tree: str, parents: Sequence[str], message: str) -> str:
    """Make and store a commit that is signed, whatever ``commit.gpgsign`` says; returns its id.

    ``tree`` and ``parents`` are stored already. Raises ``RecordError`` when it cannot be signed.
    """
    batch = Batch(repository.algorithm)
    name = _add_signed(repository, batch, tree, parents, message)
    store(repository, batch)
    return name


def require_signing(repository: Repository) -> None:
    """Raise ``RecordError`` when commits are to be signed and cannot be: asked before anything is done.

    The commit that git makes for it is no part of anything, and git clears it away in time.
    """
    if not repository.signs:
        return
    batch = Batch(repository.algorithm)
    _add_signed(repository, batch, batch.add("tree", b""), [], "llmctl: can this be signed?\n")


def _commit(repository: Repository, tree: str, parents: Sequence[str], message: str) -> bytes:
    moment = f"{int(time.time())} +0000"
    author, committer = repository.identities
    lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
    lines += [f"author {author} {moment}", f"committer {committer} {moment}", "", message]
    return "\n".join(lines).encode(errors="surrogateescape")


def _add_signed(repository: Repository, batch: Batch, tree: str, parents: Sequence[str], message: str) -> str:
    try:
        if key := signer_of(repository):
            commit = _commit(repository, tree, parents, message)
            return batch.add("commit", _with_signature(commit, key.signature(commit), repository.algorithm))
        store(repository, batch)
        return _signed_by_git(repository, tree, parents, message)
    except RecordError as error:
        if isinstance(error, AgentRefused) or error.summary not in (UNSIGNED, _UNEXPLAINED):
            raise
        if not repository.must_sign:
            raise RecordError(UNSIGNED, detail=error.detail, hint=_CHECK) from error
        reason = f"This environment takes signed records only (record: {{sign: required}}).\n{error.detail}"
        raise RecordError(UNSIGNED, detail=reason, hint=_CONFIGURE) from error


def _with_signature(commit: bytes, signature: bytes, algorithm: str) -> bytes:
    """The commit with the signature as the last line of its head, folded as git does it."""
    head, _, message = commit.partition(b"\n\n")
    name = b"gpgsig" if algorithm == "sha1" else b"gpgsig-sha256"
    folded = signature.rstrip(b"\n").replace(b"\n", b"\n ")
    return b"%s\n%s %s\n\n%s" % (head, name, folded, message)


def _signed_by_git(repository: Repository, tree: str, parents: Sequence[str], message: str) -> str:
    options = [part for parent in parents for part in ("-p", parent)]
    arguments = ("commit-tree", "-S", *options, "-F", "-", tree)
    # In the foreground, because a signer may ask for a passphrase on the terminal. There Ctrl-C kills it
    # together with the rest of the process group, although this outcome must still be recorded: once more.
    try:
        output = repository.git.run(*arguments, stdin=message.encode(), foreground=True)
    except RecordError:
        output = repository.git.run(*arguments, stdin=message.encode(), foreground=True)
    return output.decode().strip()
