"""Use cases: what serves now, and how it differs from what was recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llmctl import live
from llmctl.app.local import elsewhere, outdated
from llmctl.app.planning import in_progress, plan_for
from llmctl.app.workspace import Workspace
from llmctl.core.address import Address
from llmctl.core.decisions import BreakGlass
from llmctl.core.digests import Json
from llmctl.core.kinds import Role, kind_of
from llmctl.core.resources import Desired, Key, RecordState, Resource
from llmctl.plan import Drift, Plan
from llmctl.plan.drift import observe
from llmctl.plan.routes import endpoint_keys
from llmctl.record import RemoteError


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """A route as the gateway serves it. ``weights`` are percent by revision, ``version`` is recorded."""

    name: str
    revision: str  # recorded
    version: int
    weights: Mapping[str, int]
    prompt: str
    endpoint: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """An endpoint revision as it was read back; a hosted API as it answered just now."""

    key: Key
    healthy: bool
    recorded: bool
    detail: str


@dataclass(frozen=True, slots=True)
class ResourceStatus:
    """What is recorded of a kind of a plug-in, as it was read back."""

    address: Address
    version: int
    healthy: bool
    detail: str
    outputs: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the target."""

    name: str
    pid: int
    state: str
    uptime_s: float
    detail: str


@dataclass(frozen=True, slots=True)
class Status:
    """All that ``llmctl status`` shows."""

    environment: str
    target: str
    serial: int
    base_url: str
    gateway: str  # "serving", "down" or why it cannot be read
    gateway_note: str  # that it runs the program of another llmctl, "" when it does not
    elsewhere: str  # that it runs in another work tree of the repository, "" when it does not
    routes: tuple[RouteStatus, ...]
    endpoints: tuple[EndpointStatus, ...]
    resources: tuple[ResourceStatus, ...]
    processes: tuple[Process, ...]
    drift: tuple[Drift, ...]
    unreadable: tuple[str, ...]
    lock: str  # who works on it now, "" when nobody
    interrupted: str  # an apply that never ended, "" when none
    break_glass: tuple[BreakGlass, ...]  # those that nothing has put right yet


def status(workspace: Workspace) -> Status:
    """Read everything, decide nothing. Hosted APIs are asked, which a plan does not do."""
    stale = _sync(workspace)
    state = workspace.recorded()
    asked = workspace.target.endpoints.ask_external()
    seen = workspace.read_live(state)
    observed = observe(state, seen, frozenset())
    working, interrupted = in_progress(workspace)
    gateway = seen.gateway
    return Status(
        environment=workspace.environment.name,
        target=workspace.environment.target,
        serial=state.serial,
        base_url=gateway.base_url,
        gateway=gateway.unreadable or ("serving" if gateway.running else "down"),
        gateway_note="".join(f"{d.summary}: {d.hint}" for d in outdated(gateway)),
        elsewhere=" ".join(f"{d.summary}: {d.hint}" for d in elsewhere(workspace)),
        routes=tuple(_routes(state, seen)),
        endpoints=tuple(_endpoints(state, seen, asked())),
        resources=tuple(_resources(state, seen)),
        processes=tuple(
            Process(p.name, p.pid, p.state.value, p.uptime, p.detail) for p in workspace.target.processes()
        ),
        drift=observed.drift,
        unreadable=(*stale, *(f"{d.address or 'target'}: {d.summary}" for d in observed.blocked)),
        lock=working,
        interrupted=interrupted,
        break_glass=state.break_glass,
    )


def _sync(workspace: Workspace) -> tuple[str, ...]:
    """Fetch the record; what serves here can be told without the remote, and with a warning is."""
    try:
        workspace.sync()
    except RemoteError as error:
        return (f"record: {error.summary}; what is shown of it is what this clone knows",)
    return ()


def _routes(state: RecordState, seen: live.LiveState) -> list[RouteStatus]:
    config = seen.gateway_config()
    served = dict(config.routes) if config else {}
    recorded = {a.name: r for a, r in state.resources.items() if a.kind == "route"}
    rows = []
    for name in sorted({*served, *recorded}):
        was, now = recorded.get(name), served.get(name)
        prompt = endpoint = ""
        if was is not None:
            spec = was.spec
            prompt = f"{spec['prompt']}{_version(state, 'prompt', spec['prompt'], spec['prompt_revision'])}"
            endpoint = spec["chain_revisions"][0][: len(spec["endpoint"]) + 9]
        rows.append(
            RouteStatus(
                name,
                was.revision if was else "",
                was.version if was else 0,
                dict(now.weights) if now else {},
                prompt,
                endpoint,
                "" if was else "not recorded",
            )
        )
    return rows


def _version(state: RecordState, kind: str, name: str, revision: str) -> str:
    recorded = state.resources.get(Address(kind, name))
    if recorded is None or revision not in recorded.revisions:
        return f"@{revision[:8]}"
    return f" v{recorded.revisions.index(revision) + 1}"


def _endpoints(state: RecordState, seen: live.LiveState, troubles: Mapping[Key, str]) -> list[EndpointStatus]:
    reading = seen.readings.get("endpoint")
    found = dict(reading.found) if reading else {}
    used = endpoint_keys(state.resources)
    rows = []
    for key in sorted({*found, *used}):
        there = found.get(key)
        unreadable = seen.unreadable("endpoint", key)
        detail = there.detail if there else unreadable.summary if unreadable else "does not run"
        trouble = troubles.get(key, "")
        healthy = bool(there and there.healthy and not trouble)
        rows.append(EndpointStatus(key, healthy, key in used, trouble or detail))
    return rows


def _resources(state: RecordState, seen: live.LiveState) -> Iterator[ResourceStatus]:
    for address, was in sorted(state.resources.items()):
        if kind_of(address.kind).role is Role.RESOURCE:
            key = Key(address.name)
            there, unreadable = seen.find(address.kind, key), seen.unreadable(address.kind, key)
            detail = there.detail if there else unreadable.summary if unreadable else "it is gone"
            outputs = there.outputs if there else {}
            yield ResourceStatus(address, was.version, bool(there and there.healthy), detail, outputs)


def drift(workspace: Workspace) -> Plan:
    """A plan that only restores what was recorded: its drift is what differs."""
    workspace.sync()
    state = workspace.recorded()
    resources = {a: Resource(a, r.spec, r.revision, r.needs) for a, r in state.resources.items()}
    desired = Desired(workspace.document.project, workspace.environment, resources, str(workspace.root))
    return plan_for(workspace, desired, action="apply")
