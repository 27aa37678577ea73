"""Use case: what would change, why, and what would prove it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from llmctl import gates, spec
from llmctl.app.local import elsewhere, outdated
from llmctl.app.policies import judge, today, untold
from llmctl.app.promotion import Promotion, origins, promotion
from llmctl.app.promotion_proof import Sought
from llmctl.app.untrusted import as_far_as_told, of_built_in_kinds
from llmctl.app.workspace import Workspace
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.errors import InvalidInput, RecordError
from llmctl.core.evidence import Evidence
from llmctl.core.protocols import GatewayReading
from llmctl.core.resources import Desired, RecordState, Resource
from llmctl.core.secrets import SecretRef
from llmctl.plan import GateForecast, Plan, as_recorded, build_plan
from llmctl.plan.drift import unmanaged
from llmctl.record import Lock, find_interrupted, side_refs, source_at
from llmctl.spec.suggestions import suggestion


@dataclass(frozen=True, slots=True)
class Scope:
    """What narrows or widens a plan. ``targets`` are addresses as the user wrote them, empty for everything;
    ``base`` is a git revision whose policies judge too, and with whose gates those of the file are compared;
    ``promote_from`` an environment in which artifact revisions must have passed, beside the one that the file may
    name, and ``from_record`` where its record is: a clone's path, a git URL or the file of a bundle, "" for here.
    ``allowed_signers`` says whose signatures count there, ``None`` for those of git's settings."""

    targets: tuple[str, ...] = ()
    base: str = ""
    promote_from: str = ""
    from_record: str = ""
    allowed_signers: Path | None = None


EVERYTHING = Scope()


def plan(workspace: Workspace, scope: Scope = EVERYTHING, *, offline: bool = False) -> Plan:
    """Plan what ``llmops.yaml`` asks for. Reads only; raises ``InvalidInput`` when the file is wrong."""
    resolved = workspace.resolved
    desired, notes = resolved.desired, resolved.warnings
    if workspace.document.sealed:
        desired, more = as_far_as_told(desired, _recorded(workspace), resolved.unknown)
        notes = (*notes, *more)
    return plan_for(
        workspace,
        desired,
        scope,
        action="apply",
        offline=offline,
        warnings=notes,
        # Which variables are set is nothing that a stranger should learn.
        secrets=() if workspace.document.sealed else resolved.secrets,
    )


def plan_for(
    workspace: Workspace,
    desired: Desired,
    scope: Scope = EVERYTHING,
    *,
    action: str,
    offline: bool = False,
    rollback_to: int = 0,
    warnings: Iterable[Diagnostic] = (),
    secrets: Iterable[tuple[Address, SecretRef]] = (),
) -> Plan:
    """Plan any desired state: the file's, an earlier entry's (rollback), or none at all (destroy)."""
    if not offline:
        workspace.sync()
    recorded = _recorded(workspace)
    seen = None if offline else workspace.read_live(desired, recorded)
    notes = [*warnings, *_unfinished(workspace), *moved_port(workspace, seen.gateway if seen else None)]
    notes += elsewhere(workspace) if seen else ()
    notes += outdated(seen.gateway) if seen and action != "destroy" else ()
    if seen is not None and action != "destroy":
        _refuse_if_live_is_ahead(workspace, recorded)
        notes += unmanaged(desired, recorded, seen)
    base = _rules_at(workspace, scope.base) if scope.base else None
    made = build_plan(
        desired,
        recorded,
        seen,
        action=action,
        gated=action == "apply",
        rollback_to=rollback_to,
        source_commit=workspace.repository.head_commit(),
        targets=_targets(scope.targets, desired, recorded),
        base=base,
        base_name=scope.base,
    )
    notes += _unset(workspace, secrets) if made.steps else []
    known = workspace.reader.evidence() if made.gates else []
    judged = judge(made, desired, base, today())
    passed = _promotion(workspace, made, scope, fetch=not offline)
    return replace(
        made,
        gates=tuple(_with_cached(forecast, made, known) for forecast in made.gates),
        policies=judged,
        denials=(*made.denials, *passed.denials),
        warnings=untold([*notes, *passed.warnings], judged, desired),
        promotion=passed.proof,
    )


def _recorded(workspace: Workspace) -> RecordState:
    return of_built_in_kinds(workspace.recorded()) if workspace.document.sealed else workspace.recorded()


def _targets(asked: Iterable[str], desired: Desired, recorded: RecordState) -> tuple[Address, ...]:
    known = {*desired.resources, *recorded.resources}
    found = []
    for text in asked:
        try:
            address = Address.parse(text)
        except ValueError:
            address = None
        if address is None or address not in known:
            hint = suggestion(text, [str(a) for a in sorted(known)], "resources")
            raise InvalidInput([Diagnostic(f"there is no resource {text!r}", hint=hint)])
        found.append(address)
    return tuple(dict.fromkeys(found))


def _rules_at(workspace: Workspace, revision: str) -> Mapping[Address, Resource]:
    """The gates and policies that the file had in another git revision."""
    files = source_at(workspace.repository, revision, workspace.root)
    return spec.base_rules(workspace.document, files, workspace.environment.name, base=revision)


def _promotion(workspace: Workspace, made: Plan, scope: Scope, *, fetch: bool) -> Promotion:
    return promotion(
        made, origins(workspace, Sought(scope.from_record, fetch, scope.allowed_signers)), scope.promote_from
    )


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
        remote = workspace.repository.remote
        there = f" on {remote}" if remote else ""
        raise RecordError(
            f"the gateway has what apply serial {config.serial} published, the record ends at {recorded.serial}",
            detail="Entries of the record were lost or rewritten; a plan made from it would be wrong.",
            hint=f"Get {branch} back{there} (git reflog, another clone), or `llmctl destroy` what runs and start over.",
        )


def in_progress(workspace: Workspace) -> tuple[str, str]:
    """Who works on the environment now, and which apply never ended; "" for none."""
    repository, name = workspace.repository, workspace.environment.name
    refs = side_refs(repository, name)
    lock = Lock(repository, name).peek(refs)
    if lock is not None and not lock.abandoned:
        return ("" if lock.is_ours else f"{lock.describe()}, {lock.age()}"), ""
    found = find_interrupted(repository, name, refs=refs)
    return "", found.describe() if found else ""


def _unfinished(workspace: Workspace) -> list[Diagnostic]:
    working, interrupted = in_progress(workspace)
    if working:
        return [Diagnostic(f"somebody applies at this moment: {working}", Severity.WARNING, hint="Plan again later.")]
    if interrupted:
        hint = "The next `llmctl apply` records what it did, and goes on."
        return [Diagnostic(interrupted, Severity.WARNING, hint=hint)]
    return []


def moved_port(workspace: Workspace, gateway: GatewayReading | None) -> list[Diagnostic]:
    """A gateway's port is no resource: clients hold on to it, so it moves only when the gateway is started."""
    port = workspace.environment.gateway_port
    there = urlsplit(gateway.base_url).port if gateway and gateway.running else None
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


def _with_cached(forecast: GateForecast, made: Plan, known: list[Evidence]) -> GateForecast:
    """The forecast with the verdict that recorded evidence gives already, where its key still stands."""
    gate = as_recorded(made, forecast.gate) if forecast.as_recorded else made.desired.resources[forecast.gate]
    assert gate is not None  # a forecast is of a gate that is declared, or recorded
    request = gates.GateRequest(
        gate=forecast.gate.name,
        gate_revision=gate.revision,
        spec=gate.spec,
        route_revision=forecast.revision,
        baseline_revision=forecast.baseline,
        rows=(),
    )
    cached = gates.find_cached(request, [e for e in known if e.gate == forecast.gate.name])
    return replace(forecast, cached=cached.verdict.value, cached_at=cached.measured_at) if cached else forecast
