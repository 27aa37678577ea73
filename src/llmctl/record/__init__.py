"""The git record of an environment: state store and audit trail in one, on the branch ``llmctl/<env>``.

``Reader`` reads it, ``Lock`` guards it, ``Attempt`` writes it (it is the ``Journal`` that apply is given),
``find_interrupted`` finds what a crash left open, ``verify`` checks it for an auditor.
"""

from llmctl.record.attempt import Action, Attempt, Outcome
from llmctl.record.lock import HeldLock, Lock, LockInfo
from llmctl.record.messages import GateClaim, Trailers, value, values
from llmctl.record.reader import ChangeCommit, Entry, EntryDetail, Reader
from llmctl.record.recovery import OpenAttempt, find_interrupted
from llmctl.record.repository import Repository, open_repository, recorded_environments
from llmctl.record.source import source_at
from llmctl.record.verify import Finding, Verification, verify

__all__ = [
    "Action",
    "Attempt",
    "ChangeCommit",
    "Entry",
    "EntryDetail",
    "Finding",
    "GateClaim",
    "HeldLock",
    "Lock",
    "LockInfo",
    "OpenAttempt",
    "Outcome",
    "Reader",
    "Repository",
    "Trailers",
    "Verification",
    "find_interrupted",
    "open_repository",
    "recorded_environments",
    "source_at",
    "value",
    "values",
    "verify",
]
