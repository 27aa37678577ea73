"""The lock of an environment: a ref that is made, renewed, taken over and deleted by compare-and-swap.

The holder renews a lease. Who finds the lease over, or the holder's process gone from this machine, takes
the lock over with a higher fencing token. The holder that was overtaken sees it before its next effect.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from llmctl.core.errors import LeaseLost, Locked, RecordError
from llmctl.record.git import RefEdit, RefMoved
from llmctl.record.objects import now, read_objects
from llmctl.record.reader import Reader
from llmctl.record.repository import Repository, side_ref
from llmctl.record.writing import Batch, store

if TYPE_CHECKING:
    import psutil

LEASE_S = 30.0
RENEW_S = 10.0
_REREAD_S = 1.0
_GIT_S = 1.0  # the least that a git command is given, whatever the lease
_TRIES = 5
_SAME_START_S = 2.0  # the boot's time, which start times are counted from, is rounded


@dataclass(frozen=True, slots=True)
class LockInfo:
    """What the lock says of its holder. ``lease_until`` is in seconds since 1970, ``pid_started`` since the boot."""

    holder: str
    host: str
    boot: str  # boot of the machine and process namespace: pids mean the same only within it
    pid: int
    pid_started: float
    command: str
    started_at: str
    lease_until: float
    fence: int
    nonce: str  # two writers must never make the same object, or both would believe to have won

    @property
    def lapsed(self) -> bool:
        """Whether the lease is over by this machine's clock."""
        return time.time() >= self.lease_until

    @property
    def abandoned(self) -> bool:
        """Whether anybody may take the lock over: its lease is over, or its process is gone from this machine."""
        if self.lapsed:
            return True
        # A pid says something only on the same boot of the same machine; elsewhere the lease alone counts.
        return self.host == socket.gethostname() and self.boot == _boot() and not _alive(self)

    def describe(self) -> str:
        """One line for people."""
        return f"{self.holder} on {self.host}, pid {self.pid}, `{self.command}`, since {self.started_at}"


class HeldLock:
    """The lock while we hold it: renewed in the background, to be checked before every effect."""

    def __init__(self, repository: Repository, ref: str, info: LockInfo, blob: str, lease: tuple[float, float]) -> None:
        self._repository = repository
        # A git that hangs must not hold up check(): then the lease ends by its own clock.
        self._limited = repository.limited(max(_GIT_S, lease[1] / 2))
        self._ref = ref
        self._info = info
        self._blob = blob
        self._lease_s, self._renew_s = lease
        self._mutex = threading.Lock()
        self._lost = ""
        self._lapses = time.monotonic() + self._lease_s
        self._read_again = time.monotonic() + _REREAD_S
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="llmctl-lock", daemon=True)
        self._thread.start()

    @property
    def fence(self) -> int:
        """The fencing token: higher than that of every holder before."""
        return self._info.fence

    def check(self) -> None:
        """Raise ``LeaseLost`` when the lock is no longer ours; reads the ref at most once a second."""
        with self._mutex:
            self._look_at_clocks()
            if not self._lost and time.monotonic() >= self._read_again:
                self._look_at_ref()
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
                self._lost = "another command took it over"
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
        with self._mutex:
            if self._blob:
                blob, self._blob = self._blob, ""
                self._lost = self._lost or "it was released"
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
        while not self._stop.wait(self._renew_s):
            with self._mutex:
                if self._lost:
                    return
                try:
                    self._renew()
                except RefMoved:
                    self._lost = "another command took it over"
                except RecordError:
                    continue  # a full disk may pass; if not, check() finds the lease over

    def _renew(self) -> None:
        lapses = time.monotonic() + self._lease_s  # counted from before the write, to be on the safe side
        info = replace(self._info, lease_until=time.time() + self._lease_s, nonce=uuid.uuid4().hex)
        self._blob = _write(self._limited, self._ref, self._blob, info)
        self._info, self._lapses = info, lapses


class Lock:
    """The lock of one environment. ``lease_s`` and ``renew_s`` are in seconds."""

    def __init__(
        self, repository: Repository, environment: str, *, lease_s: float = LEASE_S, renew_s: float = RENEW_S
    ) -> None:
        self._repository = repository
        self._environment = environment
        self._ref = side_ref(environment, "lock")
        self._lease = (lease_s, renew_s)

    def peek(self) -> LockInfo | None:
        """Who holds the lock, or held it until its lease was over; ``None`` when nobody does."""
        return self._read()[1]

    def acquire(self, command: str, *, at_least: int = 0) -> HeldLock:
        """Take the lock for ``command``, which is shown to others.

        The fencing token is higher than any that the record or the lock knows, and than ``at_least``.
        Raises ``Locked`` with the holder's name when somebody else has it.
        """
        for _ in range(_TRIES):
            blob, info = self._read()
            if info and not info.abandoned:
                raise self._locked(info)
            recorded = Reader(self._repository, self._environment).summary()
            fence = 1 + max(at_least, recorded.fence if recorded else 0, info.fence if info else 0)
            mine = _describe_us(self._repository.actor(), command, fence, self._lease[0])
            try:
                written = _write(self._repository, self._ref, blob, mine)
            except RefMoved:
                continue
            return HeldLock(self._repository, self._ref, mine, written, self._lease)
        raise Locked(f"the lock of {self._environment} changes hands too fast", hint="Run the command again.")

    def force_expire(self) -> LockInfo | None:
        """End the lease of whoever holds the lock, who sees it before the next effect; returns what it said.

        The ref stays, so that the next holder's fencing token is higher than the present one's.
        """
        blob, info = self._read()
        if info:
            _write(self._repository, self._ref, blob, replace(info, lease_until=0.0, nonce=uuid.uuid4().hex))
        return info

    def _read(self) -> tuple[str, LockInfo | None]:
        blob = self._repository.git.resolve(self._ref)
        if not blob:
            return "", None
        data = next(read_objects(self._repository, [blob])).data
        try:
            said = json.loads(data)
            return blob, LockInfo(**{field.name: said[field.name] for field in fields(LockInfo)})
        except (ValueError, TypeError, KeyError) as error:
            raise RecordError(
                f"the lock of {self._environment} cannot be read",
                detail=str(error),
                hint=f"When no llmctl runs, remove it: `git update-ref -d {self._ref}`.",
            ) from error

    def _locked(self, info: LockInfo) -> Locked:
        left = max(1, round(info.lease_until - time.time()))
        return Locked(
            f"{self._environment} is locked by {info.describe()}",
            detail=f"The lease lasts {left} s more and is renewed as long as that command runs.",
            hint=f"Wait for it; if it hangs, end its lease with `llmctl unlock --force -e {self._environment}`.",
        )


def _write(repository: Repository, ref: str, old: str, info: LockInfo) -> str:
    """Swap the lock from ``old`` ("" for none) to ``info``; raises ``RefMoved`` when it is no longer ``old``."""
    batch = Batch(repository.algorithm)
    blob = batch.add("blob", json.dumps(asdict(info), sort_keys=True, ensure_ascii=False).encode())
    store(repository, batch)
    repository.git.edit_refs([RefEdit(ref, old, blob)])
    return blob


def _describe_us(holder: str, command: str, fence: int, lease_s: float) -> LockInfo:
    import psutil

    return LockInfo(
        holder=holder,
        host=socket.gethostname(),
        boot=_boot(),
        pid=os.getpid(),
        pid_started=_started(psutil.Process()),
        command=command,
        started_at=now(),
        lease_until=time.time() + lease_s,
        fence=fence,
        nonce=uuid.uuid4().hex,
    )


def _alive(info: LockInfo) -> bool:
    import psutil

    try:
        process = psutil.Process(info.pid)
        same = abs(_started(process) - info.pid_started) < _SAME_START_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _started(process: psutil.Process) -> float:
    """When a process started, in seconds since the boot: as seconds since 1970 it moves when the clock is set."""
    import psutil

    return process.create_time() - psutil.boot_time()


def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        import psutil

        return str(int(psutil.boot_time()))
