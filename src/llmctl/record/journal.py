"""The journal of one attempt: JSON lines on this machine's disk, each durable before the effect it speaks of."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.digests import Json, canonical_json
from llmctl.core.errors import LeaseLost, RecordError
from llmctl.core.files import sync_folder
from llmctl.core.protocols import Intent


@dataclass(frozen=True, slots=True)
class JournalContent:
    """A journal as it was found. ``length`` counts the bytes of its whole lines; a torn last one is left out."""

    header: Mapping[str, Json]
    lines: tuple[Mapping[str, Json], ...]
    length: int

    @property
    def changes(self) -> list[Mapping[str, Json]]:
        """The changes that were to be committed, in order."""
        return [line for line in self.lines if line["type"] == "change"]

    @property
    def closing(self) -> Mapping[str, Json] | None:
        """How the attempt ended, where that is the last that was done in it: only its entry was not made."""
        last = next((line for line in reversed(self.lines) if line["type"] != "recovered"), None)
        return last if last and last["type"] == "closing" else None

    @property
    def effects(self) -> int:
        """How many lines speak of something that happened, or may have."""
        return sum(1 for line in self.lines if line["type"] not in ("recovered", "decided"))

    @property
    def decisions(self) -> Mapping[str, Json]:
        """What had been decided before anything was done: who allowed it, by which plan. Empty where none is noted."""
        found = (line["decisions"] for line in self.lines if line["type"] == "decided")
        return next(found, {})

    @property
    def open_intents(self) -> tuple[Intent, ...]:
        """Intents without an outcome: effects that were made, or half made, or not."""
        finished = {line["id"] for line in self.lines if line["type"] == "done"}
        return tuple(
            Intent(line["id"], line["step"], line["effect"], line["data"])
            for line in self.lines
            if line["type"] == "intent" and line["id"] not in finished
        )

    @property
    def fence(self) -> int:
        """The fencing token of the last command that worked on the attempt."""
        recovered = (int(line["fence"]) for line in self.lines if line["type"] == "recovered")
        return max([int(self.header["fence"]), *recovered])


class JournalFile:
    """An open journal. Safe to use from several threads."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._mutex = threading.Lock()
        self._heard: Callable[[bytes], None] = lambda _: None

    def tell(self, hear: Callable[[bytes], None]) -> None:
        """From now on call ``hear`` with each line as soon as it is durable, in their order."""
        self._heard = hear

    @classmethod
    def create(cls, path: Path, header: Mapping[str, Json]) -> JournalFile:
        """Begin a journal; raises ``RecordError`` when there is one already or the folder cannot be written."""
        text = _line(header)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except FileExistsError as error:
            raise RecordError(
                f"an earlier attempt was never closed: {path}", hint="Run `llmctl apply`, it closes that one first."
            ) from error
        except OSError as error:
            raise _unwritable(path, error) from error
        journal = cls(path, descriptor)
        try:
            journal._write(text)
            sync_folder(path.parent)
        except OSError as error:
            journal.remove()
            raise _unwritable(path, error) from error
        return journal

    @classmethod
    def reopen(cls, path: Path, length: int) -> JournalFile:
        """Go on after ``length`` bytes; what follows them is a torn line and is cut off."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.truncate(descriptor, length)
        except OSError as error:
            raise _unwritable(path, error) from error
        return cls(path, descriptor)

    def append(self, entry: Mapping[str, Json]) -> None:
        """Write one line; returns when it is durable.

        Raises ``LeaseLost`` when another command closed this attempt and removed the journal.
        """
        text = _line(entry)
        with self._mutex:
            self.require_open()
            status = os.fstat(self._descriptor)
            if not status.st_nlink:
                raise LeaseLost(
                    "another command closed this attempt",
                    hint="The lock was lost in between. Look at `llmctl status`, then run the command again.",
                )
            try:
                self._append_at(status.st_size, text)
            except OSError as error:
                raise _unwritable(self.path, error) from error
            self._heard(text)

    def _append_at(self, length: int, text: bytes) -> None:
        """A disk that is full takes a part of the line: that must not stand before the next one, which may fit."""
        try:
            self._write(text)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, length)
            raise

    def require_open(self) -> None:
        """Raise ``RecordError`` after ``close`` or ``remove``."""
        if self._descriptor < 0:
            raise RecordError("the attempt is closed; nothing can be added to it")

    def _write(self, text: bytes) -> None:
        while text:
            text = text[os.write(self._descriptor, text) :]
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file and leave it where it is."""
        with self._mutex:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def remove(self) -> None:
        """The attempt is in the record, or was nothing: delete the journal."""
        self.close()
        remove_journal(self.path)


def remove_journal(path: Path) -> None:
    """Delete a journal, and its folders when they are empty."""
    path.unlink(missing_ok=True)
    with suppress(OSError):  # another environment's journal may lie beside it
        path.parent.rmdir()
        path.parent.parent.rmdir()


def read_journal(path: Path) -> JournalContent | None:
    """A journal found on disk; ``None`` when it was torn before its first line was whole.

    Raises ``RecordError`` when a whole line is damaged, which no crash does.
    """
    return parse_journal(journal_bytes(path), f"the journal {path}", "move that file away")


def journal_bytes(path: Path) -> bytes:
    """What a journal's file holds, "" when there is none; raises ``RecordError`` when it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RecordError(f"the journal {path} cannot be read", detail=str(error)) from error


def parse_journal(data: bytes, where: str, remedy: str) -> JournalContent | None:
    """Read a journal, as ``read_journal`` does; ``remedy`` says how to get rid of one that is damaged."""
    whole = data[: data.rfind(b"\n") + 1]
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
        content = JournalContent(lines[0], tuple(lines[1:]), len(whole)) if lines else None
        if content:
            _ = (
                content.fence,
                content.changes,
                content.open_intents,
                content.decisions,
                content.closing,
                int(content.header["serial"]),
            )
    except (ValueError, TypeError, KeyError) as error:
        raise RecordError(
            f"{where} is damaged",
            detail=str(error),
            hint=f"Look at `llmctl drift` for what is really there, then {remedy}.",
        ) from error
    return content


def highest_fence(folder: Path) -> int:
    """The highest fencing token in the journals of a folder, 0 for none; what is damaged is told when it is closed."""
    fences = [0]
    for path in folder.glob("attempt-*.jsonl"):
        with suppress(RecordError):
            journal = read_journal(path)
            fences.append(journal.fence if journal else 0)
    return max(fences)


def _line(entry: Mapping[str, Json]) -> bytes:
    try:
        return canonical_json(entry).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        # Not the error's text: it could quote the value.
        raise RecordError(f"a value cannot be written to the journal: {type(error).__name__}") from None


def _unwritable(path: Path, error: OSError) -> RecordError:
    return RecordError(
        f"the journal {path} cannot be written",
        detail=str(error),
        hint="Nothing is done without a journal. Check the permissions and the room on that disk.",
    )
