"""Prometheus metrics, in a registry of their own. Labels come from the configuration, never from a client."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llmctl.gateway.state import Snapshot

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The gateway's metrics. ``traffic`` is ``public`` or ``staged`` (a gate asked for one revision).

    ``code`` is the HTTP status; 499 when the client went away, 502 also when a stream broke after its 200.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        which = ("route", "revision", "traffic")
        name = "llmctl_gateway_"
        self.requests = Counter(
            name + "requests", "Chat requests that are over", (*which, "code"), registry=self._registry
        )
        self.seconds = Histogram(
            name + "request_duration_seconds",
            "Time to the last byte of the answer",
            which,
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.in_flight = Gauge(name + "requests_in_flight", "Chat requests in hand", which, registry=self._registry)
        self.upstream_errors = Counter(
            name + "upstream_errors",
            "Failed requests to an endpoint revision",
            ("endpoint", "revision", "reason"),
            registry=self._registry,
        )
        self.fallbacks = Counter(
            name + "fallbacks", "Times that the next upstream was tried", ("route", "revision"), registry=self._registry
        )
        self._config = Gauge(
            name + "config_info", "The configuration that is served", ("revision", "serial"), registry=self._registry
        )

    def serving(self, snapshot: Snapshot) -> None:
        """Say which configuration is served now."""
        self._config.clear()
        self._config.labels(snapshot.revision, str(snapshot.config.serial)).set(1)

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self._registry)
