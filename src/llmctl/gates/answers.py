"""Answers kept as they come, so that a run that was cut short need not ask them again.

One file a run, named by all that decides the answers and their figures: JSON lines, each written at once,
so that whatever ends the run loses no answer that had come. It holds texts: only its owner may read it, and
it goes away when the run has ended with evidence. Two runs at once of the same gate append to the same file.
What nobody went on with for ``KEPT_DAYS`` goes when another run begins.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.errors import LlmctlError

KEPT_DAYS = 7


@dataclass
class AnswerLog:
    """The kept answers of one run; without a file it keeps nothing."""

    path: Path | None
    _file: int = -1

    def known(self, revision: str) -> dict[str, str]:
        """The texts by row id that a route revision answered before. What is torn or no answer is left aside."""
        if self.path is None:
            return {}
        found = {}
        with _explained(self.path), open(self._file, "rb", closefd=False) as file:
            file.seek(0)
            lines = file.read().splitlines()
        for line in lines:
            try:
                kept = json.loads(line)
                if kept["revision"] == revision and isinstance(kept["text"], str):
                    found[str(kept["id"])] = kept["text"]
            except (ValueError, LookupError, TypeError, RecursionError):
                continue
        return found

    def keep(self, revision: str, row_id: str, text: str) -> None:
        """Write one answer, in one piece, so that runs side by side do not mix their lines."""
        if self.path is None:
            return
        # It begins with a line break too: the file may end in half a line of a run that was killed.
        line = "\n" + json.dumps({"revision": revision, "id": row_id, "text": text}) + "\n"
        with _explained(self.path):
            os.write(self._file, line.encode())

    def remove(self) -> None:
        """All answers are in the evidence's rows by now."""
        if self.path is not None:
            with _explained(self.path):
                self.path.unlink(missing_ok=True)


@contextmanager
def answer_log(folder: Path | None, key: str) -> Iterator[AnswerLog]:
    """The answers kept in ``folder`` under a key (a digest). Raises ``LlmctlError`` when they cannot be."""
    if folder is None:
        yield AnswerLog(None)
        return
    path = folder / f"{key.removeprefix('sha256:')}.jsonl"
    with _explained(path):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.utime(file)  # a run that goes on is not old, also before its first answer has come
    _forget_old(folder, path)
    try:
        yield AnswerLog(path, file)
    finally:
        os.close(file)


def _forget_old(folder: Path, current: Path) -> None:
    """Remove what other runs left long ago. A failure is no harm, nor is it to one that goes on: its file is open."""
    since = time.time() - KEPT_DAYS * 86400
    with suppress(OSError):
        for path in folder.glob("*.jsonl"):
            if path != current and path.lstat().st_mtime < since:
                path.unlink(missing_ok=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LlmctlError(
            f"the answers of the gate cannot be kept in {path}: {(error.strerror or 'unknown reason').lower()}",
            hint="Check the folder's permissions and the free space on its disk.",
        ) from None
