"""What is recorded without a plan: one entry that forgets, takes in or allows, or that clears away."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from llmctl.app.entry import ci_run
from llmctl.app.interrupted import close_interrupted
from llmctl.app.workspace import Workspace
from llmctl.core.digests import Json
from llmctl.core.protocols import Change
from llmctl.core.resources import RecordState, Rejection
from llmctl.record import Action, Attempt, HeldLock, Lock

Notice = Callable[[str], None]


@dataclass(frozen=True)
class Held:
    """An environment whose lock is ours, and what is recorded of it. One entry can be made from here."""

    workspace: Workspace
    lock: HeldLock
    action: Action
    state: RecordState

    def begin(self) -> Attempt:
        """Begin the entry, for a change that has effects of its own; ``close`` it."""
        repository = self.workspace.repository
        self.lock.check()
        return Attempt.begin(
            repository,
            self.workspace.environment.name,
            self.state,
            fence=self.lock.fence,
            action=self.action,
            plan_digest="",
            source_commit=repository.head_commit(),
            project=self.workspace.document.project,
            actor=repository.actor(),
            run=ci_run(),
            lock=self.lock,
        )

    def close(
        self,
        attempt: Attempt,
        *,
        subject: str,
        reason: str,
        decided: Mapping[str, Json],
        rejections: tuple[Rejection, ...] | None = None,
    ) -> int:
        """Put the entry into the record; returns its serial. ``rejections`` stay as they are when none are given."""
        repository = self.workspace.repository
        decisions = {
            "action": self.action,
            "reason": reason,
            "actor": repository.actor(),
            "machine": socket.gethostname(),
            "run": ci_run(),
            "source_commit": repository.head_commit(),
            "source_modified": repository.is_dirty(self.workspace.document.files),
            **decided,
        }
        self.lock.check()
        attempt.close(
            "applied",
            subject=subject,
            decisions=decisions,
            rejections=self.state.rejections if rejections is None else rejections,
            break_glass=self.state.break_glass,
        )
        return attempt.serial

    def record(
        self,
        *,
        subject: str,
        reason: str,
        decided: Mapping[str, Json],
        changes: Iterable[Change] = (),
        rejections: tuple[Rejection, ...] | None = None,
    ) -> int:
        """Make the whole entry, which changes nothing but the record; returns its serial."""
        attempt = self.begin()
        for change in changes:
            attempt.commit(change)
        return self.close(attempt, subject=subject, reason=reason, decided=decided, rejections=rejections)


@contextmanager
def changing(workspace: Workspace, action: Action, notice: Notice) -> Iterator[Held]:
    """Take the lock, and close an apply that was interrupted, of which ``notice`` is told.

    Raises ``Locked`` when somebody else works on the environment, ``RecordError`` when the record is another
    project's or git does not know who we are.
    """
    workspace.repository.require_identity()
    workspace.sync()
    workspace.recorded()  # another project's record is told before anything is written
    lock = Lock(workspace.repository, workspace.environment.name)
    published = workspace.target.last_published()  # a record that was lost must not hand out old fences again
    with lock.acquire(f"llmctl {action}", at_least=published.fence if published else 0) as held:
        close_interrupted(workspace, held, notice)
        yield Held(workspace, held, action, workspace.recorded())
