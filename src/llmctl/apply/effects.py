"""What each step does. One method a step type; every effect is journalled before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from threading import Event, Lock
from time import monotonic, time

from llmctl.apply.report import GateReport
from llmctl.apply.rollout import Edit, Rollout
from llmctl.core import gateway_config as gw
from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.errors import GateBlocked, ProviderError
from llmctl.core.evidence import Evidence, Verdict
from llmctl.core.kinds import Role, kind_of
from llmctl.core.protocols import Change, Drains, Journal, Op, Target
from llmctl.core.resources import Key, Recorded, Spec
from llmctl.core.steps import Action, Destroy, Promote, Provision, Retire, RunGate, Shift, Stage, Step
from llmctl.gates import GateRequest, Row
from llmctl.gates import run as run_gate
from llmctl.plan import Plan
from llmctl.plan.changes import next_version
from llmctl.plan.routes import chain_keys, route_revision
from llmctl.spec import dataset_rows

PROVISION_S = 180.0
QUICK_S = 60.0
LEASE_S = 60.0
DRAIN_S = 30.0

Progress = Callable[[str], None]


@dataclass
class Run:
    """One apply in progress: the plan, where it acts, and what is recorded so far.

    ``resources`` changes as steps are committed; ``mutex`` guards it, because steps run in parallel.
    """

    plan: Plan
    target: Target
    journal: Journal
    serial: int
    fence: int
    check_lease: Callable[[], None]
    on_gate: Callable[[GateReport], None]
    cancelled: Event = field(default_factory=Event)
    known_evidence: list[Evidence] = field(default_factory=list)
    resources: dict[Address, Recorded] = field(default_factory=dict)
    mutex: Lock = field(default_factory=Lock)

    _outputs: dict[Key, Spec] | None = None

    @property
    def environment(self) -> str:
        return self.plan.desired.environment.name

    def reachable(self) -> dict[Key, Spec]:
        """How each live endpoint revision is reached: read once, then kept up with what the steps do."""
        with self.mutex:
            if self._outputs is None:
                reading = self.target.providers["endpoint"].read_all()
                self._outputs = {key: live.outputs for key, live in reading.found.items() if live.healthy}
            return dict(self._outputs)

    def reach(self, key: Key, outputs: Spec | None) -> None:
        """An endpoint revision came (with its outputs) or went (None)."""
        self.reachable()
        with self.mutex:
            assert self._outputs is not None
            self._outputs.pop(key, None)
            if outputs is not None:
                self._outputs[key] = outputs

    def op(self, step: Step, progress: Progress, seconds: float, *, cancelled: Event | None = None) -> Op:
        return Op(
            idempotency_key=f"{self.environment}/{self.serial}/{step.id}",
            deadline_s=monotonic() + seconds,
            cancelled=cancelled or self.cancelled,
            progress=progress,
            check_lease=self.check_lease,
            serial=self.serial,
            fence=self.fence,
        )


class Effects:
    """Interprets steps. ``perform`` returns a line that says what was done."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rollout = Rollout(run.target.gateway, run.environment)

    def perform(self, step: Step, progress: Progress) -> str:
        """Do one step. Raises ``LlmctlError``; a step type that is not known raises ``TypeError``."""
        match step:
            case Provision():
                return self._provision(step, progress)
            case Stage():
                return self._stage(step, progress)
            case RunGate():
                return self._run_gate(step, progress)
            case Shift():
                return self._shift(step, progress)
            case Promote():
                return self._promote(step, progress)
            case Retire():
                return self._retire(step, progress)
            case Destroy():
                return self._destroy(step, progress)
            case _:
                raise TypeError(f"unknown step {step!r}")

    # -- provision ------------------------------------------------------------------------------

    def _provision(self, step: Provision, progress: Progress) -> str:
        role = kind_of(step.address.kind).role
        if role in (Role.ARTIFACT, Role.DEPLOYMENT):
            self._create(step, progress)
        if step.restores:
            self._commit(step, f"restore {step.address}", {})
            return "restored"
        if role is Role.ROUTE:
            wanted = self._gateway_revision(step.address, step.revision)
            op = self.run.op(step, progress, QUICK_S)
            # Also when it looks the same: the gateway reads its secrets anew, and one of them may be another now.
            self._publish(step, op, "update", lambda config: gw.staged(config, step.address.name, wanted), always=True)
        recorded = self.record_desired(step.address)
        self._commit(step, f"{step.action.value} {step.address} v{recorded.version}", {step.address: recorded})
        return f"v{recorded.version}" if role is not Role.DEPLOYMENT else f"{recorded.revision[:8]} runs"

    def _create(self, step: Provision, progress: Progress) -> None:
        provider = self.run.target.providers[step.address.kind]
        op = self.run.op(step, progress, PROVISION_S)
        key = Key(step.address.name, step.revision)
        want = self._wanted_state(step)
        was = provider.read_all().found.get(key) if step.action is Action.UPDATE else None
        if was is not None and not was.healthy:
            was = None  # its content or process is gone: made anew
        intent = self.run.journal.intend(step.id, "create", {"key": str(key)})
        live = provider.create(op, key, want) if was is None else provider.update(op, key, was, want)
        if live.revision != step.revision:
            raise ProviderError(
                f"{step.address}: revision {live.revision or 'unknown'} is there after creating {step.revision}",
                hint="The provider gave an inconsistent result; this is a defect of the provider.",
            )
        if step.address.kind == "endpoint":
            self.run.reach(key, live.outputs)
        self.run.journal.done(intent, "ok", {})

    def _wanted_state(self, step: Provision) -> Json:
        spec = self._spec_of_revision(step.address, step.revision)
        if kind_of(step.address.kind).role is Role.ARTIFACT:
            return {"spec": spec, "root": self.run.plan.desired.root}
        return spec

    def _spec_of_revision(self, address: Address, revision: str) -> Spec:
        """The spec of a revision: desired, recorded, or one that a route of either still uses."""
        desired = self.run.plan.desired.resources.get(address)
        if desired and desired.revision == revision:
            return desired.spec
        recorded = self.run.plan.recorded.resources.get(address)
        if recorded and recorded.revision == revision:
            return recorded.spec
        states = (self.run.plan.recorded.resources, self.run.plan.desired.resources)
        for resource in (r for state in states for a, r in state.items() if a.kind == "route"):
            for link in resource.spec["chain"]:
                if (link["endpoint"], link["revision"]) == (address.name, revision):
                    spec: Spec = link["spec"]
                    return spec
        raise ProviderError(f"{address}: nothing is recorded of revision {revision}")

    def record_desired(self, address: Address) -> Recorded:
        """What the record will say of a desired resource, with its version."""
        want = self.run.plan.desired.resources[address]
        was = self.run.plan.recorded.resources.get(address)
        known = was.revisions if was else ()
        return Recorded(
            address,
            want.spec,
            want.revision,
            version=next_version(was, want.revision),
            needs=want.needs,
            revisions=known if want.revision in known else (*known, want.revision),
        )

    # -- routes ---------------------------------------------------------------------------------

    def _gateway_revision(self, address: Address, revision: str) -> gw.RouteRevision:
        """The gateway's form of a route revision, with the addresses that its endpoints have now."""
        spec = self._spec_of_revision(address, revision)
        outputs = self.run.reachable()
        for key in chain_keys(spec):
            if key not in outputs:
                raise ProviderError(f"{address} needs endpoint {key}, which does not run", hint="Run `llmctl status`.")
        return route_revision(spec, revision, outputs)

    def _stage(self, step: Stage, progress: Progress) -> str:
        op = self.run.op(step, progress, QUICK_S)
        staged = self._gateway_revision(step.address, step.revision)
        self._publish(step, op, "stage", lambda config: gw.staged(config, step.address.name, staged))
        return f"reachable as {step.address.name}@{step.revision} for the gate"

    def _shift(self, step: Shift, progress: Progress) -> str:
        op = self.run.op(step, progress, QUICK_S)
        weights = {revision: share for revision, share in step.weights if share}
        lease = gw.Lease(self.run.serial, self.run.fence, expires_at=time() + LEASE_S)
        self._publish(step, op, "shift", lambda config: gw.shifted(config, step.address.name, weights, lease))
        return ", ".join(f"{share} % {revision[:8]}" for revision, share in step.weights)

    def _promote(self, step: Promote, progress: Progress) -> str:
        op = self.run.op(step, progress, QUICK_S)
        name = step.address.name
        if step.action is Action.RESTORE:
            wanted = self._gateway_revision(step.address, step.revision)
            route = gw.Route(name, {step.revision: wanted}, {step.revision: 100}, step.revision)
            restored = partial(gw.with_route, route=route)
            self._publish(step, op, "restore", restored, always=True)
            self._commit(step, f"restore {step.address}", {})
            return "restored as recorded"
        was = self.run.plan.recorded.resources.get(step.address)
        keep = was.revision if was else ""
        self._publish(step, op, "promote", lambda config: gw.promoted(config, name, step.revision, keep))
        recorded = self.record_desired(step.address)
        self._commit(step, f"promote {step.address} v{recorded.version}", {step.address: recorded})
        return f"v{recorded.version} serves"

    def _publish(self, step: Step, op: Op, effect: str, edit: Edit, *, always: bool = False) -> None:
        intent = self.run.journal.intend(step.id, effect, {"gateway": str(step.address)})
        changed = self.rollout.change(op, edit, always=always)
        self.run.journal.done(intent, "ok" if changed else "already so", {})

    # -- gates ----------------------------------------------------------------------------------

    def _baseline(self, step: RunGate) -> str:
        """The revision to compare with, "" when it could not be brought back: nothing is live then."""
        route = self.rollout.current().routes.get(step.route.name)
        if not step.baseline or route is None or step.baseline not in route.revisions:
            return ""
        spec = self.run.plan.recorded.resources[step.route].spec
        return step.baseline if self.run.reachable().keys() >= set(chain_keys(spec)) else ""

    def _run_gate(self, step: RunGate, progress: Progress) -> str:
        request = gate_request(self.run, step, self._baseline(step))
        intent = self.run.journal.intend(step.id, "run gate", {"route": f"{step.route}@{step.revision}"})
        result = run_gate(
            request,
            self.run.target.gateway.gate_access(),
            self.run.target.artifacts,
            self.run.known_evidence,
            progress=lambda done, total: progress(f"{done}/{total} samples"),
            cancelled=self.run.cancelled,
        )
        evidence = result.evidence
        self.run.journal.done(intent, evidence.verdict.value, {"evidence": evidence.digest})
        self.run.on_gate(GateReport(evidence, result.worst, result.cached))
        verdict = evidence.verdict.value
        change = Change(
            f"gate {step.address.name} {verdict} for {step.route}@{step.revision[:8]}",
            evidence=(evidence,),
            trailers=(*self._trailers(step), ("Gate", f"{step.address.name} {verdict} {evidence.digest}")),
        )
        self.run.check_lease()
        self.run.journal.commit(change)
        if evidence.verdict.blocks:
            raise _blocked(step, evidence)
        return f"{verdict} on {evidence.samples} samples"

    # -- taking away ----------------------------------------------------------------------------

    def _retire(self, step: Retire, progress: Progress) -> str:
        op = self.run.op(step, progress, QUICK_S + DRAIN_S)
        name = step.address.name
        if step.address.kind == "route":
            edit: Edit = partial(gw.without_route, name=name)
            if step.revision:
                edit = partial(gw.without_revision, name=name, revision=step.revision)
            self._publish(step, op, "retire", edit)
        else:
            self.delete_endpoint(step, Key(name, step.revision), op)
        what = f"{step.address}@{step.revision[:8]}".rstrip("@")
        self._commit(step, f"retire {what}", {})
        return f"{step.revision[:8] or 'it'} is gone"

    def delete_endpoint(self, step: Step, key: Key, op: Op) -> None:
        """Drain and delete one endpoint revision; one that is gone already is done."""
        provider = self.run.target.providers["endpoint"]
        was = provider.read_all().found.get(key)
        if was is None:
            return
        self._drain(key, op)
        self.run.reach(key, None)
        intent = self.run.journal.intend(step.id, "delete", {"key": str(key)})
        provider.delete(op, key, was)
        self.run.journal.done(intent, "ok", {})

    def _drain(self, key: Key, op: Op) -> None:
        """Wait until no request is in flight to an endpoint revision, a bounded time."""
        gateway = self.run.target.gateway
        if not isinstance(gateway, Drains):
            return
        until = min(op.deadline_s, monotonic() + DRAIN_S)
        pause = Event()
        while monotonic() < until and gateway.in_flight(key) > 0:
            op.progress("waiting for requests in flight")
            pause.wait(0.05)

    def _destroy(self, step: Destroy, progress: Progress) -> str:
        op = self.run.op(step, progress, QUICK_S + DRAIN_S)
        name = step.address.name
        if self.run.plan.action == "destroy":
            pass  # the target is gone as a whole already; this only records what that means
        elif step.address.kind == "route":
            self._publish(step, op, "delete", lambda config: gw.without_route(config, name))
        elif step.address.kind == "endpoint":
            for key in sorted(self.run.target.providers["endpoint"].read_all().found):
                if key.name == name:
                    self.delete_endpoint(step, key, op)
        # Artifacts stay in the store: a rollback may need them. `destroy` takes the whole store away.
        self._commit(step, f"delete {step.address}", {step.address: None})
        return "deleted"

    # -- recording ------------------------------------------------------------------------------

    def _trailers(self, step: Step) -> tuple[tuple[str, str], ...]:
        revision = getattr(step, "revision", "")
        return (("Resource", str(step.address)), *((("Revision", revision),) if revision else ()))

    def _commit(self, step: Step, subject: str, resources: Mapping[Address, Recorded | None]) -> None:
        self.run.check_lease()
        self.record(subject, resources, self._trailers(step))

    def record(
        self, subject: str, resources: Mapping[Address, Recorded | None], trailers: tuple[tuple[str, str], ...]
    ) -> None:
        """Put a change of resources into the attempt, and remember it for the steps that follow."""
        self.run.journal.commit(Change(subject, resources=resources, trailers=trailers))
        with self.run.mutex:
            for address, recorded in resources.items():
                if recorded is None:
                    self.run.resources.pop(address, None)
                else:
                    self.run.resources[address] = recorded


def gate_request(run: Run, step: RunGate, baseline: str) -> GateRequest:
    """What the gate's runner needs: the gate's spec and the rows of its dataset, from the artifact store."""
    gate = run.plan.desired.resources[step.address]
    path = run.target.artifacts.path(gate.spec["dataset_digest"])
    rows = tuple(Row.of(line, values) for line, values in dataset_rows(path, gate.spec["dataset_format"]))
    return GateRequest(
        gate=step.address.name,
        gate_revision=gate.revision,
        spec=gate.spec,
        route_revision=step.revision,
        baseline_revision=baseline,
        rows=rows,
    )


def _blocked(step: RunGate, evidence: Evidence) -> GateBlocked:
    failed = evidence.verdict is Verdict.FAIL
    bad = [j for j in evidence.judgements if j.verdict.blocks]
    detail = "\n".join(
        f"{j.metric} {j.rule} {j.threshold:g}: measured {j.estimate:.4g}, "
        f"between {j.lower:.4g} and {j.upper:.4g} at {j.confidence:.0%} on {j.samples} samples"
        for j in bad
    )
    more = max((j.samples_needed for j in bad), default=0)
    settle = f"{more} rows would settle it. " if more else ""
    undecided = f"Too few rows to tell. {settle}Add rows, or loosen the threshold in a reviewed commit."
    return GateBlocked(
        f"{step.address} {'failed' if failed else 'could not decide'} for {step.route}@{step.revision[:8]}",
        detail=detail,
        hint="Look at the worst rows; change the model, the prompt or the data." if failed else undecided,
    )
