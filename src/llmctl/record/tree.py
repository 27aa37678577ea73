"""A git tree in memory, of which only the folders that changed are written again."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from llmctl.record.writing import Batch

_FILE, _FOLDER = b"100644", b"40000"


@dataclass
class _Folder:
    """Encoded entries in git's order, each beside its sort key; ``written`` is the id of its last tree object."""

    keys: list[bytes] = field(default_factory=list)
    entries: list[bytes] = field(default_factory=list)
    written: str = ""

    def put(self, key: bytes, entry: bytes) -> None:
        at, found = self._find(key)
        self.entries[at : at + found] = [entry]
        self.keys[at : at + found] = [key]

    def remove(self, key: bytes) -> bool:
        at, found = self._find(key)
        del self.entries[at : at + found], self.keys[at : at + found]
        return bool(found)

    def _find(self, key: bytes) -> tuple[int, int]:
        """Where the key is or would be, and how many there are of it: none or one."""
        at = bisect_left(self.keys, key)
        return at, int(at < len(self.keys) and self.keys[at] == key)

    def write(self, batch: Batch) -> str:
        """Add the tree object to ``batch``; the one before it is its base."""
        self.written = batch.add("tree", b"".join(self.entries), base=self.written)
        return self.written


class Tree:
    """Files by path, each with the id of its blob."""

    def __init__(self, files: Mapping[str, str] | None = None) -> None:
        self._folders: dict[str, _Folder] = {"": _Folder()}
        self._changed: set[str] = set()
        for path, blob in (files or {}).items():
            self.put(path, blob)

    def put(self, path: str, blob: str) -> None:
        """Add or replace a file."""
        folder, _, name = path.rpartition("/")
        self._touch(folder)
        key = os.fsencode(name)
        self._folders[folder].put(key, _entry(_FILE, key, blob))

    def remove(self, path: str) -> None:
        """Take a file away; one that is not there is already away."""
        folder, _, name = path.rpartition("/")
        if folder in self._folders and self._folders[folder].remove(os.fsencode(name)):
            self._touch(folder)

    def _touch(self, folder: str) -> None:
        while folder not in self._changed or folder not in self._folders:
            self._changed.add(folder)
            self._folders.setdefault(folder, _Folder())
            folder = folder.rpartition("/")[0]

    def write(self, batch: Batch) -> str:
        """Add the tree objects that are new to ``batch``; returns the id of the whole tree."""
        for folder in sorted(self._changed - {""}, key=len, reverse=True):  # the innermost first
            parent, _, name = folder.rpartition("/")
            own = os.fsencode(name)
            key = own + b"/"  # git sorts a folder as if its name ended in a slash
            if self._folders[folder].entries:
                self._folders[parent].put(key, _entry(_FOLDER, own, self._folders[folder].write(batch)))
            else:  # git knows no empty folders
                del self._folders[folder]
                self._folders[parent].remove(key)
        self._changed = set()
        return self._folders[""].write(batch)


def _entry(mode: bytes, name: bytes, blob: str) -> bytes:
    return b"%s %s\0%s" % (mode, name, bytes.fromhex(blob))
