"""Runs the DAG: independent steps in parallel, dependents of a failure not at all, then compensation."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from llmctl.apply.attempts import Attempts
from llmctl.apply.compensate import compensate
from llmctl.apply.effects import Effects
from llmctl.apply.report import ApplyResult, GateReport, Reporter, State, StepResult
from llmctl.apply.run import Run
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.errors import Interrupted, LlmctlError, ProviderError
from llmctl.core.kinds import Role, kind_of
from llmctl.core.resources import Key, Recorded
from llmctl.core.signals import HEAR_S
from llmctl.core.steps import Action, Move, Promote, Provision, RunGate, Step
from llmctl.graph import users_of
from llmctl.live import raised_in
from llmctl.plan.routes import endpoint_keys

PARALLELISM = 8


def run_steps(run: Run, reporter: Reporter, *, parallelism: int = PARALLELISM) -> ApplyResult:
    """Interpret the plan's steps. Failures are in the result; only defects of this room raise.

    After a failure nothing new is started that needs it, what is in flight finishes, and what was made
    for nothing is taken back. Interrupted (``run.cancelled``) works the same way for all steps.
    """
    gates: list[GateReport] = []

    def heard(report: GateReport) -> None:
        gates.append(report)
        reporter.gate(report)

    run.on_gate = heard
    effects = Effects(run)
    results = _Scheduler(run, effects, reporter).run_all(parallelism)
    superseded = _superseded(results, run.resources)
    undone, warnings = compensate(effects, list(results.values()), reporter)
    for result in undone:
        results[result.step.id] = result
    return ApplyResult(tuple(results.values()), dict(run.resources), tuple(gates), (*superseded, *warnings))


def run_destroy(
    run: Run, reporter: Reporter, end_target: Callable[[], None], *, parallelism: int = PARALLELISM
) -> ApplyResult:
    """Interpret the steps of a destroy. ``end_target`` takes the target away as a whole; what it raises is raised.

    What plug-ins have goes before that, through their providers; only they need each other. The target stays
    when one of them cannot be deleted. All other steps record what its end means.
    """
    made = run.plan
    theirs = {s.id for s in made.steps if kind_of(s.address.kind).role is Role.RESOURCE}
    run.plan = replace(made, steps=tuple(s for s in made.steps if s.id in theirs))
    first = run_steps(run, reporter, parallelism=parallelism)
    if not first.ok:
        return first
    end_target()
    others = [s for s in made.steps if s.id not in theirs]
    run.plan = replace(
        made, steps=tuple(replace(s, needs=tuple(n for n in s.needs if n not in theirs)) for s in others)
    )
    rest = run_steps(run, reporter, parallelism=parallelism)
    return replace(rest, results=(*first.results, *rest.results))


class _Scheduler:
    """Starts each step when all that it waits for has ended; what serves before what proves."""

    def __init__(self, run: Run, effects: Effects, reporter: Reporter) -> None:
        self.run = run
        self.effects = effects
        self.reporter = reporter
        self.results: dict[str, StepResult] = {}
        steps = run.plan.steps
        self._steps = {step.id: step for step in steps}
        self._order = {step.id: (isinstance(step, RunGate), index) for index, step in enumerate(steps)}
        waits = {step.id: {*step.needs, *step.after} for step in steps}
        self._users = users_of(waits)
        self._open = {step_id: len(ids) for step_id, ids in waits.items()}
        self._ready: list[tuple[tuple[bool, int], str]] = []

    def run_all(self, parallelism: int) -> dict[str, StepResult]:
        for step_id, count in self._open.items():
            if count == 0:
                self._push(step_id)
        running: dict[Future[StepResult], Step] = {}
        with ThreadPoolExecutor(max_workers=parallelism, thread_name_prefix="step") as pool:
            while self._ready or running:
                while self._ready and len(running) < parallelism:
                    step = self._steps[heapq.heappop(self._ready)[1]]
                    skipped = self._hopeless(step)
                    if skipped:
                        self._ended(skipped)
                    else:
                        running[pool.submit(self._one, step)] = step
                if running:
                    for future in wait(running, timeout=HEAR_S, return_when=FIRST_COMPLETED).done:
                        running.pop(future)
                        self._ended(future.result())
        return self.results

    def _push(self, step_id: str) -> None:
        heapq.heappush(self._ready, (self._order[step_id], step_id))

    def _hopeless(self, step: Step) -> StepResult | None:
        """The result of a step that is not to be started, None when it is."""
        missing = [self.results[need] for need in step.needs if self.results[need].state is not State.DONE]
        root = next((r.because or r.step.id for r in missing if r.because or r.state is State.FAILED), "")
        if root:
            ended = "was interrupted" if isinstance(self.results[root].error, Interrupted) else "failed"
            return StepResult(step, State.SKIPPED, f"needs {root}, which {ended}", because=root)
        if missing or self.run.cancelled.is_set():
            return StepResult(step, State.SKIPPED, "interrupted")
        return None

    def _one(self, step: Step) -> StepResult:
        clock = self.run.clock
        begun = clock.now()
        attempts = Attempts(clock)

        def failed(error: LlmctlError) -> StepResult:
            return StepResult(step, State.FAILED, error.summary, clock.now() - begun, error, attempts.made)

        try:
            self.reporter.started(step)
            op = self.run.op(step, lambda line: self.reporter.progress(step, line), self.effects.allowed_s(step))
            text = attempts.run(op, lambda: self.effects.perform(step, op))
        except LlmctlError as error:
            return failed(error)
        except Exception as error:  # noqa: BLE001 - a defect in one step must not keep the others from being recorded
            summary = f"{step.id}: unexpected {type(error).__name__}"
            hint = "This is a defect in llmctl or in a provider; please report it."
            return failed(ProviderError(summary, detail=raised_in(error), hint=hint))
        return StepResult(step, State.DONE, text, clock.now() - begun, tries=attempts.made)

    def _ended(self, result: StepResult) -> None:
        self.results[result.step.id] = result
        self.reporter.ended(result)
        for user in self._users.get(result.step.id, ()):
            self._open[user] -= 1
            if self._open[user] == 0:
                self._push(user)


def _superseded(results: dict[str, StepResult], recorded: Mapping[Address, Recorded]) -> list[Diagnostic]:
    """What could not be brought back, and was replaced by something new since, is a warning and no failure.

    That holds when nothing but restoring failed, and nothing that is recorded now is or uses what is missing.
    """
    failed = [r for r in results.values() if r.state is State.FAILED]
    missing = {i: r for i, r in results.items() if _restores(r.step) and r.state is not State.DONE}
    if not failed or not all(_restores(r.step) for r in failed):
        return []
    names = {r.step.origin: r.step.address for r in results.values() if isinstance(r.step, Move)}
    used = endpoint_keys(recorded)
    for step in (r.step for r in missing.values()):
        now = recorded.get(names.get(step.address, step.address))
        serves = step.address.kind == "endpoint" and Key(step.address.name, step.revision) in used
        if serves or (now is not None and now.revision == step.revision):
            return []
    for step_id, result in missing.items():
        results[step_id] = replace(result, state=State.REPLACED, error=None)
    detail = "A new revision has taken over; its gates had nothing live to compare it with."
    return [Diagnostic(f"{r.step.id}: {r.text}", Severity.WARNING, detail=detail) for r in failed]


def _restores(step: Step) -> bool:
    return isinstance(step, Provision | Promote) and step.action is Action.RESTORE
