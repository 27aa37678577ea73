"""What keeps a record small and quick to ask: packs, and an index of which commit changed which path.

An apply of a few changes leaves its objects loose, each tree whole. Every 64th entry folds what the last 64 brought
into one pack of differences, every 512th what the last 512 brought, and so on: an object is packed again once for
each power of eight. Nothing is deleted but loose objects and whole packs of which every object lies in the new pack,
once that is on disk; an upkeep that is cut short loses nothing, and one that fails is left to a later entry.

What locks were, to which no ref leads any more, is deleted when their leases are long over: a file for each apply and
each renewal, 40 MB after 10,000 applies.

``git gc`` is not run: it would also delete what the user may still want, and write again what the user has.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from llmctl.core.errors import RecordError
from llmctl.core.files import sync_folder
from llmctl.record.holder import LockInfo
from llmctl.record.repository import Repository, branch

OFTEN = 64  # entries, and changes in one entry, after which upkeep is due
_GROWTH = 8
_MANY = 20_000  # commits: more are not packed again, which takes 2 s
_FILTERS = 50_000  # commits of which one upkeep notes the paths: bounds the first one in an old record
_LIMIT_S = 120.0
_LOCK = 1024  # bytes that the file of a lock's blob can have
_LOCK_BEGINS = b'{"boot": '  # which spares other small blobs the reading as JSON
_OVER_S = 60.0  # for how long a lease has been over when nobody can be about to make it a lock
_WRITING_S = 5.0  # the most that lies between making a lock's text and its file, where nobody added it again later
_INDEX = b"\377tOc\0\0\0\2"  # how a pack's index begins, with its version
_FANOUT = 4 * 256  # bytes of the table after that; its last number is the count
_PRECIOUS = (".keep", ".promisor", ".bitmap", ".mtimes")  # packs that mean more than their objects


def upkeep(repository: Repository, environment: str, serial: int, changes: int) -> None:
    """Do what is due after the entry ``serial`` of so many changes was recorded: mostly nothing, at no cost.

    Never raises ``RecordError``. Not done where the user has git's own upkeep switched off (``gc.auto=0``) or has every
    ref's past kept (``core.logAllRefUpdates=always``), in a partial clone, and in a shallow one.
    """
    if serial % OFTEN and changes < OFTEN:
        return
    with suppress(RecordError, OSError):
        _keep_up(repository.limited(_LIMIT_S), branch(environment), serial)


def _keep_up(repository: Repository, ref: str, serial: int) -> None:
    if _unwanted(repository):
        return
    if serial % OFTEN == 0:
        _fold(repository, ref, _span(repository, ref, serial))
        _clear_locks(repository)
    elif _is_loose(repository, f"{ref}^2"):  # git had to sign each commit, and so each was stored alone
        _fold(repository, ref, 1)
    _index_paths(repository, ref)


def _span(repository: Repository, ref: str, serial: int) -> int:
    """How many of the last entries to fold: as many as their number allows, unless those are too many commits."""
    span = OFTEN
    while serial % (span * _GROWTH) == 0:
        span *= _GROWTH
    while span > OFTEN and _count(repository, f"{ref}~{span}..{ref}", _MANY) == _MANY:
        span //= _GROWTH
    return span


def _fold(repository: Repository, ref: str, entries: int) -> None:
    """Pack what the last entries brought, and delete what is then there twice."""
    folder = repository.common_dir / "objects" / "pack"
    asked = f"{ref}\n^{ref}~{entries}\n".encode()
    options = ("--revs", "--local", "--honor-pack-keep", "--delta-base-offset", "--quiet")
    made = repository.git.run("pack-objects", *options, str(folder / "pack"), stdin=asked).decode().split()
    packs = {f"pack-{name}" for name in made}
    size = 20 if repository.algorithm == "sha1" else 32
    packed = {name for pack in packs for name in _names(folder / f"{pack}.idx", size)}
    sync_folder(folder)
    for name in packed:
        _loose(repository, name.hex()).unlink(missing_ok=True)
    if (folder / "multi-pack-index").exists():  # it names packs that would then be missing
        return
    for index in folder.glob("pack-*.idx"):
        if index.stem not in packs and _is_within(index, packed, size):
            for suffix in (".idx", ".rev", ".pack"):  # first what makes git look at the others
                index.with_suffix(suffix).unlink(missing_ok=True)


def _is_within(index: Path, packed: set[bytes], size: int) -> bool:
    """Whether a pack holds nothing but ``packed``, and is one that nobody wants kept as it is."""
    if any(index.with_suffix(suffix).exists() for suffix in _PRECIOUS):
        return False
    with suppress(OSError):  # another git may just have deleted it
        names = list(_names(index, size, most=len(packed)))
        return bool(names) and packed.issuperset(names)
    return False


def _names(index: Path, size: int, most: int | None = None) -> Iterator[bytes]:
    """The ids of the objects in a pack; none of one with more than ``most``, or of which the index is not known."""
    with index.open("rb") as file:
        head = file.read(len(_INDEX) + _FANOUT)
        if not head.startswith(_INDEX) or len(head) < len(_INDEX) + _FANOUT:
            return
        count = struct.unpack(">I", head[-4:])[0]
        if most is None or count <= most:
            names = file.read(count * size)
            yield from (names[at : at + size] for at in range(0, len(names), size))


def _clear_locks(repository: Repository) -> None:
    """Delete what locks were. Each has a nonce, so that no other object is the same. Who kept one, as evidence of what
    happened, and added it to a commit, had git give its file the time of that: such a one stays."""
    over = [path for path in _small_loose(repository) if _was_lock(path)]
    if over:
        named = set(repository.git.line("for-each-ref", "--format=%(objectname)").split())
        for path in over:
            if path.parent.name + path.name not in named:
                path.unlink(missing_ok=True)


def _small_loose(repository: Repository) -> Iterator[Path]:
    for folder in (repository.common_dir / "objects").glob("[0-9a-f][0-9a-f]"):
        with suppress(FileNotFoundError), os.scandir(folder) as entries:  # git deletes what has become empty
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.stat().st_size <= _LOCK:
                        yield Path(entry.path)


def _was_lock(path: Path) -> bool:
    """Whether a loose object is the blob of a lock of which the lease is long over, and nothing but that."""
    try:
        head, _, data = zlib.decompress(path.read_bytes()).partition(b"\0")
        if not head.startswith(b"blob ") or not data.startswith(_LOCK_BEGINS):
            return False
        info = LockInfo.decode(data)
        if path.stat().st_mtime > info.lease_until - info.lease_s + _WRITING_S:
            return False
        return info.lease_until + info.grace_s + _OVER_S < time.time()
    except (OSError, zlib.error, ValueError, TypeError, KeyError):
        return False


def _index_paths(repository: Repository, ref: str) -> None:
    """Let git note which paths each commit of the record changed: the history of one resource is then asked at once."""
    head = repository.objects.resolve(ref)
    options = ("--split", "--changed-paths", f"--max-new-filters={_FILTERS}", "--no-progress", "--stdin-commits")
    repository.git.run("commit-graph", "write", *options, stdin=f"{head}\n".encode())


def _unwanted(repository: Repository) -> bool:
    asked = r"^(gc\.auto|core\.logallrefupdates|extensions\.partialclone|remote\..*\.promisor)$"
    for line in repository.git.line("config", "--get-regexp", asked, accept=(0, 1)).splitlines():
        name, _, value = line.partition(" ")
        if {"gc.auto": "0", "core.logallrefupdates": "always"}.get(name, value) == value:
            return True
    return (repository.common_dir / "shallow").exists()


def _count(repository: Repository, revisions: str, most: int) -> int:
    return int(repository.git.line("rev-list", "--count", f"--max-count={most}", revisions, "--"))


def _loose(repository: Repository, name: str) -> Path:
    return repository.common_dir / "objects" / name[:2] / name[2:]


def _is_loose(repository: Repository, revision: str) -> bool:
    name = repository.objects.resolve(revision)
    return bool(name) and os.path.exists(_loose(repository, name))
