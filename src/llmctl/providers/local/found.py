"""What was found whole at the last look, so that the next one need not read ten thousand files again.

A file counts as unchanged while its size, its times and its inode are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.cache import NONSENSE, CacheFile
from llmctl.core.digests import Json
from llmctl.core.files import Stamp, is_settled, stamp

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Found:
    """An artifact that was whole: its manifest's stamp, what the manifest says, and its contents' files."""

    manifest: Stamp
    spec: Json
    revision: str
    contents: list[tuple[str, Stamp]]  # path below the artifact store

    @property
    def settled(self) -> bool:
        """Whether all its files are old enough to be told from later versions of themselves."""
        return all(map(is_settled, [self.manifest, *(stamp for _, stamp in self.contents)]))


class FoundFile:
    """What was found of one kind, by key. ``basis`` names what else decides it: another one makes it void."""

    def __init__(self, kept: CacheFile, artifacts: Path, basis: Json) -> None:
        self._kept = kept
        self._artifacts = artifacts
        self._basis = [_FORMAT, basis]

    def load(self) -> dict[str, Found]:
        with suppress(*NONSENSE):
            content = json.loads(self._kept.read())
            if content["basis"] == self._basis:
                return {name: Found(*entry) for name, entry in content["found"].items()}
        return {}

    def save(self, found: Mapping[str, Found]) -> None:
        """Remember these and no others."""
        entries = {name: [f.manifest, f.spec, f.revision, f.contents] for name, f in found.items()}
        self._kept.keep(json.dumps({"basis": self._basis, "found": entries}, separators=(",", ":")).encode())

    def still(self, known: Found | None, manifest: os.stat_result) -> bool:
        """Whether nothing of it has changed since; ``manifest`` is its manifest's status now."""
        if known is None or known.manifest != stamp(manifest):
            return False
        try:
            return all(stamp(os.stat(f"{self._artifacts}/{path}")) == was for path, was in known.contents)
        except OSError:
            return False
