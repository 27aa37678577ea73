"""Use cases of an auditor, who has only the repository."""

from __future__ import annotations

from llmctl import gates
from llmctl.app.workspace import record_reader
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.core.evidence import Evidence
from llmctl.core.kinds import kind_of
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
    return reader.environment, verify_record(repository, reader.environment, expect_head=expect_head, judge=_judge)


def _judge(evidence: Evidence) -> list[str]:
    """What is wrong with evidence: against its own figures, and against the thresholds of its gate at that time."""
    spec = dict(evidence.gate_spec)
    if kind_of("gate").revision(spec) != evidence.gate_revision:
        return [f"the gate's spec that it holds is not that of gate.{evidence.gate}, revision {evidence.gate_revision}"]
    return gates.rejudge(evidence, spec)


def _is_hex(text: str) -> bool:
    return len(text) >= 7 and all(c in "0123456789abcdef" for c in text.lower())
