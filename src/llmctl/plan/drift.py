"""Drift: live against recorded. What cannot be read is blocked, never taken for absent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.digests import Json
from llmctl.core.kinds import Role, kind_of
from llmctl.core.resources import ALL, Desired, Key, Recorded, RecordState, Spec
from llmctl.live import LiveState
from llmctl.plan.changes import by_name
from llmctl.plan.model import Drift
from llmctl.plan.routes import chain_keys, differences, endpoint_keys, route_revision, unrecorded_routes

UNMANAGED = "unmanaged: "  # how drift begins that nobody recorded, so that it is not restored but taken away
_NAMED = 5  # unmanaged things of a kind that are named; a registry may hold thousands


@dataclass(frozen=True, slots=True)
class Observed:
    """All that live state adds to a plan.

    ``restore`` holds the live keys to bring back, ``strays`` the endpoint revisions and ``stray_routes``
    the routes that nobody recorded; ``in_use`` are endpoint revisions that must stay for the sake of what this
    plan does not touch. ``unrecorded`` are the specs with which wanted endpoint revisions run that nobody recorded.
    """

    drift: tuple[Drift, ...] = ()
    blocked: tuple[Diagnostic, ...] = ()
    restore: tuple[tuple[Address, str], ...] = ()
    strays: tuple[Key, ...] = ()
    stray_routes: tuple[str, ...] = ()
    in_use: frozenset[Key] = frozenset()
    unrecorded: Mapping[Key, Spec] = field(default_factory=dict)


def observe(recorded: RecordState, live: LiveState, wanted: frozenset[Key]) -> Observed:
    """Compare the record with live state. ``wanted`` are endpoint revisions that this plan needs anyway."""
    drift: list[Drift] = []
    restore: list[tuple[Address, str]] = []
    blocked: list[Diagnostic] = [*_unreadable(recorded, live)]
    unread = {d.address for d in blocked}
    reached = live.endpoint_outputs()
    roles = {kind: kind_of(kind).role for kind in {address.kind for address in recorded.resources}}
    for address, was in recorded.resources.items():
        role = roles[address.kind]
        if address in unread or role is Role.RULE:
            continue
        if role is Role.ROUTE:
            missing = _route_drift(was, live, reached)
        else:
            key = Key(address.name, "" if role is Role.RESOURCE else was.revision)
            missing = _drift_of_key(address, key, was.revision, live)
        if missing:
            drift.append(Drift(address, missing[0], tuple(missing[1:])))
            restore.append((address, was.revision))
    drift.sort(key=lambda found: by_name(found.address))
    restore.sort(key=lambda found: by_name(found[0]))
    for address, revision, reason in _older_endpoints(recorded, live):
        drift.append(Drift(address, reason))
        restore.append((address, revision))
    strays = _strays(recorded, live, wanted)
    stray_routes = unrecorded_routes(live.gateway_config(), {a.name for a in recorded.resources if a.kind == "route"})
    drift += [_unmanaged_endpoint(key, recorded) for key in strays]
    drift += [_unmanaged_route(name, live) for name in stray_routes]
    unrecorded = _unrecorded(recorded, live, wanted)
    return Observed(tuple(drift), tuple(blocked), tuple(restore), strays, tuple(stray_routes), unrecorded=unrecorded)


def _unreadable(recorded: RecordState, live: LiveState) -> Iterator[Diagnostic]:
    if live.is_readable:
        return
    for address, was in sorted(recorded.resources.items(), key=lambda item: by_name(item[0])):
        single = kind_of(address.kind).role is Role.RESOURCE
        reason = live.unreadable(address.kind, Key(address.name, "" if single else was.revision))
        if reason is not None:
            yield replace(reason, address=address, summary=f"cannot be read: {reason.summary}")
    for kind, reading in live.readings.items():
        known = any(a.kind == kind for a in recorded.resources)
        if ALL in reading.unreadable and not known:
            reason = reading.unreadable[ALL]
            yield replace(reason, summary=f"{kind} resources cannot be read: {reason.summary}")


def _drift_of_key(address: Address, key: Key, revision: str, live: LiveState) -> list[str]:
    there = live.find(address.kind, key)
    if there is None:
        return ["it is gone" if address.kind != "endpoint" else "it does not run"]
    if not there.healthy:
        return [there.detail or "it is not healthy"]
    if there.revision != revision:
        return [f"revision {there.revision[:8] or 'unknown'} is there, recorded is {revision[:8]}"]
    return []


def _route_drift(was: Recorded, live: LiveState, outputs: Mapping[Key, Mapping[str, Json]]) -> list[str]:
    if not live.gateway.running:
        return ["the gateway does not run"]
    reachable = all(key in outputs for key in chain_keys(was.spec))
    want = route_revision(was.spec, was.revision, outputs) if reachable else None
    found: list[str] = []
    for replica, config in sorted(live.gateway.configs.items()):
        lines = differences(config.routes.get(was.address.name), want, was.revision, was.spec.get("aliases") or ())
        found += [line if len(live.gateway.configs) == 1 else f"{replica}: {line}" for line in lines]
    return found


def _older_endpoints(recorded: RecordState, live: LiveState) -> Iterator[tuple[Address, str, str]]:
    """Endpoint revisions that a recorded route still uses although the endpoint has moved on."""
    seen = set()
    routes = sorted((a for a in recorded.resources if a.kind == "route"), key=by_name)
    for address in routes:
        was = recorded.resources[address]
        for key in chain_keys(was.spec):
            endpoint = Address("endpoint", key.name)
            current = recorded.resources.get(endpoint)
            if key in seen or (current and current.revision == key.revision) or live.unreadable("endpoint", key):
                continue
            seen.add(key)
            lines = _drift_of_key(endpoint, key, key.revision, live)
            if lines:
                yield endpoint, key.revision, f"revision {key.revision[:8]}, used by {address}: {lines[0]}"


def _unmanaged_endpoint(key: Key, recorded: RecordState) -> Drift:
    address = Address("endpoint", key.name)
    taken_in = () if address in recorded.resources else (_how_to_take_in(address, key),)
    return Drift(address, f"{UNMANAGED}revision {key.revision[:8]} runs, and nobody recorded it", taken_in)


def _unmanaged_route(name: str, live: LiveState) -> Drift:
    config = live.gateway_config()
    promoted = config.routes[name].promoted if config else ""
    taken_in = (_how_to_take_in(Address("route", name), Key(name, promoted)),) if promoted else ()
    return Drift(Address("route", name), f"{UNMANAGED}the gateway serves it, and nobody recorded it", taken_in)


def _how_to_take_in(address: Address, key: Key) -> str:
    return f"`llmctl import {address} {key}` takes it in; the next apply takes away what is not declared"


def unmanaged(desired: Desired, recorded: RecordState, live: LiveState) -> list[Diagnostic]:
    """What plug-ins have live that nobody recorded and that is not to be adopted: it may be somebody else's, so
    it is only pointed out."""
    found = []
    for kind, reading in sorted(live.readings.items()):
        if kind_of(kind).role is not Role.RESOURCE:
            continue
        addresses = {Address(kind, key.name): key for key in sorted(reading.found)}
        others = [a for a in addresses if a not in recorded.resources and not _adopted(desired, a, live)]
        for address in others[:_NAMED]:
            summary = f"{UNMANAGED}it is live, and nobody recorded it; llmctl leaves it as it is"
            hint = f"`llmctl import {address} {addresses[address]}` takes it in."
            detail = live.readings[kind].found[addresses[address]].detail
            found.append(Diagnostic(summary, Severity.WARNING, address=address, detail=detail, hint=hint))
        if len(others) > _NAMED:
            more = f"{UNMANAGED}{len(others) - _NAMED:,} more of the kind {kind} are live, and nobody recorded them"
            found.append(Diagnostic(more, Severity.WARNING))
    return found


def _adopted(desired: Desired, address: Address, live: LiveState) -> bool:
    want, there = desired.resources.get(address), live.find(address.kind, Key(address.name))
    return want is not None and there is not None and there.healthy and there.revision == want.revision


def _unrecorded(recorded: RecordState, live: LiveState, wanted: frozenset[Key]) -> dict[Key, Spec]:
    reading = live.readings.get("endpoint")
    known = {Key(a.name, was.revision): was.spec for a, was in recorded.resources.items() if a.kind == "endpoint"}
    found = ((key, reading.found.get(key)) for key in wanted | known.keys()) if reading else ()
    live_ones = ((key, there) for key, there in found if there is not None and there.healthy)
    return {key: there.state for key, there in live_ones if there.state != known.get(key)}


def _strays(recorded: RecordState, live: LiveState, wanted: frozenset[Key]) -> tuple[Key, ...]:
    reading = live.readings.get("endpoint")
    if reading is None:
        return ()
    return tuple(sorted(set(reading.found) - endpoint_keys(recorded.resources) - wanted))
