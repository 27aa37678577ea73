"""What each step does. One method a step type; every effect is journalled before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmctl.apply.proof import blocked, gate_request, judging
from llmctl.apply.report import GateReport
from llmctl.apply.run import Run, trailers
from llmctl.apply.traffic import Traffic, split
from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.errors import ProviderError
from llmctl.core.kinds import Role, kind_of
from llmctl.core.protocols import Change, Op
from llmctl.core.resources import Key, Live, Recorded, Spec
from llmctl.core.steps import Action, Destroy, Move, Promote, Provision, Retire, RunGate, Shift, Stage, Step
from llmctl.gates import limits_of
from llmctl.gates import run as run_gate
from llmctl.plan.changes import next_version
from llmctl.plan.routes import chain_keys

QUICK_S = 60.0
READY_S = 180.0
DRAIN_S = 30.0
GATE_S = 1800.0

_LIVE = (Role.ARTIFACT, Role.DEPLOYMENT, Role.RESOURCE)  # roles with a provider of their own


class Effects:
    """Interprets steps. ``perform`` returns a line that says what was done."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.traffic = Traffic(run)
        self._proven = {(step.route, step.revision) for step in run.plan.steps if isinstance(step, RunGate)}

    def allowed_s(self, step: Step) -> float:
        """How long a step may take, all its tries together, in seconds."""
        match step:
            case Provision() if kind_of(step.address.kind).role in _LIVE:
                return _timeout(self.run.spec_of(step.address, step.revision), "ready_s", READY_S)
            case RunGate():
                return QUICK_S + _timeout(judging(self.run, step).spec, "run_s", GATE_S)
            case Shift():
                return QUICK_S + step.hold_s
            case Retire() | Destroy():
                return QUICK_S + self._drain_s(step.address, step.revision)
            case _:
                return QUICK_S

    def swaps(self, step: Step) -> bool:
        """Whether all that a step does is one edit of the gateway's configuration: ``Traffic.swap``, then ``record``.

        Such a step takes nothing of this machine while it waits, and many go out as one.
        """
        match step:
            case Stage() | Promote():
                return True
            case Shift():
                return not step.hold_s
            case Destroy() if self.run.plan.action == "destroy":
                return False  # the target is gone as a whole already; this only records what that means
            case Move() | Provision() | Retire() | Destroy():
                return kind_of(step.address.kind).role is Role.ROUTE
            case _:
                return False

    def lasts(self, step: Step) -> bool:
        """Whether a step may take minutes by its nature: an engine starts, a gate asks, a split is held."""
        match step:
            case RunGate() | Shift():
                return True
            case _:
                return kind_of(step.address.kind).role in (Role.DEPLOYMENT, Role.RESOURCE)

    def perform(self, step: Step, op: Op) -> str:
        """Do one step that ``swaps`` says no of. Raises ``LlmctlError``; of an unknown type ``TypeError``."""
        match step:
            case Move():
                self._move(step, op)
            case Provision():
                if kind_of(step.address.kind).role in _LIVE:
                    self._make(step, op)
            case RunGate():
                return self._run_gate(step, op)
            case Shift():
                self.traffic.hold(step, op)
            case Retire():
                self._delete_known(step, op, Key(step.address.name, step.revision))
            case Destroy():
                self._destroy(step, op)
            case _:
                raise TypeError(f"unknown step {step!r}")
        return self.record(step)

    def record(self, step: Step) -> str:
        """Commit what a step did, which is done; the line that says what that was."""
        match step:
            case Move():
                return self._record_move(step)
            case Provision():
                return self._record_provision(step)
            case Promote():
                return self._record_promote(step)
            case Stage():
                purpose = " for the gate" if (step.address, step.revision) in self._proven else ""
                return f"reachable as {step.address.name}@{step.revision}{purpose}"
            case Shift():
                return split(step)
            case Retire():
                what = f"{step.address}@{step.revision[:8]}".rstrip("@")
                self._commit(step, f"retire {what}", {})
                return f"{step.revision[:8] or 'it'} is gone"
            case Destroy():
                self._commit(step, f"delete {step.address}", {step.address: None})
                return "deleted"
            case _:
                raise TypeError(f"unknown step {step!r}")

    # -- making ---------------------------------------------------------------------------------

    def _move(self, step: Move, op: Op) -> None:
        """The same content under the new name, and then no longer under the old one."""
        role = kind_of(step.address.kind).role
        if role is Role.ARTIFACT:
            key, spec = Key(step.address.name, step.revision), self.run.before[step.address].spec
            with self.run.effect(step, "create", {"key": str(key)}):
                self.run.inventory.create(step, op, key, self._wanted(step.address, spec), step.revision)
            self.delete(step, op, self.live(step, op, Key(step.origin.name, step.revision)))
        elif role is not Role.RULE:
            raise ProviderError(f"{step.origin} runs under its name and cannot be moved to {step.address}")

    def _make(self, step: Provision, op: Op) -> None:
        key = key_of(step.address, step.revision)
        want = self._wanted(step.address, self.run.spec_of(step.address, step.revision))
        was = self._changed_in_place(step, op, key)
        with self.run.effect(step, "create" if was is None else "update", {"key": str(key)}):
            if was is None:
                self.run.inventory.create(step, op, key, want, step.revision)
            else:
                self.run.inventory.update(step, op, was, want, step.revision)

    def _changed_in_place(self, step: Provision, op: Op, key: Key) -> Live[Json] | None:
        """What is to be updated; None when it is to be created, or adopted."""
        if kind_of(step.address.kind).role is Role.RESOURCE:
            new = step.action in (Action.CREATE, Action.ADOPT)
            return None if new else self.live(step, op, key)
        if step.action is not Action.UPDATE:
            return None
        was = self.live(step, op, key)
        return was if was is not None and was.healthy else None  # ill, its content or process is gone: made anew

    def _wanted(self, address: Address, spec: Spec) -> Json:
        if kind_of(address.kind).role is Role.ARTIFACT:
            return {"spec": spec, "root": self.run.plan.desired.root}
        return spec

    def live(self, step: Step, op: Op, key: Key) -> Live[Json] | None:
        return self.run.inventory.find(step, op, step.address.kind, key)

    def _desired(self, address: Address) -> Recorded:
        """What the record will say of a desired resource, with its version."""
        want = self.run.plan.desired.resources[address]
        was = self.run.versions_of(address)
        known = was.revisions if was else ()
        return Recorded(
            address,
            want.spec,
            want.revision,
            version=next_version(was, want.revision),
            needs=want.needs,
            revisions=known if want.revision in known else (*known, want.revision),
        )

    # -- proving --------------------------------------------------------------------------------

    def _baseline(self, step: RunGate, op: Op) -> str:
        """The revision to compare with, "" when it could not be brought back: nothing is live then."""
        if not step.baseline:
            return ""
        route = self.traffic.rollout.current(step, op).routes.get(step.route.name)
        if route is None or step.baseline not in route.revisions:
            return ""
        keys = chain_keys(self.run.before[step.route].spec)
        return step.baseline if all(self.traffic.runs(step, op, key) for key in keys) else ""

    def _run_gate(self, step: RunGate, op: Op) -> str:
        request = gate_request(self.run, step, self._baseline(step, op))
        access = self.traffic.rollout.access(step, op)
        with self.run.effect(step, "run gate", {"route": f"{step.route}@{step.revision}"}) as ended:
            result = run_gate(
                request,
                access,
                self.run.target.artifacts,
                self.run.known_evidence,
                **limits_of(judging(self.run, step).spec),
                resume=self.run.scratch,
                progress=lambda done, total: op.progress(f"{done}/{total} samples"),
                cancelled=op.cancelled,
            )
            evidence = result.evidence
            verdict = evidence.verdict.value
            ended(verdict, {"evidence": evidence.digest})
        self.run.on_gate(GateReport(evidence, result.worst, result.cached, step.as_recorded))
        judge = f"gate {step.address.name}{' as recorded' if step.as_recorded else ''}"
        change = Change(
            f"{judge} {verdict} for {step.route}@{step.revision[:8]}",
            evidence=(evidence,),
            trailers=(*trailers(step), ("Gate", f"{step.address.name} {verdict} {evidence.digest}")),
        )
        self.run.commit(change)
        if evidence.verdict.blocks:
            raise blocked(step, evidence)
        return f"{verdict} on {evidence.samples} samples"

    # -- taking away ----------------------------------------------------------------------------

    def _destroy(self, step: Destroy, op: Op) -> None:
        """Artifacts stay in the store: a rollback may need them. `destroy` takes the target away as a whole before,
        all but what plug-ins have."""
        role, name = kind_of(step.address.kind).role, step.address.name
        if role is Role.RESOURCE:
            self._delete_known(step, op, Key(name))
        elif role is Role.DEPLOYMENT and self.run.plan.action != "destroy":
            found = self.run.inventory.keys(step, op, step.address.kind, name)
            for key in sorted({*found, Key(name, step.revision)}):
                self._delete_known(step, op, key)

    def _delete_known(self, step: Retire | Destroy, op: Op, key: Key) -> None:
        """Delete what is live or, where it is not listed, what is known of it.

        A provider that lists half must not make llmctl forget the other half, and to delete what is really
        gone costs nothing.
        """
        was = self.live(step, op, key)
        if was is None:
            try:
                spec = self.run.spec_of(step.address, step.revision)
            except ProviderError:
                return
            was = Live(key, spec, step.revision)
        self.delete(step, op, was)

    def delete(self, step: Step, op: Op, was: Live[Json] | None) -> None:
        """Delete one live thing, drained first if it serves; one that is gone already is done."""
        if was is None:
            return
        if kind_of(step.address.kind).role is Role.DEPLOYMENT:
            self.traffic.drain(step, op, was.key, self._drain_s(step.address, was.key.revision))
        with self.run.effect(step, "delete", {"key": str(was.key)}):
            self.run.inventory.delete(step, op, was)

    def _drain_s(self, address: Address, revision: str) -> float:
        if kind_of(address.kind).role is not Role.DEPLOYMENT:
            return 0.0
        try:
            return _timeout(self.run.spec_of(address, revision), "drain_s", DRAIN_S)
        except ProviderError:
            return DRAIN_S  # a stray, of which nothing is recorded

    # -- recording ------------------------------------------------------------------------------

    def _record_move(self, step: Move) -> str:
        recorded = self.run.before[step.address]
        if step.address.kind == "route":  # it has the aliases of the one that is wanted already
            recorded = replace(recorded, spec={**recorded.spec, "aliases": list(self.traffic.aliases(step.address))})
        self._commit(step, f"move {step.origin} to {step.address}", {step.address: recorded, step.origin: None})
        return f"was {step.origin}"

    def _record_provision(self, step: Provision) -> str:
        if step.restores:
            self._commit(step, f"restore {step.address}", {})
            return "restored"
        recorded = self._desired(step.address)
        self._commit(step, f"{step.action.value} {step.address} v{recorded.version}", {step.address: recorded})
        runs = kind_of(step.address.kind).role is Role.DEPLOYMENT
        return f"{recorded.revision[:8]} runs" if runs else f"v{recorded.version}"

    def _record_promote(self, step: Promote) -> str:
        if step.action is Action.RESTORE:
            self._commit(step, f"restore {step.address}", {})
            return "restored as recorded"
        recorded = self._desired(step.address)
        self._commit(step, f"promote {step.address} v{recorded.version}", {step.address: recorded})
        return f"v{recorded.version} serves"

    def _commit(self, step: Step, subject: str, resources: Mapping[Address, Recorded | None]) -> None:
        self.run.commit(Change(subject, resources=resources, trailers=trailers(step)))


def key_of(address: Address, revision: str) -> Key:
    """The live key of a revision: plug-ins have one live thing a name, all others one a revision."""
    return Key(address.name) if kind_of(address.kind).role is Role.RESOURCE else Key(address.name, revision)


def _timeout(spec: Spec, name: str, default: float) -> float:
    """A timeout in seconds; ``default`` where the spec is of before there was one."""
    value = (spec.get("timeouts") or {}).get(name)
    return default if value is None else float(value)
