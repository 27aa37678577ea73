"""Use cases of an auditor, who has only the repository."""

from __future__ import annotations

from llmctl import gates
from llmctl.app.workspace import record_reader
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.record import Entry, EntryDetail, Verification
from llmctl.record import verify as verify_record


def log(file: str | None, environment: str | None, limit: int) -> tuple[str, list[Entry]]:
    """The newest entries of a record: environment name and entries."""
    _, reader = record_reader(file, environment)
    return reader.environment, reader.entries(limit)


def show(file: str | None, environment: str | None, serial: int) -> tuple[str, EntryDetail]:
    """One entry with its changes, decisions and evidence."""
    _, reader = record_reader(file, environment)
    return reader.environment, reader.entry(serial)


def verify(file: str | None, environment: str | None, expect_head: str | None) -> tuple[str, Verification]:
    """Check the whole record offline: chain, serials, evidence against thresholds."""
    repository, reader = record_reader(file, environment)
    if expect_head is not None and not _is_hex(expect_head):
        raise InvalidInput([Diagnostic(f"{expect_head!r} is not a commit id", hint="Give the full hexadecimal id.")])
    return reader.environment, verify_record(
        repository, reader.environment, expect_head=expect_head, judge=lambda evidence: gates.rejudge(evidence, None)
    )


def _is_hex(text: str) -> bool:
    return len(text) >= 7 and all(c in "0123456789abcdef" for c in text.lower())
