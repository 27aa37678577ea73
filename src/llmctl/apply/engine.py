"""Runs the DAG: independent steps in parallel, dependents of a failure not at all, then compensation."""

from __future__ import annotations

import heapq
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from time import monotonic

from llmctl.apply.compensate import compensate
from llmctl.apply.effects import Effects, Run
from llmctl.apply.report import ApplyResult, GateReport, Reporter, State, StepResult
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.errors import LlmctlError, ProviderError
from llmctl.core.signals import HEAR_S
from llmctl.core.steps import Action, Promote, Provision, RunGate, Step
from llmctl.graph import users_of

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
    superseded = _superseded(results)
    undone, warnings = compensate(effects, list(results.values()), reporter)
    for result in undone:
        results[result.step.id] = result
    return ApplyResult(tuple(results.values()), dict(run.resources), tuple(gates), (*superseded, *warnings))


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
                    reason = self._hopeless(step)
                    if reason:
                        self._ended(StepResult(step, State.SKIPPED, reason))
                    else:
                        running[pool.submit(self._one, step)] = step
                if running:
                    for future in wait(running, timeout=HEAR_S, return_when=FIRST_COMPLETED).done:
                        running.pop(future)
                        self._ended(future.result())
        return self.results

    def _push(self, step_id: str) -> None:
        heapq.heappush(self._ready, (self._order[step_id], step_id))

    def _hopeless(self, step: Step) -> str:
        """Why a step is not to be started, "" when it is."""
        failed = next((need for need in step.needs if self.results[need].state is not State.DONE), "")
        return f"needs {failed}" if failed else "interrupted" if self.run.cancelled.is_set() else ""

    def _one(self, step: Step) -> StepResult:
        begun = monotonic()
        self.reporter.started(step)
        try:
            self.run.check_lease()
            text = self.effects.perform(step, lambda line: self.reporter.progress(step, line))
        except LlmctlError as error:
            return StepResult(step, State.FAILED, error.summary, monotonic() - begun, error)
        except Exception as error:  # noqa: BLE001 - a defect in one step must not keep the others from being recorded
            summary = f"{step.id}: unexpected {type(error).__name__}: {error}"
            defect = ProviderError(summary, hint="This is a defect in llmctl or in a provider; please report it.")
            return StepResult(step, State.FAILED, summary, monotonic() - begun, defect)
        return StepResult(step, State.DONE, text, monotonic() - begun)

    def _ended(self, result: StepResult) -> None:
        self.results[result.step.id] = result
        self.reporter.ended(result)
        for user in self._users.get(result.step.id, ()):
            self._open[user] -= 1
            if self._open[user] == 0:
                self._push(user)


def _superseded(results: dict[str, StepResult]) -> list[Diagnostic]:
    """What could not be brought back, and was replaced by something new since, is a warning and no failure.

    That holds when nothing but restoring failed, and every route that was touched has a new revision now.
    """
    promotes = [r for r in results.values() if isinstance(r.step, Promote)]
    replaced = {r.step.address for r in promotes if r.state is State.DONE and not _restores(r.step)}
    failed = [r for r in results.values() if r.state is State.FAILED]
    if not failed or not all(_restores(r.step) for r in failed) or not {r.step.address for r in promotes} <= replaced:
        return []
    for step_id, result in results.items():
        if _restores(result.step) and result.state is not State.DONE:
            results[step_id] = replace(result, state=State.REPLACED, error=None)
    detail = "A new revision has taken over; its gates had nothing live to compare it with."
    return [Diagnostic(f"{r.step.id}: {r.text}", Severity.WARNING, detail=detail) for r in failed]


def _restores(step: Step) -> bool:
    return isinstance(step, Provision | Promote) and step.action is Action.RESTORE
