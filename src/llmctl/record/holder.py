"""Who holds a lock: what its blob says, and whether that process is still there."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.record.objects import now

if TYPE_CHECKING:
    import psutil

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
    grace_s: float = 0.0  # for so long after the lease other machines wait, because clocks differ
    lease_s: float = 0.0  # for how long the lease was when this was written, 0 where that is not known

    @property
    def lapsed(self) -> bool:
        """Whether the lease is over by this machine's clock."""
        return time.time() >= self.lease_until

    @property
    def abandoned(self) -> bool:
        """Whether anybody may take the lock over: its lease is over, or its process is gone from this machine."""
        # A pid says something only on the same boot of the same machine; elsewhere the lease alone counts.
        if self.host == socket.gethostname() and self.boot == _boot():
            return self.lapsed or not _alive(self)
        return time.time() >= self.lease_until + self.grace_s

    @property
    def is_ours(self) -> bool:
        """Whether this very process holds the lock."""
        return (self.host, self.boot, self.pid) == (socket.gethostname(), _boot(), os.getpid()) and _alive(self)

    def describe(self) -> str:
        """One line for people."""
        return f"{self.holder} on {self.host}, pid {self.pid}, `{self.command}`, since {self.started_at}"

    def age(self) -> str:
        """For how long it is held, by this machine's clock, for people: ``held for 4 min``."""
        try:
            held_s = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(self.started_at)).total_seconds())
        except (ValueError, TypeError):
            return "held for an unknown time"
        for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
            if held_s >= seconds:
                return f"held for {held_s // seconds:.0f} {unit}"
        return f"held for {held_s:.0f} s"

    def encoded(self) -> bytes:
        """What the lock's blob holds; ``decode`` reads it back."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def decode(cls, data: bytes) -> LockInfo:
        """Read a lock's blob; raises ``ValueError``, ``TypeError`` or ``KeyError`` for what is none."""
        said = {"grace_s": 0.0, "lease_s": 0.0} | json.loads(data)
        return cls(**{field.name: said[field.name] for field in fields(cls)})

    def renewed(self, lease_s: float) -> LockInfo:
        """The same lock with a lease of so many seconds from now; 0 ends it."""
        until = time.time() + lease_s if lease_s else 0.0
        return replace(self, lease_until=until, lease_s=lease_s, nonce=uuid.uuid4().hex)


def this_process(holder: str, command: str, fence: int, lease_s: float, grace_s: float) -> LockInfo:
    """A lock of this process, from now on."""
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
        grace_s=grace_s,
        lease_s=lease_s,
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
