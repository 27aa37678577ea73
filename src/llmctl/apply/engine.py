"""Runs the DAG: independent steps in parallel, dependents of a failure not at all, then compensation."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from time import monotonic

from llmctl.apply.compensate import compensate
from llmctl.apply.effects import Effects, Run
from llmctl.apply.report import ApplyResult, GateReport, Reporter, State, StepResult
from llmctl.core.errors import Interrupted, LlmctlError
from llmctl.core.steps import Step

PARALLELISM = 8


def run_steps(run: Run, reporter: Reporter, *, parallelism: int = PARALLELISM) -> ApplyResult:
    """Interpret the plan's steps. Failures are in the result; only defects raise.

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
    undone, warnings = compensate(effects, list(results.values()), reporter)
    for result in undone:
        results[result.step.id] = result
    return ApplyResult(tuple(results.values()), dict(run.resources), tuple(gates), tuple(warnings))


class _Scheduler:
    def __init__(self, run: Run, effects: Effects, reporter: Reporter) -> None:
        self.run = run
        self.effects = effects
        self.reporter = reporter
        self.results: dict[str, StepResult] = {}

    def run_all(self, parallelism: int) -> dict[str, StepResult]:
        waiting = {step.id: step for step in self.run.plan.steps}
        running: dict[Future[StepResult], Step] = {}
        with ThreadPoolExecutor(max_workers=parallelism, thread_name_prefix="step") as pool:
            while waiting or running:
                self._skip_hopeless(waiting)
                for step in [s for s in waiting.values() if self._ready(s)][: parallelism - len(running)]:
                    del waiting[step.id]
                    running[pool.submit(self._one, step)] = step
                if not running:
                    continue
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    step = running.pop(future)
                    self._ended(future.result())
        return self.results

    def _ready(self, step: Step) -> bool:
        return all(self._state(need) is State.DONE for need in step.needs)

    def _state(self, step_id: str) -> State | None:
        result = self.results.get(step_id)
        return result.state if result else None

    def _skip_hopeless(self, waiting: dict[str, Step]) -> None:
        """Give up on steps whose needs failed; on all of them once the run is cancelled."""
        for step in list(waiting.values()):
            failed = [n for n in step.needs if self._state(n) in (State.FAILED, State.SKIPPED)]
            if failed or self.run.cancelled.is_set():
                del waiting[step.id]
                reason = f"needs {failed[0]}" if failed else "interrupted"
                self._ended(StepResult(step, State.SKIPPED, reason))

    def _one(self, step: Step) -> StepResult:
        begun = monotonic()
        self.reporter.started(step)
        try:
            self.run.check_lease()
            text = self.effects.perform(step, lambda line: self.reporter.progress(step, line))
        except Interrupted as error:
            return StepResult(step, State.FAILED, "interrupted", monotonic() - begun, error)
        except LlmctlError as error:
            return StepResult(step, State.FAILED, error.summary, monotonic() - begun, error)
        return StepResult(step, State.DONE, text, monotonic() - begun)

    def _ended(self, result: StepResult) -> None:
        self.results[result.step.id] = result
        self.reporter.ended(result)
