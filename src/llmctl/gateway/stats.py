"""Counters since the start, for llmctl itself: a canary is judged and a revision drained by them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import time

from llmctl.core.digests import Json

LATENCIES_KEPT = 1000


@dataclass(slots=True)
class RevisionStats:
    """One route revision. Gate requests are kept apart, or they would be judged as live traffic."""

    requests: int = 0
    errors: int = 0
    staged_requests: int = 0
    staged_errors: int = 0
    in_flight: int = 0  # public and staged
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))

    def finish(self, staged: bool, failed: bool, seconds: float | None) -> None:
        """Count a request that is over; ``seconds`` is None when its time says nothing of the revision."""
        self.in_flight -= 1
        if staged:
            self.staged_requests += 1
            self.staged_errors += failed
            return
        self.requests += 1
        self.errors += failed
        if seconds is not None:
            self.latencies_s.append(seconds)

    def to_json(self) -> Json:
        ordered = sorted(self.latencies_s)
        return {
            "requests": self.requests,
            "errors": self.errors,
            "staged": {"requests": self.staged_requests, "errors": self.staged_errors},
            "in_flight": self.in_flight,
            "latency_ms": {
                "p50": _percentile(ordered, 50),
                "p95": _percentile(ordered, 95),
                "samples": len(ordered),
            },
        }


@dataclass(slots=True)
class UpstreamStats:
    """One endpoint revision, over all routes that use it."""

    requests: int = 0
    errors: int = 0
    in_flight: int = 0

    def to_json(self) -> Json:
        return {"requests": self.requests, "errors": self.errors, "in_flight": self.in_flight}


class Stats:
    """All counters of one process."""

    def __init__(self) -> None:
        self.since = time()
        self._revisions: dict[tuple[str, str], RevisionStats] = {}
        self._upstreams: dict[str, UpstreamStats] = {}

    def revision(self, route: str, revision: str) -> RevisionStats:
        return self._revisions.setdefault((route, revision), RevisionStats())

    def upstream(self, name: str) -> UpstreamStats:
        return self._upstreams.setdefault(name, UpstreamStats())

    def forget_all_but(self, revisions: Iterable[tuple[str, str]], upstreams: Iterable[str]) -> None:
        """Drop what is no longer configured, except where requests are still in flight."""
        keep, keep_upstreams = set(revisions), set(upstreams)
        self._revisions = {k: v for k, v in self._revisions.items() if v.in_flight or k in keep}
        self._upstreams = {k: v for k, v in self._upstreams.items() if v.in_flight or k in keep_upstreams}

    def to_json(self) -> Json:
        routes: dict[str, dict[str, Json]] = {}
        for (route, revision), stats in self._revisions.items():
            routes.setdefault(route, {})[revision] = stats.to_json()
        upstreams = {name: stats.to_json() for name, stats in self._upstreams.items()}
        return {"since": self.since, "routes": routes, "upstreams": upstreams}


def _percentile(ordered: list[float], percent: int) -> float | None:
    """Nearest rank, in milliseconds; None without samples."""
    if not ordered:
        return None
    rank = -(-len(ordered) * percent // 100)
    return round(1000 * ordered[rank - 1], 3)
