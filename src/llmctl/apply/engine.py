"""Runs the DAG: independent steps in parallel, dependents of a failure not at all, then compensation."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial

from llmctl.apply.attempts import Attempts
from llmctl.apply.compensate import compensate
from llmctl.apply.effects import Effects
from llmctl.apply.report import ApplyResult, GateReport, Reporter, State, StepResult
from llmctl.apply.run import Run
from llmctl.apply.together import EACH_S, Member, swap_together
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.errors import Interrupted, LlmctlError, ProviderError
from llmctl.core.kinds import Role, kind_of
from llmctl.core.protocols import Op
from llmctl.core.resources import Key, Recorded
from llmctl.core.signals import HEAR_S
from llmctl.core.steps import Action, Move, Promote, Provision, RunGate, Step
from llmctl.graph import users_of
from llmctl.live import raised_in
from llmctl.plan.routes import endpoint_keys

PARALLELISM = 8
TOGETHER = 500  # steps in one publication, at most: each has its lines in the journal


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
    """Starts each step when all that it waits for has ended; what serves before what proves.

    ``parallelism`` steps run at once. Those that only edit the gateway's configuration take none of these places:
    one publication is made at a time, and costs as much as there are routes, so those that are ready go out as one.
    They let steps that come before them in the plan begin first, which makes them few, as long as a place is soon
    free for those: a gate may take ten minutes, and what another route serves does not wait for that.
    """

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
        self._swaps: list[tuple[tuple[bool, int], str]] = []  # ready too, and no more than an edit of the gateway

    def run_all(self, parallelism: int) -> dict[str, StepResult]:
        for step_id, count in self._open.items():
            if count == 0:
                self._push(step_id)
        running: dict[Future[list[StepResult]], Step] = {}
        swapping: set[Future[list[StepResult]]] = set()  # one at most
        with ThreadPoolExecutor(max_workers=parallelism + 1, thread_name_prefix="step") as pool:
            while self._ready or self._swaps or running or swapping:
                while len(running) < parallelism and (one := self._next(self._ready, 1)):
                    running[pool.submit(self._one, one[0])] = one[0]
                first = self._ready and self._swaps and self._ready[0] < self._swaps[0]
                behind = first and not all(map(self.effects.lasts, running.values()))
                if not swapping and not behind and (many := self._next(self._swaps, TOGETHER)):
                    swapping.add(pool.submit(self._swap, many))
                if running or swapping:
                    done = wait({*running, *swapping}, timeout=HEAR_S, return_when=FIRST_COMPLETED).done
                    running = {future: step for future, step in running.items() if future not in done}
                    swapping -= done
                    for result in (result for future in done for result in future.result()):
                        self._ended(result)
        return self.results

    def _push(self, step_id: str) -> None:
        ready = self._swaps if self.effects.swaps(self._steps[step_id]) else self._ready
        heapq.heappush(ready, (self._order[step_id], step_id))

    def _next(self, ready: list[tuple[tuple[bool, int], str]], most: int) -> list[Step]:
        """The next steps to start, ``most`` at most; what is hopeless ends here, and may make others ready."""
        found: list[Step] = []
        while ready and len(found) < most:
            step = self._steps[heapq.heappop(ready)[1]]
            skipped = self._hopeless(step)
            if skipped:
                self._ended(skipped)
            else:
                found.append(step)
        return found

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

    def _begin(self, step: Step, more_s: float = 0.0) -> Op:
        self.reporter.started(step)
        return self.run.op(step, partial(self.reporter.progress, step), self.effects.allowed_s(step) + more_s)

    def _one(self, step: Step) -> list[StepResult]:
        clock = self.run.clock
        begun = clock.now()
        attempts = Attempts(clock)
        try:
            op = self._begin(step)
            text = attempts.run(op, lambda: self.effects.perform(step, op))
        except Exception as error:  # noqa: BLE001 - a defect in one step must not keep the others from being recorded
            return [_failed(step, error, clock.now() - begun, attempts.made)]
        return [StepResult(step, State.DONE, text, clock.now() - begun, tries=attempts.made)]

    def _swap(self, steps: list[Step]) -> list[StepResult]:
        """Steps that only edit the gateway's configuration, in one publication."""
        begun = self.run.clock.now()
        traffic, record = self.effects.traffic, self.effects.record
        ops = [(step, self._begin(step, EACH_S * len(steps))) for step in steps]
        members = [Member(s, op, partial(traffic.swap, s, op), partial(record, s)) for s, op in ops]
        swap_together(self.run, traffic.rollout, members)
        took = self.run.clock.now() - begun
        return [_swapped(member, took) for member in members]

    def _ended(self, result: StepResult) -> None:
        self.results[result.step.id] = result
        self.reporter.ended(result)
        for user in self._users.get(result.step.id, ()):
            self._open[user] -= 1
            if self._open[user] == 0:
                self._push(user)


def _failed(step: Step, error: Exception, seconds: float, tries: int) -> StepResult:
    """How a step ended that raised ``error``."""
    if not isinstance(error, LlmctlError):
        summary = f"{step.id}: unexpected {type(error).__name__}"
        hint = "This is a defect in llmctl or in a provider; please report it."
        error = ProviderError(summary, detail=raised_in(error), hint=hint)
    return StepResult(step, State.FAILED, error.summary, seconds, error, tries)


def _swapped(member: Member, seconds: float) -> StepResult:
    """How a step of a group ended. Interrupted at its first try, its edit was not published."""
    if isinstance(member.error, Interrupted) and member.tries == 1:
        return StepResult(member.step, State.SKIPPED, "interrupted")
    if member.error is not None:
        return _failed(member.step, member.error, seconds, member.tries)
    return StepResult(member.step, State.DONE, member.text, seconds, tries=member.tries)


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
