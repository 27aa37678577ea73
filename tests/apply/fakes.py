"""A target in memory and a journal that remembers, for the engine's own behaviour.

Real processes, real git and real HTTP are in ``tests/e2e``; here the order of effects matters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock, Thread, current_thread
from time import monotonic
from typing import Any

from llmctl.apply import Clock
from llmctl.core.digests import Json
from llmctl.core.errors import Conflict, LlmctlError, ProviderError
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import ArtifactStore, Change, GateAccess, GatewayReading, Intent, Op
from llmctl.core.resources import ALL, Key, Live, Reading
from llmctl.core.secrets import Secret


@dataclass
class MemoryProvider:
    """Keeps what it is told. ``trouble`` raises where a test wants it to, ``answer`` gives another answer."""

    kind: str
    found: dict[Key, Live[Json]] = field(default_factory=dict)
    trouble: Callable[[str, Key], LlmctlError | None] = lambda verb, key: None  # noqa: ARG005
    answer: Callable[[str, Any], Any] = lambda verb, made: made  # noqa: ARG005
    revision_of: Callable[[Key, Json], str] = lambda key, want: key.revision  # noqa: ARG005
    calls: list[tuple[str, str]] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    mutex: Lock = field(default_factory=Lock)

    def _called(self, verb: str, key: Key, op: Op | None = None) -> None:
        with self.mutex:
            self.calls.append((verb, str(key)))
            if op is not None:
                self.ops.append(op)
        error = self.trouble(verb, key)
        if error is not None:
            raise error

    def _made(self, verb: str, live: Live[Json]) -> Live[Json]:
        with self.mutex:
            self.found[live.key] = live
        made: Live[Json] = self.answer(verb, live)
        return made

    def _unmoved(self, key: Key, was: Live[Json]) -> Live[Json] | None:
        now = self.found.get(key)
        if now is not None and (now.state, now.revision) != (was.state, was.revision):
            raise Conflict(f"{key} is no longer what was read")
        return now

    def read_all(self) -> Reading[Json]:
        error = self.trouble("read", ALL)
        if error is not None:
            raise error
        with self.mutex:
            reading: Reading[Json] = self.answer("read", Reading(dict(self.found)))
        return reading

    def create(self, op: Op, key: Key, want: Json) -> Live[Json]:
        op.guard()
        self._called("create", key, op)
        outputs = {"base_url": f"http://{key}/v1", "model": str(key), "secret": ""}
        return self._made("create", Live[Json](key, want, self.revision_of(key, want), outputs=outputs))

    def update(self, op: Op, key: Key, was: Live[Json], want: Json) -> Live[Json]:
        op.guard()
        self._called("update", key, op)
        now = self._unmoved(key, was)
        if now is None:
            raise Conflict(f"{key} is gone")
        return self._made("update", replace(now, state=want, revision=self.revision_of(key, want)))

    def delete(self, op: Op, key: Key, was: Live[Json]) -> None:
        op.guard()
        self._called("delete", key, op)
        self._unmoved(key, was)
        with self.mutex:
            self.found.pop(key, None)


@dataclass
class MemoryGateway:
    """Serves what was published last; counts configurations in ``history``."""

    config: GatewayConfig = field(default_factory=lambda: GatewayConfig("dev"))
    history: list[GatewayConfig] = field(default_factory=list)
    conflicts: int = 0
    trouble: Callable[[GatewayConfig], LlmctlError | None] = lambda config: None  # noqa: ARG005
    answer: Callable[[GatewayReading], Any] = lambda reading: reading
    access: GateAccess = field(default_factory=lambda: GateAccess("http://127.0.0.1:1", Secret("token")))

    def read(self) -> GatewayReading:
        reading: GatewayReading = self.answer(
            GatewayReading(True, {"local": self.config}, base_url="http://127.0.0.1:1")
        )
        return reading

    def publish(self, op: Op, config: GatewayConfig, expected: str) -> GatewayReading:
        op.guard()
        error = self.trouble(config)
        if error is not None:
            raise error
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("somebody else published")
        if expected != self.config.revision:
            raise Conflict("not what was read")
        self.config = config
        self.history.append(config)
        return self.read()

    def gate_access(self) -> GateAccess:
        return self.access


@dataclass
class BusyGateway(MemoryGateway):
    """Always has a request in flight to every endpoint."""

    def in_flight(self, endpoint: Key) -> int:
        return 1 if endpoint.name else 0


class NoArtifacts:
    """An artifact store that holds nothing: these tests run no gate."""

    def put_file(self, source: Path, digest: str) -> None:
        raise ProviderError(f"unexpected {source} {digest}")

    def put_bytes(self, data: bytes) -> str:
        raise ProviderError(f"unexpected {len(data)}")

    def has(self, digest: str) -> bool:
        return not digest

    def path(self, digest: str) -> Path:
        raise ProviderError(f"missing {digest}")

    def list(self) -> frozenset[str]:
        return frozenset()

    def delete(self, digest: str) -> None:
        raise ProviderError(f"unexpected {digest}")


@dataclass
class MemoryTarget:
    providers: Mapping[str, MemoryProvider] = field(
        default_factory=lambda: {k: MemoryProvider(k) for k in ("dataset", "model", "prompt", "endpoint")}
    )
    artifacts: ArtifactStore = field(default_factory=NoArtifacts)
    gateway: MemoryGateway = field(default_factory=MemoryGateway)

    def start(self, op: Op) -> None:
        op.guard()

    def destroy(self, op: Op) -> None:
        op.guard()


@dataclass
class FakeClock(Clock):
    """Stands still but for pauses, which pass at once. ``during`` is told of each, and may cancel it."""

    passed: float = 0.0
    pauses: list[float] = field(default_factory=list)
    during: Callable[[float], None] = lambda seconds: None  # noqa: ARG005
    start: float = field(default_factory=monotonic)
    released: Event = field(default_factory=Event)
    _hanging: set[Thread] = field(default_factory=set)

    def now(self) -> float:
        return self.start + self.passed

    def wall(self) -> float:
        return 1_000_000.0 + self.passed

    def chance(self) -> float:
        return 1.0

    def pause(self, cancelled: Event, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.during(seconds)
        if not cancelled.is_set():
            self.passed += seconds
        return cancelled.is_set()

    def await_end(self, thread: Thread, seconds: float) -> bool:
        while thread.is_alive():
            thread.join(0.002)
            if thread in self._hanging:
                self.passed += seconds
                return False
        return True

    def hang(self) -> None:
        """For a provider: never comes back while the test runs; whoever waits for it has waited long enough.

        Several may hang at once, each in the thread of its own call.
        """
        self._hanging.add(current_thread())
        self.released.wait()


@dataclass
class MemoryJournal:
    """Remembers intents, outcomes and changes in the order in which they came. ``trouble`` as a provider's."""

    trouble: Callable[[str, str], LlmctlError | None] = lambda verb, step: None  # noqa: ARG005
    intents: list[Intent] = field(default_factory=list)
    shared: int = 0  # of the intents, the first so many are known to others
    outcomes: list[tuple[str, str]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def intend(self, step: str, effect: str, data: Mapping[str, Json], *, share: bool = True) -> Intent:
        self._called("intend", step)
        intent = Intent(str(len(self.intents)), step, effect, data)
        self.intents.append(intent)
        if share:
            self.share()
        return intent

    def share(self) -> None:
        self._called("share", "")
        self.shared = len(self.intents)

    def done(self, intent: Intent, outcome: str, data: Mapping[str, Json]) -> None:  # noqa: ARG002
        self._called("done", intent.step)
        self.outcomes.append((intent.step, outcome))

    def commit(self, change: Change) -> None:
        self._called("commit", change.subject)
        self.changes.append(change)

    def _called(self, verb: str, what: str) -> None:
        error = self.trouble(verb, what)
        if error is not None:
            raise error
