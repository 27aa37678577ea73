"""The lock of an environment: a ref that is made, renewed, taken over and deleted by compare-and-swap.

The holder renews a lease. Who finds the lease over, or the holder's process gone from this machine, takes
the lock over with a higher fencing token. The holder that was overtaken sees it before its next effect.

Where the record is on a remote, the ref here keeps the commands of one clone apart, and the remote's all others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from llmctl.core.errors import LeaseLost, LlmctlError, Locked, RecordError
from llmctl.record.git import RefEdit, RefMoved
from llmctl.record.holder import LockInfo, this_process
from llmctl.record.journal import highest_fence
from llmctl.record.objects import read_objects
from llmctl.record.reader import Reader
from llmctl.record.remote import PATIENCE, Hold, Remote, RemoteMoved
from llmctl.record.repository import Repository, branch, remote_side_ref, side_ref, side_refs
from llmctl.record.shipping import fence_of
from llmctl.record.writing import Batch, store

LEASE_S = 30.0
RENEW_S = 10.0
# Longer on a remote, where a renewal is a push: one of them may fail, or take its time, and the next is still in time.
REMOTE_LEASE_S = 60.0
REMOTE_RENEW_S = 20.0
SKEW_S = 30.0  # by so much the clocks of two machines that keep time by NTP never differ
_REREAD_S = 1.0
_GIT_S = 1.0  # the least that a git command is given, whatever the lease
_TRIES = 5
_LOST = "another command took it over"


class HeldLock:
    """The lock while we hold it: renewed in the background, to be checked before every effect."""

    def __init__(
        self,
        repository: Repository,
        ref: str,
        info: LockInfo,
        blob: str,
        lease: tuple[float, float],
        hold: Hold | None = None,
    ) -> None:
        self._repository = repository
        # A git that hangs must not hold up check(): then the lease ends by its own clock.
        self._limited = repository.limited(max(_GIT_S, lease[1] / 2))
        self._ref = ref
        self._info = info
        self._blob = blob
        self._lease_s, self._renew_s = lease
        self._hold = hold
        self._renewal: Callable[[], None] = self.push
        self._swapping = threading.Lock()  # held while the lock is renewed, which on a remote takes its time
        self._mutex = threading.Lock()
        self._lost = ""
        self._lapses = time.monotonic() + info.lease_until - time.time()
        self._read_again = time.monotonic() + _REREAD_S
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="llmctl-lock", daemon=True)
        self._thread.start()

    @property
    def fence(self) -> int:
        """The fencing token: higher than that of every holder before."""
        return self._info.fence

    @property
    def remote(self) -> Remote | None:
        """The remote that has the lock too."""
        return self._hold.remote if self._hold else None

    def there(self, ref: str) -> str:
        """What a ref is on the remote, "" for none."""
        return self._hold.value(ref) if self._hold else ""

    def check(self) -> None:
        """Raise ``LeaseLost`` when the lock is no longer ours; reads the ref at most once a second."""
        with self._mutex:
            self._look_at_clocks()
            if not self._lost and time.monotonic() >= self._read_again:
                self._look_at_ref()
            self._require()

    def push(self, wanted: Mapping[str, str] | None = None, patience: Sequence[float] = ()) -> None:
        """Renew the lease and, on the remote in the same transaction, give refs these values; "" deletes one.

        It is tried again after so many seconds each of ``patience`` where that may help. Raises ``LeaseLost`` when
        the lock is no longer ours, ``RefMoved`` when another one of the refs is not what was expected, and
        ``RecordError`` when git or the remote cannot do it.
        """
        with self._swapping:
            with self._mutex:
                self._require()
            lapses = time.monotonic() + self._lease_s  # counted from before the write, to be on the safe side
            info = self._info.renewed(self._lease_s)
            try:
                blob = _write(self._limited, info)
                if self._hold:
                    self._hold.push({**(wanted or {}), self._ref: blob}, patience, self._lapses)
                with self._mutex:
                    self._require()
                    self._limited.git.edit_refs([RefEdit(self._ref, self._blob, blob)])
                    self._blob, self._info, self._lapses = blob, info, lapses
            except RefMoved as moved:
                if self._hold and isinstance(moved, RemoteMoved) and not self._hold.lost(moved):
                    raise
                with self._mutex:
                    self._lost = self._lost or _LOST
                    self._require()

    def renew_with(self, renewal: Callable[[], None]) -> None:
        """Renew in the background by calling this, which calls ``push``: what waits can go along."""
        self._renewal = renewal

    def _require(self) -> None:
        if self._lost:
            raise LeaseLost(
                f"the lock was lost: {self._lost}",
                hint="Nothing more was done. Look at `llmctl status`, then run the command again.",
            )

    def _look_at_clocks(self) -> None:
        # Both: the monotonic one stands still while a laptop sleeps, the other one can be set.
        if not self._lost and (time.monotonic() >= self._lapses or self._info.lapsed):
            self._lost = "its lease was over before it could be renewed"

    def _look_at_ref(self) -> None:
        present = time.monotonic()
        try:
            if self._limited.git.resolve(self._ref) != self._blob:
                self._lost = _LOST
        except RecordError:
            self._look_at_clocks()
            if not self._lost:
                raise
        self._look_at_clocks()  # git may have taken its time
        self._read_again = present + _REREAD_S

    def release(self) -> None:
        """Give the lock back; one that was lost is left to whom it belongs."""
        self._stop.set()
        self._thread.join()
        with self._swapping, self._mutex:
            if not self._blob:
                return
            blob, self._blob = self._blob, ""
            self._lost = self._lost or "it was released"
            try:
                if self._hold:
                    self._hold.push({self._ref: ""}, PATIENCE[:2], self._lapses)
                    self._hold.remote.noted({self._ref: ""})
            except RecordError:
                pass  # it ends with its lease, and on this machine with this process
            try:
                self._repository.git.edit_refs([RefEdit(self._ref, blob, "")])
            except RefMoved:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _keep(self) -> None:
        pause = self._renew_s
        while not self._stop.wait(pause):
            pause = self._renew_s
            try:
                self._renewal()
            except RecordError:
                pause = self._renew_s / 4  # a full disk may pass; if not, check() finds the lease over
            except LlmctlError:
                return  # it is lost, as check() says


class Lock:
    """The lock of one environment. ``lease_s`` and ``renew_s`` are in seconds; a remote has longer ones."""

    def __init__(
        self,
        repository: Repository,
        environment: str,
        *,
        lease_s: float | None = None,
        renew_s: float | None = None,
        skew_s: float = SKEW_S,
    ) -> None:
        self._repository = repository
        self._environment = environment
        self._ref = side_ref(environment, "lock")
        self._remote = Remote(repository, environment) if repository.remote else None
        lease, renew = (REMOTE_LEASE_S, REMOTE_RENEW_S) if self._remote else (LEASE_S, RENEW_S)
        self._lease = (lease if lease_s is None else lease_s, renew if renew_s is None else renew_s)
        self._grace_s = skew_s if self._remote else 0.0

    def peek(self, refs: Mapping[str, str] | None = None) -> LockInfo | None:
        """Who holds the lock, or held it until its lease was over; ``None`` when nobody does.

        Of the remote's lock it is what was fetched last. ``refs`` are those of ``side_refs``, when they were read.
        """
        found = [info for _, info in self._read(refs) if info]
        return next((info for info in found if not info.abandoned), found[0] if found else None)

    def acquire(self, command: str, *, at_least: int = 0) -> HeldLock:
        """Take the lock for ``command``, which is shown to others.

        The fencing token is higher than any that the record, the lock or an open attempt knows, and than
        ``at_least``. Where the record is on a remote, it is fetched once the lock is ours.
        Raises ``Locked`` with the holder's name when somebody else has it.
        """
        for tried in range(_TRIES):
            if self._remote and tried:
                self._remote.fetch()
            (there, theirs), (here, ours) = self._read()
            if ours and not ours.abandoned:
                raise self._locked(ours)
            if theirs and not theirs.abandoned:
                if not tried:
                    continue  # it is what was fetched some time ago
                raise self._locked(theirs)
            at_least = max(at_least, self._known_fence(), *(info.fence for info in (ours, theirs) if info))
            mine = this_process(self._repository.actor(), command, at_least + 1, self._lease[0], self._grace_s)
            if held := self._take(here, there, mine):
                return held
        raise Locked(f"the lock of {self._environment} changes hands too fast", hint="Run the command again.")

    def _take(self, here: str, there: str, mine: LockInfo) -> HeldLock | None:
        """Swap the lock here, then on the remote, to ours; ``None`` when somebody was faster."""
        blob = _write(self._repository, mine)
        try:
            self._repository.git.edit_refs([RefEdit(self._ref, here, blob)])
        except RefMoved:
            return None
        if not self._remote:
            return HeldLock(self._repository, self._ref, mine, blob, self._lease)
        try:
            self._remote.push([RefEdit(self._ref, there, blob)], PATIENCE)
        except RecordError as error:
            self._repository.git.edit_refs([RefEdit(self._ref, blob, "")])
            if isinstance(error, RefMoved):
                return None
            raise
        hold = Hold(self._remote, self._ref, {self._ref: blob})
        held = HeldLock(self._repository, self._ref, mine, blob, self._lease, hold)
        try:
            self._remote.sync()
            hold.know({**self._attempts(), branch(self._environment): self._remote.head})
            if self._known_fence() < mine.fence:
                return held
        except BaseException:
            held.release()
            raise
        held.release()  # the record has moved on since it was read here, with a higher fence than was known
        return None

    def force_expire(self) -> LockInfo | None:
        """End the lease of whoever holds the lock, who sees it before the next effect; returns what it said.

        The ref stays, so that the next holder's fencing token is higher than the present one's.
        """
        info = self.peek()
        for tried in range(_TRIES):
            if self._remote and tried:
                self._remote.fetch()  # it was renewed in between
            (there, theirs), (here, ours) = self._read()
            try:
                if self._remote and theirs:
                    self._remote.push([RefEdit(self._ref, there, _write(self._repository, theirs.renewed(0)))])
                if ours:
                    expired = _write(self._repository, ours.renewed(0))
                    self._repository.git.edit_refs([RefEdit(self._ref, here, expired)])
            except RefMoved:
                continue
            return info
        raise RecordError(f"the lock of {self._environment} changes too fast", hint="Run the command again.")

    def _known_fence(self) -> int:
        recorded = Reader(self._repository, self._environment).summary()
        fence = max(recorded.fence if recorded else 0, highest_fence(self._repository.private_dir(self._environment)))
        return max(fence, *(fence_of(self._repository, tip) for tip in self._attempts().values()), 0)

    def _attempts(self) -> dict[str, str]:
        """The attempts on the remote as they were fetched last, by the names that their refs have there."""
        if not self._remote:
            return {}
        prefix = remote_side_ref(self._environment, self._remote.name, "attempt/")
        refs = side_refs(self._repository, self._environment)
        own = side_ref(self._environment, "attempt/")
        return {own + ref.removeprefix(prefix): tip for ref, tip in refs.items() if ref.startswith(prefix)}

    def _read(self, refs: Mapping[str, str] | None = None) -> tuple[tuple[str, LockInfo | None], ...]:
        """Blob and content of the remote's lock and of the one here; "" and ``None`` for none."""
        resolve = self._repository.git.resolve if refs is None else lambda ref: refs.get(ref, "")
        theirs = ""
        if self._remote:
            theirs = resolve(remote_side_ref(self._environment, self._remote.name, "lock"))
        return self._decoded(theirs), self._decoded(resolve(self._ref))

    def _decoded(self, blob: str) -> tuple[str, LockInfo | None]:
        if not blob:
            return "", None
        there = f" and `git push {self._remote.name} :{self._ref}`" if self._remote else ""
        data = next(read_objects(self._repository, [blob])).data
        try:
            return blob, LockInfo.decode(data)
        except (ValueError, TypeError, KeyError) as error:
            raise RecordError(
                f"the lock of {self._environment} cannot be read",
                detail=str(error),
                hint=f"When no llmctl runs, remove it: `git update-ref -d {self._ref}`{there}.",
            ) from error

    def _locked(self, info: LockInfo) -> Locked:
        left = max(1, round(info.lease_until - time.time()))
        return Locked(
            f"{self._environment} is locked by {info.describe()}",
            detail=f"It is {info.age()}. The lease lasts {left} s more and is renewed as long as that command runs.",
            hint=f"Wait for it; if it hangs, end its lease with `llmctl unlock --force -e {self._environment}`.",
        )


def _write(repository: Repository, info: LockInfo) -> str:
    """Store the blob of a lock; returns its id."""
    batch = Batch(repository.algorithm)
    blob = batch.add("blob", info.encoded())
    store(repository, batch)
    return blob
