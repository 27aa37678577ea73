"""A target in memory and a journal that remembers, for the engine's own behaviour.

Real processes, real git and real HTTP are in ``tests/e2e``; here the order of effects matters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

from llmctl.core.digests import Json
from llmctl.core.errors import Conflict, LlmctlError, ProviderError
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import Change, GateAccess, GatewayReading, Intent, Op
from llmctl.core.resources import Key, Live, Reading
from llmctl.core.secrets import Secret


@dataclass
class MemoryProvider:
    """Keeps what it is told; ``trouble`` raises where a test wants it to."""

    kind: str
    found: dict[Key, Live[Json]] = field(default_factory=dict)
    trouble: Callable[[str, Key], LlmctlError | None] = lambda verb, key: None  # noqa: ARG005
    calls: list[tuple[str, str]] = field(default_factory=list)
    mutex: Lock = field(default_factory=Lock)

    def _called(self, verb: str, key: Key) -> None:
        with self.mutex:
            self.calls.append((verb, str(key)))
        error = self.trouble(verb, key)
        if error is not None:
            raise error

    def read_all(self) -> Reading[Json]:
        with self.mutex:
            return Reading(dict(self.found))

    def create(self, op: Op, key: Key, want: Json) -> Live[Json]:
        op.guard()
        self._called("create", key)
        outputs = {"base_url": f"http://{key}/v1", "model": str(key), "secret": ""}
        live = Live[Json](key, want, key.revision, outputs=outputs)
        with self.mutex:
            self.found[key] = live
        return live

    def update(self, op: Op, key: Key, was: Live[Json], want: Json) -> Live[Json]:
        op.guard()
        self._called("update", key)
        live = replace(was, state=want)
        with self.mutex:
            self.found[key] = live
        return live

    def delete(self, op: Op, key: Key, was: Live[Json]) -> None:  # noqa: ARG002
        op.guard()
        self._called("delete", key)
        with self.mutex:
            self.found.pop(key, None)


@dataclass
class MemoryGateway:
    """Serves what was published last; counts configurations in ``history``."""

    config: GatewayConfig = field(default_factory=lambda: GatewayConfig("dev"))
    history: list[GatewayConfig] = field(default_factory=list)
    conflicts: int = 0
    trouble: Callable[[GatewayConfig], LlmctlError | None] = lambda config: None  # noqa: ARG005

    def read(self) -> GatewayReading:
        return GatewayReading(True, {"local": self.config}, base_url="http://127.0.0.1:1")

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
        return GateAccess("http://127.0.0.1:1", Secret("token"))


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
    artifacts: NoArtifacts = field(default_factory=NoArtifacts)
    gateway: MemoryGateway = field(default_factory=MemoryGateway)

    def start(self, op: Op) -> None:
        op.guard()

    def destroy(self, op: Op) -> None:
        op.guard()


@dataclass
class MemoryJournal:
    """Remembers intents, outcomes and changes in the order in which they came."""

    intents: list[Intent] = field(default_factory=list)
    outcomes: list[tuple[str, str]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def intend(self, step: str, effect: str, data: Mapping[str, Json]) -> Intent:
        intent = Intent(str(len(self.intents)), step, effect, data)
        self.intents.append(intent)
        return intent

    def done(self, intent: Intent, outcome: str, data: Mapping[str, Json]) -> None:  # noqa: ARG002
        self.outcomes.append((intent.step, outcome))

    def commit(self, change: Change) -> None:
        self.changes.append(change)
