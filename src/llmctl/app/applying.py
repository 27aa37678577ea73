"""Use case: make it so. Apply, destroy and rollback are one function with another desired state."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic

from llmctl.app.planning import EVERYTHING, Scope, nothing_desired, plan, plan_for
from llmctl.app.policies import refusal
from llmctl.app.preflight import preflight
from llmctl.app.rollback import LAST_GOOD, desired_at, find_rejection, last_good
from llmctl.app.saved_plan import read_for, refuse_if_stale
from llmctl.app.workspace import Workspace, look_again
from llmctl.apply import ApplyResult, Reporter, Run, State, run_destroy, run_steps
from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.errors import Denied, LlmctlError, Locked, ProviderError
from llmctl.core.exits import ExitCode, first_that_applies
from llmctl.core.protocols import Op
from llmctl.core.resources import Rejection
from llmctl.core.steps import Action, Destroy, Move, Promote, Step
from llmctl.plan import Plan, plan_digest, plan_json, undone
from llmctl.record import Action as RecordAction
from llmctl.record import Attempt, HeldLock, Lock, find_interrupted
from llmctl.record import Outcome as Ending

_START_S = 60.0
_NAMED = 3  # changes that the subject of an entry names


@dataclass(frozen=True)
class Request:
    """What an apply is asked to do. ``confirm`` is shown the plan and says whether to go on."""

    confirm: Callable[[Plan], bool]
    reporter: Reporter
    notice: Callable[[str], None]
    cancelled: Event = field(default_factory=Event)
    parallelism: int = 8
    plan_file: Path | None = None
    scope: Scope = EVERYTHING
    rollback_to: int | None = None  # a serial, or LAST_GOOD
    destroy: bool = False
    reason: str = ""

    @property
    def action(self) -> RecordAction:
        return "destroy" if self.destroy else "apply" if self.rollback_to is None else "rollback"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended. ``serial`` is 0 when nothing was recorded because nothing was to do or it was declined."""

    plan: Plan
    result: ApplyResult | None
    serial: int
    exit_code: ExitCode
    declined: bool = False
    errors: tuple[LlmctlError, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether every step was done; an interruption (exit code 130) may have come too late to leave any."""
        return _finished(self.result, self.errors)


def apply(workspace: Workspace, request: Request) -> Outcome:
    """Plan under the lock, check everything that forbids it, then run the steps and record what happened.

    Raises before anything was changed: ``InvalidInput``, ``Locked``, ``StalePlan``, ``Denied``,
    ``ProviderError`` for what cannot be read. Later failures are in the outcome, and in the record.
    """
    workspace.repository.require_identity()
    workspace.recorded()  # another project's record is told before anything is written
    declared: Collection[Address] = ()
    if request.rollback_to is None and not request.destroy:
        # A wrong file is told before the lock is taken.
        declared = workspace.resolved.desired.resources
    lock = Lock(workspace.repository, workspace.environment.name)
    published = workspace.target.last_published()  # a record that was lost must not hand out old fences again
    with lock.acquire(f"llmctl {request.action}", at_least=published.fence if published else 0) as held:
        _close_interrupted(workspace, held, request)
        if request.rollback_to == LAST_GOOD:
            request = replace(request, rollback_to=last_good(workspace))
        saved = read_for(workspace, request.plan_file, declared) if request.plan_file else None
        if saved is not None:
            request = replace(request, scope=replace(request.scope, targets=tuple(map(str, saved.targets))))
        made = _plan(workspace, request)
        if request.plan_file and saved:
            refuse_if_stale(request.plan_file, saved, made)
            made = replace(made, policies=tuple(dict.fromkeys((*made.policies, *saved.denied))))
        _refuse_if_denied(made)
        if made.is_empty and not (request.destroy and workspace.target.exists()):
            return Outcome(made, None, 0, ExitCode.OK)
        preflight(workspace, made)
        if not request.confirm(made):
            return Outcome(made, None, 0, ExitCode.OK, declined=True)
        outcome = _run(workspace, request, made, held)
    if outcome.finished and not request.destroy:
        look_again(workspace)
    return outcome


def _close_interrupted(workspace: Workspace, held: HeldLock, request: Request) -> None:
    found = find_interrupted(workspace.repository, workspace.environment.name)
    if found is None:
        return
    request.notice(found.describe())
    state = workspace.reader.state()
    attempt = found.recover(held.fence)
    rejections = state.rejections
    if rejections and attempt.tip:
        to = {old: new for new, old in undone(state, workspace.reader.state_of(attempt.tip))}
        rejections = _under_new_names(rejections, to)
    attempt.close(
        "interrupted",
        subject=f"{found.action} interrupted",
        decisions={"interrupted": True, "open_intents": [i.step for i in found.intents]},
        rejections=rejections,
    )


def _plan(workspace: Workspace, request: Request) -> Plan:
    if request.destroy:
        return plan_for(workspace, nothing_desired(workspace), action="destroy")
    if request.rollback_to is not None:
        serial = request.rollback_to
        return plan_for(workspace, desired_at(workspace, serial), action="rollback", rollback_to=serial)
    return plan(workspace, request.scope)


def _refuse_if_denied(made: Plan) -> None:
    """Exit 3 and errors, before anything changed."""
    if made.blocked and not made.steps:
        first = made.blocked[0]
        raise ProviderError(
            f"{first.address or 'the target'} {first.summary}",
            detail=f"{first.detail}\nNothing was changed: what cannot be read is not taken for absent.".lstrip(),
            hint=first.hint or "Look at `llmctl status`; `llmctl destroy` takes away what runs, whatever its state.",
        )
    reasons = [f"{d.address}: {d.summary}" + (f" ({d.detail})" if d.detail else "") for d in made.denials]
    hints = [d.hint for d in made.denials]
    if made.action != "destroy" and (denying := [refusal(result) for result in made.policies if result.denies]):
        reasons += denying
        hints.append("Change what the policy is about, or the policy, in a reviewed commit.")
    if reasons:
        raise Denied(
            f"{len(reasons)} reason{'s' if len(reasons) > 1 else ''} against this {made.action}; nothing was changed",
            detail="\n".join(reasons),
            hint="\n".join(dict.fromkeys(hint for hint in hints if hint)),
        )


def _run(workspace: Workspace, request: Request, made: Plan, held: HeldLock) -> Outcome:
    recorded = made.recorded
    attempt = Attempt.begin(
        workspace.repository,
        workspace.environment.name,
        recorded,
        fence=held.fence,
        action=request.action,
        plan_digest=plan_digest(made),
        source_commit=made.source_commit,
        project=made.desired.project,
        actor=workspace.repository.actor(),
        run=_ci_run(),
    )
    run = Run(
        plan=made,
        target=workspace.target,
        journal=attempt,
        serial=attempt.serial,
        fence=held.fence,
        check_lease=held.check,
        on_gate=request.reporter.gate,
        cancelled=request.cancelled,
        known_evidence=workspace.reader.evidence() if made.gates else [],
        resources=dict(recorded.resources),
        scratch=workspace.target.state_folder / "gates",
    )
    result, errors = _steps(workspace, request, run)
    codes = [*(e.exit_code for e in errors), *([ExitCode.ERROR] if made.blocked else [])]
    code = ExitCode.INTERRUPTED if request.cancelled.is_set() else first_that_applies(codes)
    held.check()
    attempt.close(
        _word(code, request, finished=_finished(result, errors)),
        subject=_subject(request, made, result, errors),
        decisions=_decisions(workspace, request, made, result),
        rejections=_rejections(made, request, result, workspace.repository.actor()),
    )
    return Outcome(made, result, attempt.serial, code, errors=tuple(errors))


def _steps(workspace: Workspace, request: Request, run: Run) -> tuple[ApplyResult | None, list[LlmctlError]]:
    op = Op(
        idempotency_key=f"{run.environment}/{run.serial}/target",
        deadline_s=monotonic() + _START_S,
        cancelled=request.cancelled,
        progress=request.notice,
        check_lease=run.check_lease,
        serial=run.serial,
        fence=run.fence,
    )
    result: ApplyResult | None = None
    try:
        if request.destroy:
            end = partial(_effect, run, "target", "destroy", lambda: workspace.target.destroy(op))
            result = run_destroy(run, request.reporter, end, parallelism=request.parallelism)
        else:
            first = not workspace.target.exists()
            _effect(run, "target", "start", lambda: workspace.target.start(op))
            if first:
                workspace.remember()
            result = run_steps(run, request.reporter, parallelism=request.parallelism)
        errors = [r.error for r in result.failed if r.error is not None]
    except LlmctlError as error:
        return result, [error]
    return result, errors


def _effect(run: Run, step: str, effect: str, do: Callable[[], None]) -> None:
    intent = run.journal.intend(step, effect, {})
    do()
    run.journal.done(intent, "ok", {})


def _finished(result: ApplyResult | None, errors: Sequence[LlmctlError]) -> bool:
    return result is not None and result.ok and not errors


def _word(code: ExitCode, request: Request, *, finished: bool) -> Ending:
    """The record says what holds: where every step was done, an interruption left nothing out."""
    if finished:
        return "rolled back" if request.action == "rollback" else "applied"
    return "interrupted" if code is ExitCode.INTERRUPTED else "failed"


def _subject(request: Request, made: Plan, result: ApplyResult | None, errors: list[LlmctlError]) -> str:
    """What the log shows of an entry: what changed, or why it did not."""
    what = request.action if request.rollback_to is None else f"rollback to serial {request.rollback_to}"
    if errors:
        return f"{what}: {errors[0].summary}"
    if result is None or not result.ok:
        return f"{what}: stopped before it was done"
    said = [f"{c.address} v{c.version_after}" for c in made.changes if c.action is not Action.DELETE]
    said += [f"{c.address} deleted" for c in made.changes if c.action is Action.DELETE]
    touched = {step.address for step in made.steps}
    drifted = dict.fromkeys(d.address for d in made.drift if d.address in touched)
    said += [f"{address} restored" for address in drifted]
    routes_first = sorted(said, key=lambda text: not text.startswith("route."))
    more = f" and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
    return f"{what}: {', '.join(routes_first[:_NAMED]) or 'nothing was left'}{more}"


def _decisions(workspace: Workspace, request: Request, made: Plan, result: ApplyResult | None) -> Json:
    shown = plan_json(made)
    return {
        "action": request.action,
        "reason": request.reason,
        "plan": shown["digest"],
        "changes": [{k: c[k] for k in ("address", "action", "reason", "before", "after")} for c in shown["changes"]],
        "drift": shown["drift"],
        "policies": shown["policies"],
        "source_commit": made.source_commit,
        "source_modified": workspace.repository.is_dirty(workspace.document.files),
        "steps": [
            {"id": r.step.id, "state": r.state.value, "text": r.text, "seconds": round(r.seconds, 3)}
            for r in (result.results if result else ())
        ],
    }


def _rejections(made: Plan, request: Request, result: ApplyResult | None, actor: str) -> tuple[Rejection, ...]:
    """A rollback rejects the route revisions that it left, each as soon as that route is back, or gone.

    What is rejected already stays so, also under the name that its route got.
    """
    done = [r.step for r in result.results if r.state is State.DONE] if result else []
    to = {step.origin: step.address for step in done if isinstance(step, Move)}
    kept = _under_new_names(made.recorded.rejections, to)
    if request.action != "rollback":
        return kept
    ended = (s for s in done if isinstance(s, Promote | Destroy) and s.address.kind == "route")
    away = {step.address for step in ended if not _restores(step)}
    serial = made.recorded.serial + 1
    left = (
        Rejection(c.address, c.before, serial, request.reason or f"rolled back to serial {request.rollback_to}", actor)
        for c in made.changes
        if c.address in away and c.before and c.before != c.after
    )
    known = {(r.address, r.revision) for r in kept}
    return (*kept, *(r for r in left if (r.address, r.revision) not in known))


def _under_new_names(rejections: Sequence[Rejection], to: Mapping[Address, Address]) -> tuple[Rejection, ...]:
    return tuple(replace(r, address=to.get(r.address, r.address)) for r in rejections)


def _restores(step: Step) -> bool:
    return isinstance(step, Promote) and step.action is Action.RESTORE


def _ci_run() -> str:
    """The address of the CI run, when there is one."""
    env = os.environ
    if env.get("GITHUB_RUN_ID"):
        return (
            f"{env.get('GITHUB_SERVER_URL', '')}/{env.get('GITHUB_REPOSITORY', '')}/actions/runs/{env['GITHUB_RUN_ID']}"
        )
    return env.get("CI_JOB_URL") or env.get("BUILD_URL") or ""


def unlock(workspace: Workspace, *, force: bool) -> str | None:
    """End the lock. Returns who held it, None when nobody did; raises ``Locked`` without ``force`` when it lives."""
    lock = Lock(workspace.repository, workspace.environment.name)
    info = lock.peek()
    if info is None:
        return None
    if not force and not info.abandoned:
        raise Locked(
            f"{workspace.environment.name} is locked by {info.describe()}, which still runs",
            hint="Wait for it. With --force it stops before its next effect, and the next apply goes on from there.",
        )
    lock.force_expire()
    return info.describe()


def unreject(workspace: Workspace, revision: str, reason: str) -> tuple[Rejection, int]:
    """Take a rejection back, with the reason in the record; returns it and the serial.

    Raises ``InvalidInput`` when there is no such one.
    """
    workspace.repository.require_identity()
    with Lock(workspace.repository, workspace.environment.name).acquire("llmctl unreject") as held:
        state = workspace.recorded()
        found = find_rejection(state.rejections, revision)
        attempt = Attempt.begin(
            workspace.repository,
            workspace.environment.name,
            state,
            fence=held.fence,
            action="unreject",
            plan_digest="",
            source_commit=workspace.repository.head_commit(),
            project=workspace.document.project,
            actor=workspace.repository.actor(),
            run=_ci_run(),
        )
        attempt.close(
            "applied",
            subject=f"unreject {found.address}@{found.revision[:8]}: {reason}",
            decisions={"action": "unreject", "revision": found.revision, "reason": reason},
            rejections=tuple(r for r in state.rejections if r is not found),
        )
        return found, attempt.serial
