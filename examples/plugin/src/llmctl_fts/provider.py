"""Indexes on the local target: one SQLite file a name. This is the half of the kind that acts.

The contract is in ``llmctl.core.protocols.Provider``; ``llmctl.testing`` has it as tests. In short: a thing that
cannot be read is never left out of a reading, a change is refused when what is there is no longer what was read,
and ``op.guard()`` comes before every effect.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import Conflict, ProviderError, TransientError
from llmctl.core.files import sync_folder
from llmctl.core.kinds import Kind
from llmctl.core.plugins import Declared, Place
from llmctl.core.protocols import Op
from llmctl.core.resources import ALL, Key, Live, Reading, Spec
from llmctl.spec import dataset_rows

_SUFFIX = ".sqlite3"
_BATCH = 1000  # rows between two looks at whether the work may go on


class FtsProvider:
    """``core.protocols.Provider`` and ``core.plugins.Imports`` for indexes. Each holds the spec from which it was made;
    nothing else is kept."""

    def __init__(self, kind: Kind, place: Place) -> None:
        self._kind = kind
        self._folder = place.folder
        self._artifacts = place.artifacts

    def read_all(self) -> Reading[Spec]:
        try:
            names = sorted(path.name for path in self._folder.iterdir())
        except FileNotFoundError:
            return Reading()  # the folder comes with the first index
        except OSError as error:
            return Reading(unreadable={ALL: Diagnostic(f"{self._folder} cannot be read: {error.strerror}")})
        found: dict[Key, Live[Spec]] = {}
        unreadable: dict[Key, Diagnostic] = {}
        for name in names:
            if name.endswith(_SUFFIX) and not name.startswith("."):
                key = Key(name.removesuffix(_SUFFIX))
                try:
                    live = self._read(key)
                except ProviderError as error:
                    unreadable[key] = Diagnostic(error.summary, detail=error.detail, hint=error.hint)
                    continue
                if live is not None:
                    found[key] = live
        return Reading(found, unreadable)

    def create(self, op: Op, key: Key, want: Spec) -> Live[Spec]:
        op.guard()
        there = self._read(key)
        if there is not None and there.healthy:
            if there.state == want:
                return there  # a crash may have come between making it and recording it
            raise Conflict(f"there is another index {key} already", hint="Plan again.")
        return self._build(op, key, want, there)

    def update(self, op: Op, key: Key, was: Live[Spec], want: Spec) -> Live[Spec]:
        op.guard()
        self._refuse_moved(key, was, self._read(key))
        return self._build(op, key, want, was)

    def delete(self, op: Op, key: Key, was: Live[Spec]) -> None:
        op.guard()
        there = self._read(key)
        if there is None:
            return
        self._refuse_moved(key, was, there)
        with _explained(f"delete the index {key}"):
            self._path(key).unlink()

    def read_spec(self, key: Key) -> Declared:
        there = self._read(key)
        if there is None or not there.healthy:
            raise ProviderError(f"what the index {key} was made from cannot be told")
        return Declared(there.state, needs=(Address("dataset", there.state["dataset"]),))

    def _path(self, key: Key) -> Path:
        return self._folder / f"{key.name}{_SUFFIX}"

    def _read(self, key: Key) -> Live[Spec] | None:
        """What a file holds, ``None`` when there is none.

        Damaged for good is ill: it is there, and can be replaced and deleted. What may be readable later, because
        it is locked or not ours to read, raises ``TransientError``.
        """
        path = self._path(key)
        if not os.path.lexists(path):
            return None
        try:
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0)) as base:
                (said,) = base.execute("PRAGMA quick_check(1)").fetchone()  # a plan reads no damaged page otherwise
                if said != "ok":
                    raise sqlite3.DatabaseError(said)
                text, rows = base.execute("SELECT spec, rows FROM meta").fetchone()
                spec: Spec = json.loads(text)
                (there,) = base.execute("SELECT count(*) FROM documents").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT):  # a table is not there
                return _ill(key, str(error))
            summary = f"the index {key} cannot be read: {error}"
            raise TransientError(summary, hint=f"See who uses {path}, then run the command again.") from None
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            return _ill(key, str(error))
        outputs = {"path": str(path), "rows": rows}
        detail = f"{rows} rows" if there == rows else f"it has {there} rows, and was made with {rows}"
        return Live(key, spec, self._kind.revision(spec), healthy=there == rows, detail=detail, outputs=outputs)

    def _refuse_moved(self, key: Key, was: Live[Spec], there: Live[Spec] | None) -> None:
        if there is None or (there.state, there.revision) != (was.state, was.revision):
            what = "is gone" if there is None else "is no longer as it was read"
            raise Conflict(f"the index {key} {what}", hint="Plan again.")

    def _build(self, op: Op, key: Key, want: Spec, was: Live[Spec] | None) -> Live[Spec]:
        """Make the whole index beside the old one and swap, so that a crash leaves the one or the other."""
        content = self._artifacts.path(want["dataset_digest"])  # as it was recorded, whatever the file says by now
        with _explained(f"build the index {key}"):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = self._folder / f".{key.name}.new"
            made.unlink(missing_ok=True)  # left behind by a crash
            try:
                _fill(op, made, content, want)
                op.guard()
                there = self._read(key)
                if was is not None or there is not None:
                    self._refuse_moved(key, was or Live(key, {}, ""), there)
                os.replace(made, self._path(key))
                sync_folder(self._folder)
            finally:
                made.unlink(missing_ok=True)
        live = self._read(key)
        if live is None:
            raise Conflict(f"the index {key} is gone as soon as it was made", hint="Plan again.")
        return live


def _fill(op: Op, path: Path, content: Path, want: Spec) -> None:
    columns = ", ".join(f'"{column}"' for column in want["columns"])
    values = ", ".join("?" for _ in want["columns"])
    with closing(sqlite3.connect(path)) as base:
        base.execute("PRAGMA journal_mode = OFF")  # one that is not complete is thrown away
        base.execute(f"CREATE VIRTUAL TABLE documents USING fts5({columns}, tokenize = '{want['tokenizer']}')")
        count = 0
        for count, (_, row) in enumerate(dataset_rows(content, want["dataset_format"]), 1):
            texts = [_text(row.get(column)) for column in want["columns"]]
            base.execute(f"INSERT INTO documents VALUES ({values})", texts)
            if count % _BATCH == 0:
                op.guard()
                op.progress(f"{count} rows")
        base.execute("CREATE TABLE meta (spec TEXT NOT NULL, rows INTEGER NOT NULL)")
        base.execute("INSERT INTO meta VALUES (?, ?)", (json.dumps(want), count))
        base.commit()


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _ill(key: Key, why: str) -> Live[Spec]:
    return Live(key, {}, "", healthy=False, detail=f"the index is damaged: {why}")


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """The errors of other libraries end here: llmctl explains its own alone."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise ProviderError(f"cannot {doing}: {error}", hint="Look at the disk and at its permissions.") from error
