"""Use case: make it so. Apply, destroy and rollback are one function with another desired state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic

from llmctl.app.entry import ci_run, decisions, rejections, subject, word
from llmctl.app.interrupted import close_interrupted
from llmctl.app.planning import nothing_desired, plan, plan_for
from llmctl.app.policies import refusal
from llmctl.app.preflight import preflight
from llmctl.app.request import Request
from llmctl.app.rollback import LAST_GOOD, desired_at, last_good
from llmctl.app.saved_plan import read_for, refuse_if_stale
from llmctl.app.workspace import Workspace, look_again
from llmctl.apply import ApplyResult, Run, run_destroy, run_steps
from llmctl.core.address import Address
from llmctl.core.errors import Denied, LlmctlError, ProviderError
from llmctl.core.exits import ExitCode, first_that_applies
from llmctl.core.protocols import Op
from llmctl.plan import Plan, plan_digest
from llmctl.record import Attempt, HeldLock, Lock

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
        run=ci_run(),
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
        word(code, request, finished=_finished(result, errors)),
        subject=subject(request, made, result, errors),
        decisions=decisions(workspace, request, made, result),
        rejections=rejections(made, request, result, workspace.repository.actor()),
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
