"""What a target runs, as it was read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import GatewayReading
from llmctl.core.resources import ALL, Key, Live, Reading


@dataclass(frozen=True, slots=True)
class LiveState:
    """What providers and gateway read back. ``readings`` is by kind."""

    readings: Mapping[str, Reading[Json]] = field(default_factory=dict)
    gateway: GatewayReading = field(default_factory=lambda: GatewayReading(running=False))

    def find(self, kind: str, key: Key) -> Live[Json] | None:
        """The live thing of that key, or None when it is known to be absent (or unreadable: ask that first)."""
        reading = self.readings.get(kind)
        return reading.found.get(key) if reading else None

    @property
    def is_readable(self) -> bool:
        """Whether everything was read."""
        return not self.gateway.unreadable and not any(reading.unreadable for reading in self.readings.values())

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
        configs = list(self.gateway.configs.values())
        if len(configs) > 1:
            configs.sort(key=lambda config: (config.serial, config.revision))
        return configs[0] if configs else None

    def fingerprint(self) -> dict[str, str]:
        """The live revisions a plan was made against, by ``kind.key``; compared when a saved plan is applied."""
        seen: dict[str, str] = {}
        for kind, reading in self.readings.items():
            for key, live in reading.found.items():
                seen[f"{kind}.{key}"] = live.revision if live.healthy else f"unhealthy {live.revision}"
            for key in reading.unreadable:
                seen[f"{kind}.{key}"] = "unreadable"
        if self.gateway.unreadable:
            seen["gateway"] = "unreadable"
        config = self.gateway_config()
        for name, route in config.routes.items() if config else ():
            seen[f"route.{name}"] = route.promoted
        return seen
