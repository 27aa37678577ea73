"""Use case of an auditor: check a whole record offline, against signers whom the auditor names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from llmctl import gates
from llmctl.app.workspace import record_reader
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.core.evidence import Evidence
from llmctl.core.kinds import kind_of
from llmctl.record import Repository, Verification
from llmctl.record import verify as verify_record
from llmctl.record.signers import Signers, leads_through
from llmctl.record.verifying.signing import Demand

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Anchors:
    """What stands outside of the record and vouches for it, as the auditor names it.

    Without files it is those of git's settings. ``signed_from`` is the serial of the first entry that must be signed.
    """

    expect_head: str | None = None
    allowed: Path | None = None
    revoked: Path | None = None
    signed_from: int | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """A verification, and whether the allowed signers lie in the work tree, where a change can name its author."""

    environment: str
    result: Verification
    inside: bool


def verify(file: str | None, environment: str | None, anchors: Anchors) -> Verified:
    """Check the whole record: chain, serials, evidence against thresholds, decisions, signatures.

    With allowed signers that were named every commit must be signed by one of them; with those of git's settings, once
    any commit of the record is signed. Raises ``InvalidInput`` for wrong options and files of signers.
    """
    repository, reader = record_reader(file, environment)
    expected = (anchors.expect_head or "").lower() or None
    if expected and not _COMMIT.fullmatch(expected):
        hint = "Give the whole hexadecimal id, as `git rev-parse` prints it."
        raise InvalidInput([Diagnostic(f"{anchors.expect_head!r} is not a commit id", hint=hint)])
    signers = Signers.load(repository, anchors.allowed, anchors.revoked)
    if anchors.signed_from is not None and not signers.known:
        hint = "Name them with --allowed-signers FILE, or with `git config gpg.ssh.allowedSignersFile FILE`."
        raise InvalidInput([Diagnostic("--signed-from needs to know whose signatures count", hint=hint)])
    named = anchors.allowed is not None or anchors.signed_from is not None
    demand = Demand(
        signers, unsigned=(True if named else None) if signers.known else False, since=anchors.signed_from or 0
    )
    result = verify_record(repository, reader.environment, expect_head=expected, judge=judge, demand=demand)
    return Verified(reader.environment, result, signers.known and _is_inside(repository, Path(signers.source)))


def _is_inside(repository: Repository, file: Path) -> bool:
    return leads_through(file, repository.work_tree) and not leads_through(file, repository.common_dir)


def judge(evidence: Evidence) -> list[str]:
    """What is wrong with evidence: against its own figures, and against the thresholds of its gate at that time."""
    try:
        spec = dict(evidence.gate_spec)
        revision = kind_of("gate").revision(spec)
        if revision == evidence.gate_revision:
            return gates.rejudge(evidence, spec)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return ["it is not what a gate measures: its figures or its gate's spec cannot be read"]
    return [f"the gate's spec that it holds is not that of gate.{evidence.gate}, revision {evidence.gate_revision}"]
