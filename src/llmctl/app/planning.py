"""Use case: what would change, why, and what would prove it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import urlsplit

from llmctl import gates, live, policy, spec
from llmctl.app.validate import checked
from llmctl.app.workspace import Workspace
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.errors import RecordError
from llmctl.core.evidence import Evidence
from llmctl.core.resources import Desired, RecordState, Resource
from llmctl.core.secrets import SecretRef
from llmctl.plan import GateForecast, Plan, build_plan
from llmctl.record import Lock, find_interrupted


def plan(workspace: Workspace, *, offline: bool = False) -> Plan:
    """Plan what ``llmops.yaml`` asks for. Reads only; raises ``InvalidInput`` when the file is wrong."""
    resolved, warnings = checked(workspace.document, workspace.environment.name)
    return plan_for(
        workspace, resolved.desired, action="apply", offline=offline, warnings=warnings, secrets=resolved.secrets
    )


def plan_for(
    workspace: Workspace,
    desired: Desired,
    *,
    action: str,
    offline: bool = False,
    rollback_to: int = 0,
    warnings: Iterable[Diagnostic] = (),
    secrets: Iterable[tuple[Address, SecretRef]] = (),
) -> Plan:
    """Plan any desired state: the file's, an earlier entry's (rollback), or none at all (destroy)."""
    recorded = workspace.reader.state()
    seen = None if offline else live.read(workspace.target)
    notes = [*warnings, *_unfinished(workspace), *_moved_port(workspace, seen)]
    if seen is not None and action != "destroy":
        _refuse_if_live_is_ahead(workspace, recorded)
    made = build_plan(
        desired,
        recorded,
        seen,
        action=action,
        gated=action == "apply",
        rollback_to=rollback_to,
        source_commit=workspace.repository.head_commit(),
    )
    notes += _unset(workspace, secrets) if made.steps else []
    known = workspace.reader.evidence() if made.gates else []
    return replace(
        made,
        gates=tuple(_with_cached(forecast, made, known) for forecast in made.gates),
        policies=_policies(desired),
        warnings=tuple(notes),
    )


def desired_at(workspace: Workspace, serial: int) -> Desired:
    """What an earlier entry of the record declared."""
    state = workspace.reader.state_at(serial)
    resources = {a: Resource(a, r.spec, r.revision, r.needs) for a, r in state.resources.items()}
    return Desired(workspace.document.project, workspace.environment, resources, str(workspace.root))


def nothing_desired(workspace: Workspace) -> Desired:
    """An environment without resources, for destroy."""
    return Desired(workspace.document.project, workspace.environment, {}, str(workspace.root))


def _refuse_if_live_is_ahead(workspace: Workspace, recorded: RecordState) -> None:
    """The gateway remembers the serial that it was given: a record that lost entries is noticed here.

    An attempt that is open, because it runs or was interrupted, is one ahead of the record rightly.
    """
    config = workspace.target.last_published()
    if config is None or config.serial <= recorded.serial:
        return
    if find_interrupted(workspace.repository, workspace.environment.name) is None:
        branch = f"refs/heads/llmctl/{recorded.environment}"
        raise RecordError(
            f"the gateway has what apply serial {config.serial} published, the record ends at {recorded.serial}",
            detail="Entries of the record were lost or rewritten; a plan made from it would be wrong.",
            hint=f"Get {branch} back (git reflog, another clone), or `llmctl destroy` what runs and start over.",
        )


def in_progress(workspace: Workspace) -> tuple[str, str]:
    """Who works on the environment now, and which apply never ended; "" for none."""
    lock = Lock(workspace.repository, workspace.environment.name).peek()
    if lock is not None and not lock.abandoned:
        return ("" if lock.pid == os.getpid() else lock.describe()), ""
    found = find_interrupted(workspace.repository, workspace.environment.name)
    return "", found.describe() if found else ""


def _unfinished(workspace: Workspace) -> list[Diagnostic]:
    working, interrupted = in_progress(workspace)
    if working:
        return [Diagnostic(f"somebody applies at this moment: {working}", Severity.WARNING, hint="Plan again later.")]
    if interrupted:
        hint = "The next `llmctl apply` records what it did, and goes on."
        return [Diagnostic(interrupted, Severity.WARNING, hint=hint)]
    return []


def _moved_port(workspace: Workspace, seen: live.LiveState | None) -> list[Diagnostic]:
    """A gateway's port is no resource: clients hold on to it, so it moves only when the gateway is started."""
    port = workspace.environment.gateway_port
    there = urlsplit(seen.gateway.base_url).port if seen and seen.gateway.running else None
    if not port or there in (None, port):
        return []
    return [
        Diagnostic(
            f"the gateway listens on port {there}, the file asks for {port}",
            Severity.WARNING,
            hint="The next apply that has something to do, or `llmctl local start`, moves it.",
        )
    ]


def _unset(workspace: Workspace, secrets: Iterable[tuple[Address, SecretRef]]) -> list[Diagnostic]:
    return [
        Diagnostic(
            f"environment variable {ref.env} is not set",
            Severity.WARNING,
            where=spec.place(workspace.document, ("models", owner.name, "api_key")),
            address=owner,
            hint=f"`llmctl apply` needs it: export {ref.env}=…",
        )
        for owner, ref in secrets
        if not os.environ.get(ref.env)
    ]


def _policies(desired: Desired) -> tuple[policy.PolicyResult, ...]:
    specs = {a.name: r.spec for a, r in desired.resources.items() if a.kind == "policy"}
    return policy.evaluate(specs, desired.resources, desired.environment, project=desired.project)


def _with_cached(forecast: GateForecast, made: Plan, known: list[Evidence]) -> GateForecast:
    resource = made.desired.resources[forecast.gate]
    request = gates.GateRequest(
        gate=forecast.gate.name,
        gate_revision=resource.revision,
        spec=resource.spec,
        route_revision=forecast.revision,
        baseline_revision=forecast.baseline,
        rows=(),
    )
    cached = gates.find_cached(request, [e for e in known if e.gate == forecast.gate.name])
    return replace(forecast, cached=cached.verdict.value if cached else "")
