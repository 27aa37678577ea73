"""What a look at a large file gave, kept between commands: 1 GB takes 6 s to digest and survey, and rarely changes.

A file counts as unchanged while its size, its times and its inode are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property
from pathlib import Path

from llmctl import __version__
from llmctl.core.cache import NONSENSE, CacheFile
from llmctl.core.digests import Json
from llmctl.core.files import is_settled, stamp
from llmctl.core.watch import WATCH
from llmctl.spec.source import display_path

#: Bytes; a smaller file is read again faster than it would be worth a place here.
LARGE = 8 << 20


class LargeFiles:
    """Results by file and by what was looked for."""

    def __init__(self, root: Path) -> None:
        self._kept = CacheFile(root, "large-files.json")

    def get(self, path: Path, status: os.stat_result, what: Hashable) -> Json:
        """What is kept of this file as it is now, ``None`` for nothing."""
        entry = self._entries.get(str(path)) if status.st_size >= LARGE else None
        return entry["found"].get(repr(what)) if entry and entry["stamp"] == stamp(status) else None

    def put(self, path: Path, status: os.stat_result, what: Hashable, found: Json) -> None:
        """Keep what was found of the file with this status, taken before it was read."""
        if status.st_size < LARGE or not is_settled(stamp(status)):
            return
        entry = self._entries.get(str(path))
        if entry is None or entry["stamp"] != stamp(status):
            entry = self._entries[str(path)] = {"stamp": stamp(status), "found": {}}
        entry["found"][repr(what)] = found
        self.keep()

    def watched(self, path: Path, status: os.stat_result) -> AbstractContextManager[None]:
        """Entered while a file is read: of a large one somebody may want to know."""
        return WATCH.get()(display_path(path), status.st_size) if status.st_size >= LARGE else nullcontext()

    def keep(self) -> None:
        """Write down what is known."""
        files = {name: entry for name, entry in self._entries.items() if os.path.exists(name)}
        if files:
            self._kept.keep(json.dumps({"by": __version__, "files": files}).encode())

    @cached_property
    def _entries(self) -> dict[str, Json]:
        with suppress(*NONSENSE):
            content = json.loads(self._kept.read())
            if content["by"] == __version__ and all(_is_entry(entry) for entry in content["files"].values()):
                files: dict[str, Json] = content["files"]
                return files
        return {}


def _is_entry(entry: Json) -> bool:
    return isinstance(entry["found"], dict) and isinstance(entry["stamp"], list)
