"""Drift: live against recorded. What cannot be read is blocked, never taken for absent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.kinds import Role, kind_of
from llmctl.core.resources import ALL, Key, Recorded, RecordState
from llmctl.live import LiveState
from llmctl.plan.model import Drift
from llmctl.plan.routes import chain_keys, differences, endpoint_keys, route_revision, unrecorded_routes


@dataclass(frozen=True, slots=True)
class Observed:
    """All that live state adds to a plan.

    ``restore`` holds the live keys to bring back, ``strays`` the endpoint revisions and ``stray_routes``
    the routes that nobody recorded.
    """

    drift: tuple[Drift, ...] = ()
    blocked: tuple[Diagnostic, ...] = ()
    restore: tuple[tuple[Address, str], ...] = ()
    strays: tuple[Key, ...] = ()
    stray_routes: tuple[str, ...] = ()


def observe(recorded: RecordState, live: LiveState, wanted: frozenset[Key]) -> Observed:
    """Compare the record with live state. ``wanted`` are endpoint revisions that this plan needs anyway."""
    drift: list[Drift] = []
    restore: list[tuple[Address, str]] = []
    blocked: list[Diagnostic] = [*_unreadable(recorded, live)]
    unread = {d.address for d in blocked}
    for address, was in sorted(recorded.resources.items()):
        if address in unread or kind_of(address.kind).role is Role.RULE:
            continue
        if address.kind == "route":
            missing = _route_drift(was, live)
        else:
            missing = _drift_of_key(address, Key(address.name, was.revision), live)
        if missing:
            drift.append(Drift(address, missing[0], tuple(missing[1:])))
            restore.append((address, was.revision))
    for address, revision, reason in _older_endpoints(recorded, live):
        drift.append(Drift(address, reason))
        restore.append((address, revision))
    strays = _strays(recorded, live, wanted)
    stray_routes = unrecorded_routes(live.gateway_config(), {a.name for a in recorded.resources if a.kind == "route"})
    drift += [Drift(Address("endpoint", key.name), f"an unrecorded revision {key.revision[:8]} runs") for key in strays]
    drift += [Drift(Address("route", name), "the gateway serves it and nobody recorded it") for name in stray_routes]
    return Observed(tuple(drift), tuple(blocked), tuple(restore), strays, tuple(stray_routes))


def _unreadable(recorded: RecordState, live: LiveState) -> Iterator[Diagnostic]:
    for address, was in sorted(recorded.resources.items()):
        reason = live.unreadable(address.kind, Key(address.name, was.revision))
        if reason is not None:
            yield replace(reason, address=address, summary=f"cannot be read: {reason.summary}")
    for kind, reading in live.readings.items():
        known = any(a.kind == kind for a in recorded.resources)
        if ALL in reading.unreadable and not known:
            reason = reading.unreadable[ALL]
            yield replace(reason, summary=f"{kind} resources cannot be read: {reason.summary}")


def _drift_of_key(address: Address, key: Key, live: LiveState) -> list[str]:
    there = live.find(address.kind, key)
    if there is None:
        return ["it is gone" if address.kind != "endpoint" else "it does not run"]
    if not there.healthy:
        return [there.detail or "it is not healthy"]
    if there.revision != key.revision:
        return [f"revision {there.revision[:8] or 'unknown'} is there, recorded is {key.revision[:8]}"]
    return []


def _route_drift(was: Recorded, live: LiveState) -> list[str]:
    if not live.gateway.running:
        return ["the gateway does not run"]
    outputs = live.endpoint_outputs()
    reachable = all(key in outputs for key in chain_keys(was.spec))
    want = route_revision(was.spec, was.revision, outputs) if reachable else None
    found: list[str] = []
    for replica, config in sorted(live.gateway.configs.items()):
        lines = differences(config.routes.get(was.address.name), want, was.revision)
        found += [line if len(live.gateway.configs) == 1 else f"{replica}: {line}" for line in lines]
    return found


def _older_endpoints(recorded: RecordState, live: LiveState) -> Iterator[tuple[Address, str, str]]:
    """Endpoint revisions that a recorded route still uses although the endpoint has moved on."""
    seen = set()
    for address, was in sorted(recorded.resources.items()):
        for key in chain_keys(was.spec) if address.kind == "route" else ():
            endpoint = Address("endpoint", key.name)
            current = recorded.resources.get(endpoint)
            if key in seen or (current and current.revision == key.revision) or live.unreadable("endpoint", key):
                continue
            seen.add(key)
            lines = _drift_of_key(endpoint, key, live)
            if lines:
                yield endpoint, key.revision, f"revision {key.revision[:8]}, used by {address}: {lines[0]}"


def _strays(recorded: RecordState, live: LiveState, wanted: frozenset[Key]) -> tuple[Key, ...]:
    reading = live.readings.get("endpoint")
    if reading is None:
        return ()
    return tuple(sorted(set(reading.found) - endpoint_keys(recorded.resources) - wanted))
