"""The artifact store of the local target: files by digest, immutable.

A file is ``artifacts/<2 hex>/<hex>.<bytes>``: its size is part of its name, so that a truncated one is
seen without reading it. The full digest is checked when content comes in and when an engine starts, and
of small files also when they are read back (``sound``).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from llmctl.core.digests import digest_bytes, digest_file
from llmctl.core.errors import Conflict, ProviderError
from llmctl.core.files import sync_folder, temporary
from llmctl.providers.local.layout import Layout, explained

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})\Z")
_STORED = re.compile(r"([0-9a-f]{64})\.(\d+)\Z")
_CHUNK = 1 << 20
_SMALL = 1 << 20  # bytes; more is not read at every plan


class FileStore:
    """``core.protocols.ArtifactStore`` in a folder. Safe for several threads and processes at once."""

    def __init__(self, layout: Layout) -> None:
        self._folder = layout.artifacts
        self._make = layout.make

    def put_file(self, source: Path, digest: str) -> None:
        """Store a file; raises ``Conflict`` when its content is not what ``digest`` says."""
        if self.verified(digest):
            return
        with explained(f"store {source}"), source.open("rb") as file:
            self._store(iter(lambda: file.read(_CHUNK), b""), digest, str(source))

    def put_bytes(self, data: bytes, *, durable: bool = True) -> str:
        """Store bytes; ``durable`` is False for what can be made again should a power cut lose it."""
        digest = digest_bytes(data)
        if not self.verified(digest):
            with explained("store content"):
                self._store([data], digest, "content", durable=durable)
        return digest

    def has(self, digest: str) -> bool:
        """Whether the content is there, whole as far as its size tells."""
        return any(_whole(path) for path in self._files(digest))

    def path(self, digest: str) -> Path:
        """The stored file; raises ``ProviderError`` when it is missing or truncated."""
        files = list(self._files(digest))
        for path in files:
            if _whole(path):
                return path
        if files:
            summary = f"{files[0].name[:12]}… in the artifact store is damaged"
            raise ProviderError(summary, detail=str(files[0]), hint="Run `llmctl apply`: it stores it again.")
        raise ProviderError(
            f"{digest[:19]}… is not in the artifact store",
            hint="Put the file that has this digest back where it was declared (git checkout), and apply again.",
        )

    def sound(self, digest: str) -> tuple[str, os.stat_result] | None:
        """The content's path below the store's folder and its status, when it is whole; else None.

        A small file is read and compared with its digest. Raises ``OSError``.
        """
        for path in self._files(digest):
            status = path.stat()  # before it is read: what changes afterwards has another one
            if _whole(path) and (status.st_size > _SMALL or digest_file(path) == digest):
                return f"{path.parent.name}/{path.name}", status
        return None

    def list(self) -> frozenset[str]:
        with explained("list the artifact store"):
            stored = ((_STORED.match(path.name), path) for path in self._folder.glob("??/*.*"))
            return frozenset(f"sha256:{match[1]}" for match, path in stored if match and _whole(path))

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Digest and bytes on disk of all that is stored, damaged content too."""
        with explained("list the artifact store"):
            found: dict[str, int] = {}
            for path in self._folder.glob("??/*.*"):
                if match := _STORED.match(path.name):
                    digest = f"sha256:{match[1]}"
                    found[digest] = found.get(digest, 0) + path.lstat().st_size
        yield from found.items()

    def delete(self, digest: str) -> None:
        with explained("delete from the artifact store"):
            for path in self._files(digest):
                path.unlink(missing_ok=True)

    def verified(self, digest: str) -> bool:
        """Read all of the content and say whether it is there as its digest says; remove it when it is damaged."""
        with explained("check the artifact store"):
            for path in self._files(digest):
                if not _whole(path) or digest_file(path) != digest:
                    path.unlink(missing_ok=True)
        return self.has(digest)

    def _files(self, digest: str) -> Iterator[Path]:
        folder, name = self._shard(digest), f"{_hex(digest)}."
        with suppress(FileNotFoundError, NotADirectoryError):
            yield from [folder / found for found in os.listdir(folder) if found.startswith(name)]

    def _shard(self, digest: str) -> Path:
        """One of 256 folders, so that finding a file does not take longer the more there are."""
        return self._folder / _hex(digest)[:2]

    def _store(self, chunks: Iterable[bytes], digest: str, what: str, *, durable: bool = True) -> None:
        self._make()
        folder = self._shard(digest)
        hasher = hashlib.sha256()
        try:
            with temporary(self._folder) as (file, name):
                for chunk in chunks:
                    hasher.update(chunk)
                    file.write(chunk)
                size = file.tell()
                file.flush()
                os.fchmod(file.fileno(), 0o444)
                if durable:
                    os.fsync(file.fileno())
                if hasher.hexdigest() != _hex(digest):
                    raise Conflict(
                        f"{what} is not what was planned",
                        detail=f"It is sha256:{hasher.hexdigest()}, planned was {digest}.",
                        hint="It changed after the plan was made: plan again.",
                    )
                folder.mkdir(mode=0o700, exist_ok=True)
                os.replace(name, folder / f"{_hex(digest)}.{size}")
        except OSError as error:
            error.filename = str(folder)
            raise
        if durable:
            sync_folder(folder)
            sync_folder(self._folder)


def _hex(digest: str) -> str:
    match = _DIGEST.match(digest)
    if match is None:
        raise ProviderError(f"{digest!r} is not a digest", hint="A digest is sha256: and 64 hex digits.")
    return match[1]


def digest_of(path: str) -> str:
    """The digest that a path below the store's folder says."""
    return f"sha256:{path[3:67]}"


def _whole(path: Path) -> bool:
    match = _STORED.match(path.name)
    try:
        return match is not None and path.stat().st_size == int(match[2])
    except FileNotFoundError:
        return False
