"""The protocols on which every target, and later every plug-in, is built.

Four are frozen early because all later work hangs on them: ``Provider``, ``ArtifactStore``,
``GatewayControl`` and ``Journal``. Everything that only some kinds can do is a capability of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Protocol, TypeVar, runtime_checkable

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.errors import Interrupted, ProviderError
from llmctl.core.evidence import Evidence
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.resources import Key, Live, Reading, Recorded
from llmctl.core.secrets import Secret

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Op:
    """The circumstances of one effect.

    ``deadline_s`` is in seconds of ``time.monotonic``. ``check_lease`` raises ``LeaseLost`` when the lock
    is no longer ours; call ``guard()`` before every effect, it checks that, the deadline and Ctrl-C.
    """

    idempotency_key: str
    deadline_s: float
    cancelled: Event = field(default_factory=Event)
    progress: Callable[[str], None] = lambda _: None
    check_lease: Callable[[], None] = lambda: None
    serial: int = 0
    fence: int = 0

    def guard(self) -> None:
        """Raise unless the effect may still be made."""
        if self.cancelled.is_set():
            raise Interrupted("interrupted")
        if monotonic() > self.deadline_s:
            raise ProviderError("the time allowed for this step is over", hint="Look at `llmctl logs` for the reason.")
        self.check_lease()


class Provider(Protocol[S]):
    """One kind on one target. Two revisions of a name may be live at once, under different keys.

    ``read_all`` never leaves out what it cannot read: *unreadable is never absent*. ``create`` of what is
    already there exactly so adopts it; ``delete`` of what is already gone is done. ``update`` and ``delete``
    refuse with ``Conflict`` when what is live is no longer ``was``.
    """

    def read_all(self) -> Reading[S]: ...

    def create(self, op: Op, key: Key, want: S) -> Live[S]: ...

    def update(self, op: Op, key: Key, was: Live[S], want: S) -> Live[S]: ...

    def delete(self, op: Op, key: Key, was: Live[S]) -> None: ...


class ArtifactStore(Protocol):
    """Immutable content by digest (``sha256:…``): weights, datasets, prompts, per-sample rows."""

    def put_file(self, source: Path, digest: str) -> None:
        """Store a file; raises ``ProviderError`` when its content is not what ``digest`` says."""

    def put_bytes(self, data: bytes) -> str:
        """Store bytes and return their digest."""
        ...

    def has(self, digest: str) -> bool: ...

    def path(self, digest: str) -> Path:
        """A local, read-only path of the content; raises ``ProviderError`` when it is missing."""
        ...

    def list(self) -> frozenset[str]:
        """All digests in the store."""
        ...

    def delete(self, digest: str) -> None: ...


@dataclass(frozen=True, slots=True)
class GatewayReading:
    """What the gateway's replicas really serve; ``running`` is false when it is known to be down."""

    running: bool
    configs: Mapping[str, GatewayConfig] = field(default_factory=dict)  # replica: what it serves
    unreadable: str = ""  # why it could not be read; never means absent
    base_url: str = ""  # for clients, without /v1
    version: str = field(default="", compare=False)  # of the llmctl whose program it is; "" when it does not say


@dataclass(frozen=True, slots=True)
class GateAccess:
    """How a gate reaches staged revisions: the gateway's address and the gate's token."""

    base_url: str
    token: Secret


class GatewayControl(Protocol):
    """Publishes configurations to the gateway and reads back what every replica serves."""

    def read(self) -> GatewayReading: ...

    def publish(self, op: Op, config: GatewayConfig, expected: str) -> GatewayReading:
        """Swap to ``config`` if the gateway still serves revision ``expected`` ("" for an empty one).

        Returns only when every replica reads back ``config``; raises ``Conflict`` when another
        configuration is there or a higher fence was seen.
        """
        ...

    def gate_access(self) -> GateAccess: ...


@dataclass(frozen=True, slots=True)
class Intent:
    """An effect that is about to be made, or was made, as the journal remembers it."""

    id: str
    step: str
    effect: str
    data: Mapping[str, Json] = field(default_factory=dict)


class Journal(Protocol):
    """Remembers every effect before it is made and its outcome after, so that a crash loses nothing.

    ``intend`` returns only when the intent is durable, and where the record is shared, on its remote. With
    ``share=False`` it is durable on this machine alone: for many at once, followed by one ``share`` before the first
    effect. ``commit`` puts the outcome of a step into the attempt: changed resources, evidence, and the text of the
    change.
    """

    def intend(self, step: str, effect: str, data: Mapping[str, Json], *, share: bool = True) -> Intent: ...

    def share(self) -> None: ...

    def done(self, intent: Intent, outcome: str, data: Mapping[str, Json]) -> None: ...

    def commit(self, change: Change) -> None: ...


@dataclass(frozen=True, slots=True)
class Change:
    """One commit of an attempt: what one step did.

    ``resources`` maps addresses to what is recorded of them from now on, ``None`` deletes. ``trailers``
    become ``Llmctl-…`` lines, in order. A change may be empty: it then only says that something was done.
    ``removes`` are paths of evidence that nothing needs any more, which only the history keeps from now on.
    """

    subject: str
    resources: Mapping[Address, Recorded | None] = field(default_factory=dict)
    evidence: Sequence[Evidence] = ()
    trailers: Sequence[tuple[str, str]] = ()
    removes: Sequence[str] = ()


@runtime_checkable
class Drains(Protocol):
    """Capability of a gateway: how many requests are in flight to an endpoint revision, over all replicas."""

    def in_flight(self, endpoint: Key) -> int: ...


@runtime_checkable
class HasLogs(Protocol):
    """Capability: a provider that has log files for a key."""

    def log_paths(self, name: str) -> Mapping[Key, Path]: ...


class Target(Protocol):
    """Where an environment runs: its providers by kind, artifact store and gateway."""

    @property
    def providers(self) -> Mapping[str, Provider[Json]]: ...

    @property
    def artifacts(self) -> ArtifactStore: ...

    @property
    def gateway(self) -> GatewayControl: ...

    def start(self, op: Op) -> None:
        """Make the target ready for effects (for ``local``: process manager and gateway run)."""

    def destroy(self, op: Op) -> None:
        """Take away all that the target itself made: processes, sockets, files."""
