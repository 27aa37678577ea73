"""Which revision of a route answers, and which replica. Pure functions of the configuration, the clock and chance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

from llmctl.core.gateway_config import Route

T = TypeVar("T")


def effective_weights(route: Route, now: float, *, lapsed: bool = False) -> Mapping[str, int]:
    """Percent of public traffic that each revision gets at ``now`` (seconds since the epoch).

    A split whose lease has lapsed, by ``now`` or as ``lapsed`` says, is over: its apply is gone, so the
    promoted revision gets everything again. Empty when nothing serves.
    """
    if route.lease is None or (route.lease.expires_at >= now and not lapsed):
        return route.weights
    return {route.promoted: 100} if route.promoted else {}


def choose(route: Route, weights: Mapping[str, int], user: str | None, chance: float) -> str:
    """The revision that serves one public request; ``weights`` must not be empty.

    ``chance`` (0 up to, not including, 1) decides, or the user, who then gets the same revision again
    and again. The promoted revision comes last on the scale, so that those whom a canary already got
    keep it while its share grows.
    """
    order = sorted((r for r, w in weights.items() if w > 0), key=lambda r: (r == route.promoted, r))
    if len(order) == 1:
        return order[0]
    # The canary's name is in the hash: not the same users meet every new revision first.
    point = 100 * (chance if user is None else _fraction(route.name, order[0], user))
    for revision in order:
        point -= weights[revision]
        if point < 0:
            return revision
    return order[-1]


def by_load(addresses: Sequence[T], in_flight: Mapping[T, int], turn: int) -> list[T]:
    """The addresses of replicas in the order to try them: fewest requests in flight first, equal ones in turn."""
    start = turn % len(addresses)
    return sorted((*addresses[start:], *addresses[:start]), key=lambda address: in_flight.get(address, 0))


def _fraction(*parts: str) -> float:
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:6]) / 2**48
