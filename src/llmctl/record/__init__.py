"""The git record of an environment: state store and audit trail in one, on the branch ``llmctl/<env>``.

``Reader`` reads it, ``Lock`` guards it, ``Attempt`` writes it (it is the ``Journal`` that apply is given),
``find_interrupted`` finds what a crash left open, ``verify`` checks it for an auditor.
"""

from llmctl.record.attempt import Action, Attempt
from llmctl.record.entries import ChangeCommit, Entry, EntryDetail, Touched
from llmctl.record.head import Closing, Outcome
from llmctl.record.history import Between, History, Query, Version
from llmctl.record.holder import LockInfo
from llmctl.record.lock import HeldLock, Lock
from llmctl.record.messages import GateClaim, Trailers, value, values
from llmctl.record.reader import Reader
from llmctl.record.recovery import OpenAttempt, find_interrupted
from llmctl.record.remote import Remote, RemoteError
from llmctl.record.repository import Repository, open_repository, recorded_environments, side_refs
from llmctl.record.source import source_at
from llmctl.record.verify import Finding, Verification, verify

__all__ = [
    "Action",
    "Attempt",
    "Between",
    "ChangeCommit",
    "Closing",
    "Entry",
    "EntryDetail",
    "Finding",
    "GateClaim",
    "HeldLock",
    "History",
    "Lock",
    "LockInfo",
    "OpenAttempt",
    "Outcome",
    "Query",
    "Reader",
    "Remote",
    "RemoteError",
    "Repository",
    "Touched",
    "Trailers",
    "Verification",
    "Version",
    "find_interrupted",
    "open_repository",
    "recorded_environments",
    "side_refs",
    "source_at",
    "value",
    "values",
    "verify",
]
