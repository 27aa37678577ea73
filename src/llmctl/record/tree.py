"""A git tree in memory, of which only the folders that changed are written again."""

from __future__ import annotations

import os
from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass, field

from llmctl.record.writing import Batch

_FILE, _FOLDER = b"100644", b"40000"


@dataclass
class _Folder:
    """Entries by sort key, encoded, with the keys in git's order; ``written`` is the id of its last tree object."""

    entries: dict[bytes, bytes] = field(default_factory=dict)
    order: list[bytes] = field(default_factory=list)
    written: str = ""

    def put(self, key: bytes, entry: bytes) -> None:
        if key not in self.entries:
            insort(self.order, key)
        self.entries[key] = entry

    def remove(self, key: bytes) -> bool:
        if self.entries.pop(key, None) is None:
            return False
        del self.order[bisect_left(self.order, key)]
        return True

    def write(self, batch: Batch) -> str:
        """Add the tree object to ``batch``; the one before it is its base."""
        self.written = batch.add("tree", b"".join([self.entries[key] for key in self.order]), base=self.written)
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
