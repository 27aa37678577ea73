"""Use case: make it so. Apply, destroy and rollback are one function with another desired state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from time import monotonic

from llmctl.app.approvals import Counted, counted, require_approvals
from llmctl.app.break_glass import broken, checked_reason, ended, opening
from llmctl.app.entry import Consented, ci_run, decisions, rejections, subject, trailers, word
from llmctl.app.interrupted import close_interrupted, forget_approvals
from llmctl.app.planning import nothing_desired, plan, plan_for
from llmctl.app.policies import refusal, today
from llmctl.app.preflight import preflight
from llmctl.app.request import Request
from llmctl.app.rollback import LAST_GOOD, desired_at, last_good
from llmctl.app.saved_plan import read_for, refuse_if_stale, with_base
from llmctl.app.workspace import Workspace, look_again
from llmctl.apply import ApplyResult, Run, run_destroy, run_steps
from llmctl.core.address import Address
from llmctl.core.decisions import BreakGlass
from llmctl.core.errors import Denied, LlmctlError, ProviderError
from llmctl.core.evidence import Evidence
from llmctl.core.exits import ExitCode, first_that_applies
from llmctl.core.protocols import Op
from llmctl.plan import Plan, plan_digest
from llmctl.record import Attempt, HeldLock, Lock
from llmctl.record.approvals import before
from llmctl.record.objects import utc

_START_S = 60.0


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
    workspace.sync()
    workspace.recorded()  # another project's record is told before anything is written
    declared: Collection[Address] = ()
    if request.rollback_to is None and not request.destroy:
        # A wrong file is told before the lock is taken.
        declared = workspace.resolved.desired.resources
    lock = Lock(workspace.repository, workspace.environment.name)
    published = workspace.target.last_published()  # a record that was lost must not hand out old fences again
    with lock.acquire(f"llmctl {request.action}", at_least=published.fence if published else 0) as held:
        close_interrupted(workspace, held, request.notice)
        if request.rollback_to == LAST_GOOD:
            request = replace(request, rollback_to=last_good(workspace))
        saved = read_for(workspace, request.plan_file, declared) if request.plan_file else None
        if saved is not None:
            request = replace(request, scope=replace(request.scope, targets=tuple(map(str, saved.targets))))
        made = _plan(workspace, request)
        if request.plan_file and saved:
            made = with_base(made, saved)
            refuse_if_stale(request.plan_file, saved, made)
        made, approved = _approved(workspace, request, made)
        _refuse_if_denied(made)
        if made.is_empty and not (request.destroy and workspace.target.exists()):
            return Outcome(made, None, 0, ExitCode.OK)
        if not made.break_glass:
            require_approvals(made, approved, request.plan_file, request.option)
        preflight(workspace, made)
        if not request.confirm(made):
            return Outcome(made, None, 0, ExitCode.OK, declined=True)
        outcome = _run(workspace, request, made, held, approved)
    if outcome.finished and not request.destroy:
        look_again(workspace)
    return outcome


def _plan(workspace: Workspace, request: Request) -> Plan:
    workspace.sync()
    if request.destroy:
        return plan_for(workspace, nothing_desired(workspace), action="destroy")
    if request.rollback_to is not None:
        serial = request.rollback_to
        return plan_for(workspace, desired_at(workspace, serial), action="rollback", rollback_to=serial)
    return plan(workspace, replace(request.scope, allowed_signers=request.allowed_signers))


def planned(workspace: Workspace, request: Request) -> Plan:
    """What an apply, a destroy or a rollback would do now, to be saved and approved. Nothing is locked or changed."""
    if request.rollback_to == LAST_GOOD:
        request = replace(request, rollback_to=last_good(workspace))
    made = _plan(workspace, request)
    return replace(made, approvals=counted(workspace, made, request.allowed_signers, request.now()).consent)


def _approved(workspace: Workspace, request: Request, made: Plan) -> tuple[Plan, Counted]:
    """The plan with who approved it; in an emergency without what that lets it skip."""
    approved = counted(workspace, made, request.allowed_signers, request.now())
    made = replace(made, approvals=approved.consent)
    if request.break_glass and not made.is_empty:
        reason = checked_reason(request.break_glass)
        desired = workspace.resolved.desired if request.rollback_to is None else made.desired
        made = broken(made, desired, reason, approved.consent.missing, today())
        if not made.break_glass:
            request.notice("Nothing had to be skipped: this is an ordinary apply.")
            return made, approved
        approved = replace(approved, given=(), refused=())  # they were of the plan in which its gates run
        made = replace(made, approvals=approved.consent)
    return made, approved


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


def _run(workspace: Workspace, request: Request, made: Plan, held: HeldLock, approved: Counted) -> Outcome:
    recorded, digest = made.recorded, plan_digest(made)
    attempt = Attempt.begin(
        workspace.repository,
        workspace.environment.name,
        recorded,
        fence=held.fence,
        action=request.action,
        plan_digest=digest,
        source_commit=made.source_commit,
        project=made.desired.project,
        actor=workspace.repository.actor(),
        run=ci_run(),
        lock=held,
    )
    own = _emergency(workspace, attempt, made, request.now())
    begun = Consented(approved, own, applied_source=approved.applied_source)
    attempt.decide(decisions(workspace, request, made, None, begun))
    if own:
        attempt.commit(opening(own))
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
    finished = _finished(result, errors)
    left = ended(made, result, _known(workspace, made, own), own, finished=finished)
    source = _applied_source(workspace, made, approved) if finished else approved.applied_source
    consent = Consented(approved, own, left.closed, lowers=finished and own is None, applied_source=source)
    decided = decisions(workspace, request, made, result, consent)
    held.check()
    attempt.close(
        word(code, request, finished=finished),
        subject=subject(request, made, result, errors, left.closed),
        decisions=decided,
        rejections=rejections(made, request, result, workspace.repository.actor()),
        break_glass=left.still_open,
        trailers=trailers(decided),
    )
    forget_approvals(workspace, request.notice)
    return Outcome(made, result, attempt.serial, code, errors=tuple(errors))


def _emergency(workspace: Workspace, attempt: Attempt, made: Plan, now: datetime) -> BreakGlass | None:
    """The break-glass that this is; None for an ordinary apply."""
    if not made.break_glass:
        return None
    actor = workspace.repository.actor()
    return BreakGlass(attempt.serial, made.break_glass, actor, utc(now), made.skipped_gates, made.approvals.missing)


def _applied_source(workspace: Workspace, made: Plan, approved: Counted) -> str:
    """The commit up to which all that the file says is applied now, with as many approvals as were needed."""
    if made.action == "rollback":
        return before(workspace.repository, made.recorded.head, made.rollback_to).applied_source
    if made.action == "destroy":
        return ""
    left_out = made.targets or made.blocked or (made.break_glass and made.approvals.missing)
    return approved.applied_source if left_out else made.source_commit


def _known(workspace: Workspace, made: Plan, own: BreakGlass | None) -> list[Evidence]:
    """The evidence of before, where it decides what stays open."""
    return workspace.reader.evidence() if own or made.recorded.break_glass else []


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
