"""An attempt: the journal of one apply, its commits, and the one merge that closes it.

Every change is on disk in the journal before it becomes a commit on ``refs/llmctl/<env>/attempt/<serial>``;
that chain begins at the record's head. Closing merges it into the record, so that the first parents of
``llmctl/<env>`` are the entries and what lies behind them are the changes. How the attempt ended is in the journal
before any ref moves; with a remote, the remote has the journal too, and takes the entry before this clone does.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import inf
from time import monotonic
from typing import Literal, get_args

from llmctl.core.decisions import BreakGlass
from llmctl.core.digests import Json
from llmctl.core.errors import LeaseLost, LlmctlError, RecordError
from llmctl.core.protocols import Change, Intent
from llmctl.core.resources import RecordState, Rejection
from llmctl.record.git import RefEdit, RefMoved
from llmctl.record.head import Chain, Closing, Head, Outcome
from llmctl.record.journal import JournalFile, journal_bytes
from llmctl.record.layout import STATE, decisions_path, encode
from llmctl.record.lock import HeldLock
from llmctl.record.messages import Trailers, claims, compose, encode_files, files_of, implied, merged
from llmctl.record.objects import list_files, now
from llmctl.record.reader import Reader
from llmctl.record.remote import RemoteError
from llmctl.record.repository import Repository, branch, side_ref
from llmctl.record.shipping import Shipping, require_lock, ship
from llmctl.record.tree import Tree
from llmctl.record.upkeep import upkeep
from llmctl.record.writing import Batch, add_commit, require_signing, store

Action = Literal["apply", "destroy", "rollback", "unreject", "state rm", "import", "gc"]

LAG_S, _LAG_CHANGES = 1.0, 500  # for how long, and by how many changes, git may be behind the journal


@dataclass(frozen=True, slots=True)
class _Pending:
    subject: str
    files: Mapping[str, bytes | None]
    trailers: Trailers


class Attempt:
    """One attempt, from its beginning to ``close``. It is the ``Journal`` that apply is given; thread-safe."""

    def __init__(
        self,
        repository: Repository,
        head: Head,
        journal: JournalFile,
        chain: Chain,
        effects: int = 0,
        lag_s: float = LAG_S,
        shipping: Shipping | None = None,
    ) -> None:
        self._repository = repository
        self._head = head
        self._journal = journal
        self._shipping = shipping
        self._chain = chain
        self._ref = side_ref(head.environment, f"attempt/{head.serial}")
        self._branch = branch(head.environment)
        self._branch_at = repository.git.resolve(self._branch)  # "" where only origin's record is there
        if self._branch_at not in ("", head.base):
            raise self._moved()
        self._tree: Tree | None = None  # of the chain's tip, once it is needed
        self._pending: list[_Pending] = []
        self._lag_s = lag_s
        self._written_at = -inf  # in seconds of time.monotonic
        self._effects = chain.count + effects
        self._mutex = threading.RLock()

    @classmethod
    def begin(
        cls,
        repository: Repository,
        environment: str,
        state: RecordState,
        *,
        fence: int,
        action: Action,
        plan_digest: str,
        source_commit: str,
        project: str,
        actor: str,
        run: str = "",
        lag_s: float = LAG_S,
        lock: HeldLock | None = None,
    ) -> Attempt:
        """Begin the attempt that follows ``state``; call it with the lock held.

        Where the record is on a remote, ``lock`` must be given: each push renews it. Git follows the journal within
        ``lag_s`` seconds while commits come, and at the close.

        Raises ``RecordError`` when an earlier attempt is still open, when the record cannot be written, or
        when ``state`` is no longer its head.
        """
        _require_room(repository, environment, state, lock)
        serial = state.serial + 1
        head = Head(
            environment=environment,
            project=project,
            serial=serial,
            fence=fence,
            action=action,
            actor=actor,
            started_at=now(),
            base=state.head,
            plan_digest=plan_digest,
            source_commit=source_commit,
            run=run,
        )
        path = repository.private_dir(environment) / f"attempt-{serial}.jsonl"
        journal = JournalFile.create(path, head.to_json())
        try:
            shipping = _ship(repository, head, journal, lock)
            return cls(repository, head, journal, Chain("", "", 0, ()), lag_s=lag_s, shipping=shipping)
        except LlmctlError:
            if lock:
                lock.renew_with(lock.push)
            journal.remove()
            raise

    @property
    def serial(self) -> int:
        """The serial that the entry will have."""
        return self._head.serial

    @property
    def fence(self) -> int:
        """The fencing token under which the attempt works."""
        return self._head.fence

    @property
    def tip(self) -> str:
        """The newest commit of the attempt, "" before the first one."""
        return self._chain.tip

    def decide(self, decisions: Json) -> None:
        """Note what was decided before the first effect; an attempt that never ends is recorded with it."""
        self._journal.append({"type": "decided", "decisions": decisions})

    def intend(self, step: str, effect: str, data: Mapping[str, Json], *, share: bool = True) -> Intent:
        """Note an effect that is about to be made; returns when that is durable, with ``share`` on the remote too."""
        intent = Intent(uuid.uuid4().hex, step, effect, dict(data))
        line = {"type": "intent", "id": intent.id, "step": step, "effect": effect, "data": intent.data, "at": now()}
        self._journal.append(line)
        with self._mutex:
            self._effects += 1
        if share:
            self.share()
        return intent

    def share(self) -> None:
        """Return when all that was noted is on the remote, if the record has one."""
        if self._shipping:
            self._shipping.wait()

    def done(self, intent: Intent, outcome: str, data: Mapping[str, Json]) -> None:
        """Note how an intended effect came out; returns when the note is durable."""
        self._journal.append({"type": "done", "id": intent.id, "outcome": outcome, "data": dict(data), "at": now()})

    def commit(self, change: Change) -> None:
        """Make one commit of the attempt; returns when the change is durable, in the journal.

        Git has it at once or, where commits follow each other fast, within a later one's write or at the
        close: many objects written together cost little more than one. Changed resources and new evidence
        are named in trailers, by the change or else here. A change that git could not take is recorded all the
        same: it is kept in the journal, and comes before the next one or, at the latest, at the close. Raises
        ``LeaseLost`` when somebody else moved the attempt or the record.
        """
        files = files_of(change)
        encoded = encode_files(files)
        own = merged([*change.trailers, *implied(change)], self._head.trailers())
        trailers = merged([("Serial", str(self.serial)), *own], ())
        with self._mutex:
            self._journal.append(
                {
                    "type": "change",
                    "number": self._chain.count + len(self._pending),  # of the commit that it becomes, from 0
                    "subject": change.subject,
                    "files": files,
                    "trailers": list(trailers),
                }
            )
            self._effects += 1
            self._pending.append(_Pending(change.subject, encoded, trailers))
            if monotonic() - self._written_at >= self._lag_s or len(self._pending) % _LAG_CHANGES == 0:
                self._follow()

    def replay(self, lines: Sequence[Mapping[str, Json]]) -> None:
        """Commit changes that a crash left in the journal alone."""
        with self._mutex:
            for line in (line for line in lines if line["number"] >= self._chain.count):
                trailers = tuple((key, value) for key, value in line["trailers"])
                self._pending.append(_Pending(line["subject"], encode_files(line["files"]), trailers))
            self._flush()

    def close(
        self,
        outcome: Outcome,
        *,
        subject: str,
        decisions: Json,
        rejections: tuple[Rejection, ...],
        break_glass: tuple[BreakGlass, ...] = (),
        trailers: Sequence[tuple[str, str]] = (),
    ) -> str:
        """Put the attempt into the record as one entry; returns its commit.

        ``rejections`` are all that hold from now on, ``break_glass`` all that are still open. Raises ``LeaseLost``
        when somebody else moved the record, and ``RecordError`` when the remote did not take it; journal and commits
        then stay, for the next command to find.
        """
        if outcome not in get_args(Outcome):
            raise ValueError(f"{outcome!r} is no outcome")
        closing = Closing(outcome, subject, decisions, rejections, break_glass, tuple(trailers))
        decided = encode(decisions_path(self.serial), decisions)
        with self._mutex:
            self._journal.require_open()
            self._flush()
            self._journal.append({**closing.to_json(self._head), "at": now()})
            entry = self._enter(closing, decided)
            if self._shipping:
                self._publish(self._shipping, entry)
            else:
                self._swap(self._closing_edits(entry))
                self._journal.remove()
        upkeep(self._repository, self._head.environment, self.serial, self._chain.count)
        return entry

    def _enter(self, closing: Closing, decided: bytes) -> str:
        """Make the commit of the entry, to which no ref leads yet."""
        head = self._head
        files = {STATE: encode(STATE, closing.state(head).to_json()), decisions_path(self.serial): decided}
        outcome = ("Outcome", closing.outcome)
        own = merged([("Serial", str(self.serial)), ("Action", head.action), outcome, *closing.trailers], ())
        text = compose(closing.subject, merged([*own, *self._chain.gates], head.trailers(action=False)))
        base = self._beginning()
        parents = [base, self._chain.tip] if self._chain.tip else [base]
        with self._building() as tree:
            batch = Batch(self._repository.algorithm)
            entry = self._add(batch, tree, files, parents, text)
            store(self._repository, batch)
        return entry

    def _closing_edits(self, entry: str) -> list[RefEdit]:
        edits = [RefEdit(self._branch, self._branch_at, entry)]
        return [*edits, RefEdit(self._ref, self._chain.tip, "")] if self._chain.tip else edits

    def _publish(self, shipping: Shipping, entry: str) -> None:
        """Have the remote take the entry, then this clone. What it refuses is all here, and tells how it ended."""
        try:
            shipping.close({self._branch: entry})
        except RefMoved as error:
            raise self._moved() from error
        except LeaseLost as error:
            raise LeaseLost(error.summary, detail=self._kept(), hint=error.hint) from error
        except RemoteError as error:
            if not error.passing:
                with suppress(LlmctlError):
                    shipping.flush()  # so that another clone, too, finds how it ended
            again = f"Then run `llmctl apply -e {self._head.environment}` in this clone: it records this one first."
            raise RecordError(
                f"{self._head.action} {self.serial} of {self._head.environment} is over, and could not be recorded: "
                f"{error.summary}",
                detail=f"{error.detail}\n{self._kept()}".strip(),
                hint=f"{error.hint} {again}",
            ) from error
        # The remote has it. What this clone cannot do now, the next command does: it fetches the record, and finds
        # this attempt in it.
        self._journal.close()
        with suppress(RecordError):
            self._repository.git.edit_refs(self._closing_edits(entry))
            self._journal.remove()

    def _kept(self) -> str:
        return f"What was done is in {self._journal.path} and {self._ref} of this clone."

    def abandon(self) -> None:
        """Forget an attempt in which nothing happened; raises ``RecordError`` when something did."""
        with self._mutex:
            if self._effects:
                raise RecordError("an attempt that had effects must be closed, not abandoned")
            if self._shipping:
                self._shipping.close({})
            self._journal.remove()

    def _follow(self) -> None:
        """Bring git up to the journal. Where it cannot now, the change holds still: who was told that it was not
        recorded would take its effect back, and the journal would say that it was made."""
        try:
            self._flush()
        except RecordError:
            self._written_at = monotonic()

    def _flush(self) -> None:
        """Make a commit of each change that waits, and move the attempt's ref to the last one."""
        if not self._pending:
            return
        batch = Batch(self._repository.algorithm)
        tip, gates = self._chain.tip or self._beginning(), self._chain.gates
        with self._building() as tree:
            for change in self._pending:
                tip = self._add(batch, tree, change.files, [tip], compose(change.subject, change.trailers))
                gates = (*gates, *claims(change.trailers))
            store(self._repository, batch)
            unmoved = RefEdit(self._branch, self._branch_at, self._branch_at)
            self._swap([RefEdit(self._ref, self._chain.tip, tip), unmoved])
        count = self._chain.count + len(self._pending)
        self._chain = replace(self._chain, tip=tip, count=count, gates=tuple(dict.fromkeys(gates)))
        self._pending.clear()
        self._written_at = monotonic()

    def _beginning(self) -> str:
        """The entry before this one. A record that has none begins with an empty commit, so that also its
        first entry has a first parent and its changes lie behind the second."""
        if not self._head.base and not self._chain.first:
            text = compose(f"Begin the record of {self._head.environment}", [("Serial", "0")])
            batch = Batch(self._repository.algorithm)
            first = add_commit(self._repository, batch, Tree().write(batch), [], text)
            store(self._repository, batch)
            self._chain = replace(self._chain, first=first)
        return self._head.base or self._chain.first

    @contextmanager
    def _building(self) -> Iterator[Tree]:
        """The tree of the chain's tip, to be changed. What git did not take must not stay in it."""
        start = self._chain.tip or self._head.base
        tree = self._tree or Tree(list_files(self._repository, start) if start else None)
        self._tree = None
        yield tree
        self._tree = tree

    def _add(
        self, batch: Batch, tree: Tree, files: Mapping[str, bytes | None], parents: Sequence[str], message: str
    ) -> str:
        for path, data in files.items():
            if data is None:
                tree.remove(path)
            else:
                tree.put(path, batch.add("blob", data))
        return add_commit(self._repository, batch, tree.write(batch), parents, message)

    def _swap(self, edits: Sequence[RefEdit]) -> None:
        try:
            self._repository.git.edit_refs(edits)
        except RefMoved as error:
            raise self._moved() from error

    def _moved(self) -> LeaseLost:
        found = self._repository.git.resolve(self._branch)
        return LeaseLost(
            f"the record of {self._head.environment} was changed by somebody else while this command worked",
            detail=f"It was at {self._head.base[:12] or 'nothing'} and is at {found[:12] or 'nothing'}. "
            f"What was done so far is in {self._journal.path} and {self._ref}.",
            hint="Look at `llmctl audit log` for who did it, and at `llmctl drift` for what is really there.",
        )


def _require_room(repository: Repository, environment: str, state: RecordState, lock: HeldLock | None) -> None:
    """Raise for everything that would later keep the attempt out of the record, before any effect is made."""
    require_lock(repository, lock)
    repository.require_identity()
    repository.require_not_checked_out(environment)
    require_signing(repository)
    serial = state.serial + 1
    ref = side_ref(environment, f"attempt/{serial}")
    if repository.git.resolve(ref) or (lock and lock.there(ref)):
        raise RecordError(
            f"attempt {serial} of {environment} was never closed",
            hint="Run `llmctl apply`, it closes that one first.",
        )
    if Reader(repository, environment).head() != state.head:
        raise LeaseLost(
            f"the record of {environment} moved after it was read",
            hint="Run the command again; it plans anew on what is recorded now.",
        )
    local = repository.git.resolve(branch(environment))
    repository.git.edit_refs([RefEdit(branch(environment), local, local)])  # takes the ref's lock, so it can be written


def _ship(repository: Repository, head: Head, journal: JournalFile, lock: HeldLock | None) -> Shipping | None:
    """Begin the attempt on the remote too. A record that was never pushed is so with its next attempt."""
    if not repository.remote or not lock:
        return None
    shipping = ship(repository, head, lock)
    shipping.add(journal_bytes(journal.path))
    journal.tell(shipping.add)
    unpublished = head.base and not shipping.there(branch(head.environment))
    shipping.publish({branch(head.environment): head.base} if unpublished else {})
    return shipping
