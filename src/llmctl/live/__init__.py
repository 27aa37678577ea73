"""Live state: one concurrent bulk read of everything that a target runs."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.errors import LlmctlError
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import GatewayReading, Provider, Target
from llmctl.core.resources import ALL, Key, Live, Reading

__all__ = ["LiveState", "read"]


@dataclass(frozen=True, slots=True)
class LiveState:
    """What providers and gateway read back. ``readings`` is by kind."""

    readings: Mapping[str, Reading[Json]] = field(default_factory=dict)
    gateway: GatewayReading = field(default_factory=lambda: GatewayReading(running=False))

    def find(self, kind: str, key: Key) -> Live[Json] | None:
        """The live thing of that key, or None when it is known to be absent (or unreadable: ask that first)."""
        reading = self.readings.get(kind)
        return reading.found.get(key) if reading else None

    def unreadable(self, kind: str, key: Key) -> Diagnostic | None:
        """Why this key could not be read, or None when its presence or absence is known."""
        if kind == "route":
            return Diagnostic(self.gateway.unreadable) if self.gateway.unreadable else None
        reading = self.readings.get(kind)
        if reading is None:
            return None
        return reading.unreadable.get(key) or reading.unreadable.get(ALL)

    def endpoint_outputs(self) -> dict[Key, dict[str, Json]]:
        """How each live endpoint revision is reached; one that does not say so is left out."""
        reading = self.readings.get("endpoint")
        found = reading.found.items() if reading else ()
        return {key: dict(live.outputs) for key, live in found if "base_url" in live.outputs}

    def gateway_config(self) -> GatewayConfig | None:
        """What the gateway serves; None when it is down or cannot be read.

        When replicas differ the one with the lowest serial counts, so that a laggard shows as drift.
        """
        configs = sorted(self.gateway.configs.values(), key=lambda config: (config.serial, config.revision))
        return configs[0] if configs else None

    def fingerprint(self) -> dict[str, str]:
        """The live revisions a plan was made against, by ``kind.key``; compared when a saved plan is applied."""
        seen: dict[str, str] = {}
        for kind, reading in self.readings.items():
            for key, live in reading.found.items():
                seen[f"{kind}.{key}"] = live.revision if live.healthy else f"unhealthy {live.revision}"
            for key in reading.unreadable:
                seen[f"{kind}.{key}"] = "unreadable"
        config = self.gateway_config()
        for name, route in config.routes.items() if config else ():
            seen[f"route.{name}"] = route.promoted
        return seen


def read(target: Target) -> LiveState:
    """Read all kinds and the gateway at once. A provider that fails is unreadable, never absent."""

    def one(provider: Provider[Json]) -> Reading[Json]:
        try:
            return provider.read_all()
        except LlmctlError as error:
            return Reading(unreadable={ALL: Diagnostic(error.summary, detail=error.detail, hint=error.hint)})

    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="read") as pool:
        futures = {kind: pool.submit(one, provider) for kind, provider in target.providers.items()}
        gateway = pool.submit(_read_gateway, target)
        return LiveState({kind: future.result() for kind, future in futures.items()}, gateway.result())


def _read_gateway(target: Target) -> GatewayReading:
    try:
        return target.gateway.read()
    except LlmctlError as error:
        return GatewayReading(running=True, unreadable=error.summary)
