"""Use case: run gates of the file against what the gateway has. Nothing is recorded, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event

from llmctl import gates
from llmctl.app.workspace import Workspace
from llmctl.apply import GateReport
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import digest_file
from llmctl.core.errors import InvalidInput, ProviderError
from llmctl.core.gateway_config import Route
from llmctl.core.resources import Desired, Resource
from llmctl.spec import dataset_rows
from llmctl.spec.suggestions import suggestion


@dataclass(frozen=True, slots=True)
class GateRun:
    """One gate that was run; ``taken_over`` counts the answers of an earlier run that was cut short."""

    report: GateReport
    taken_over: int


#: Hears of the gate that is run, its requests done and its requests in all.
Progress = Callable[[Address, int, int], None]


def run_gates(workspace: Workspace, name: str | None, at: str | None, progress: Progress) -> Iterator[GateRun]:
    """Measure the gate ``name``, or every gate, by the file as it is, one after the other.

    ``at`` is ``ROUTE@REVISION`` for a revision that the gateway has, promoted or staged, by as many digits as
    it takes; without it each gate judges the promoted revision of its route. ``max_drop`` compares with the
    promoted one, whose recorded answers are used where they still hold; all else is measured now. Raises
    ``InvalidInput`` for a gate, route or revision that is not there, ``ProviderError`` when the gateway does
    not run, and what ``gates.run`` raises.
    """
    desired = workspace.resolved.desired
    wanted, _, prefix = (at or "").partition("@")
    if at is not None and not (wanted and prefix):
        raise _refused(f"{at!r} is no route revision", "Write it as ROUTE@REVISION, such as support@3fa9c1d2.")
    chosen = _chosen(desired, name, wanted)
    routes = _routes(workspace)
    revisions = [_revision(routes, gate.spec["route"], prefix) for gate in chosen]
    for gate, revision in zip(chosen, revisions, strict=True):
        yield _run(workspace, desired, gate, routes[gate.spec["route"]], revision, progress)


def _run(
    workspace: Workspace, desired: Desired, gate: Resource, route: Route, revision: str, progress: Progress
) -> GateRun:
    spec = gate.spec
    request = gates.GateRequest(
        gate=gate.address.name,
        gate_revision=gate.revision,
        spec=spec,
        route_revision=revision,
        baseline_revision="" if route.promoted == revision else route.promoted,
        rows=_rows(workspace, desired, gate),
    )
    # Who runs a gate by hand wants to know what holds now, not what was measured some time ago.
    known = [e for e in workspace.reader.evidence() if e.route_revision != revision]
    result = gates.run(
        request,
        workspace.target.gateway.gate_access(),
        workspace.target.artifacts,
        known,
        **gates.limits_of(spec),
        resume=workspace.target.state_folder / "gates",
        progress=partial(progress, gate.address),
        cancelled=Event(),
    )
    return GateRun(GateReport(result.evidence, result.worst, result.cached), result.taken_over)


def _chosen(desired: Desired, name: str | None, route: str) -> list[Resource]:
    """The gates to run. Raises ``InvalidInput`` when there is none."""
    known = [resource for address, resource in desired.resources.items() if address.kind == "gate"]
    names = [gate.address.name for gate in known]
    if name is not None and name not in names:
        raise _refused(f"there is no gate {name!r}", suggestion(name, names, "gates"))
    named = [gate for gate in known if name in (None, gate.address.name)]
    chosen = [gate for gate in named if route in ("", gate.spec["route"])]
    if not named:
        raise _refused("there is no gate in this environment", "Add one under `gates:`.")
    if not chosen:
        judged = ", ".join(sorted({gate.spec["route"] for gate in named}))
        subject = "no gate judges" if name is None else f"gate {name} does not judge"
        raise _refused(f"{subject} route {route!r}", f"Judged: {judged}.")
    return chosen


def _routes(workspace: Workspace) -> dict[str, Route]:
    """The routes that the gateway has. Raises ``ProviderError`` when that is not known."""
    reading = workspace.target.gateway.read()
    if reading.unreadable:
        raise ProviderError(f"the gateway cannot be read: {reading.unreadable}", hint="Look at `llmctl status`.")
    if not reading.running:
        raise ProviderError(
            "the gateway does not run",
            hint="`llmctl local start` starts it, `llmctl apply` restores everything; `llmctl status` tells more.",
        )
    return {name: route for config in reading.configs.values() for name, route in config.routes.items()}


def _revision(routes: dict[str, Route], name: str, prefix: str) -> str:
    """The one revision that begins with ``prefix``, or the promoted one for "". Raises ``InvalidInput``."""
    route = routes.get(name)
    if route is None:
        raise _refused(f"the gateway has no route {name!r}", f"There are: {', '.join(sorted(routes)) or 'none yet'}.")
    there = [f"{r[:8]} ({'serves' if r == route.promoted else 'staged'})" for r in sorted(route.revisions)]
    if not prefix:
        if route.promoted:
            return route.promoted
        raise _refused(f"no revision of route {name} serves yet", f"Name one of: {', '.join(there)}.")
    found = [revision for revision in route.revisions if revision.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    what = "several revisions begin" if found else "no revision begins"
    raise _refused(f"of route {name}, {what} with {prefix!r}", f"There are: {', '.join(there)}.")


def _rows(workspace: Workspace, desired: Desired, gate: Resource) -> Sequence[gates.Row]:
    """The rows of the gate's dataset as the file has it: from the store, or where it was never applied its source."""
    dataset = desired.resources[Address("dataset", gate.spec["dataset"])]
    digest, store = gate.spec["dataset_digest"], workspace.target.artifacts
    path = store.path(digest) if store.has(digest) else workspace.root / dataset.spec["source"]
    if not store.has(digest) and digest_file(path) != digest:
        raise _refused(f"{dataset.spec['source']} changed just now", "Run it again.")
    return [gates.Row.of(line, values) for line, values in dataset_rows(path, gate.spec["dataset_format"])]


def _refused(summary: str, hint: str) -> InvalidInput:
    return InvalidInput([Diagnostic(summary, hint=hint)])
