"""After a failure: what was made for nothing is taken back, and what served keeps serving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from threading import Event

from llmctl.apply.attempts import Attempts
from llmctl.apply.effects import DRAIN_S, QUICK_S, Effects, key_of
from llmctl.apply.report import Reporter, State, StepResult
from llmctl.apply.together import EACH_S, Member, swap_together
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.errors import Conflict, LlmctlError, Locked, ProviderError
from llmctl.core.kinds import Role, kind_of
from llmctl.core.protocols import Change, Op
from llmctl.core.resources import Key
from llmctl.core.steps import Action, Promote, Provision, Stage, Step
from llmctl.graph import dependents, users_of
from llmctl.plan.routes import chain_keys

Undo = Callable[[Op], None]


def compensate(
    effects: Effects, results: list[StepResult], reporter: Reporter
) -> tuple[list[StepResult], list[Diagnostic]]:
    """Undo, in reverse: routes that were staged and not promoted, endpoint revisions that nothing uses, what was
    made or changed of plug-ins for nothing, and the record of artifacts that nothing uses. A rename stays.

    Returns the results of undone steps, and a warning for each that could not be undone: the next apply
    finds what is left and takes it away. Nothing is done once the lock is lost.
    """
    if all(result.state.ok for result in results):
        return [], []
    undone: list[StepResult] = []
    warnings: list[Diagnostic] = []
    for result, error in _undo(effects, results, reporter):
        if isinstance(error, Locked):
            warnings.append(Diagnostic(error.summary, Severity.WARNING, hint="The next apply cleans up."))
            break
        if error is not None:
            text = f"could not undo {result.step.id}: {error.summary}"
            warnings.append(Diagnostic(text, Severity.WARNING, hint="The next apply cleans up."))
        elif result.state is State.DONE:
            undone.append(replace(result, state=State.UNDONE, text="taken back"))
            reporter.ended(undone[-1])
    return undone, warnings


def _undo(
    effects: Effects, results: list[StepResult], reporter: Reporter
) -> Iterator[tuple[StepResult, LlmctlError | None]]:
    """Each step that was to be undone, and why it could not be. Routes come first, in one publication."""

    def op(step: Step, more_s: float = 0.0) -> Op:
        # Not `run.cancelled`: after Ctrl-C is when this matters.
        return effects.run.op(step, partial(reporter.progress, step), QUICK_S + DRAIN_S + more_s, cancelled=Event())

    traffic = effects.traffic
    staged = list(_staged_in_vain(results))
    more_s = EACH_S * len(staged)
    members = [Member(s, op(s, more_s), partial(traffic.shift_back, s), lambda: "taken back") for _, s in staged]
    swap_together(effects.run, traffic.rollout, members)
    for (result, _), member in zip(staged, members, strict=True):
        if member.error is not None and not isinstance(member.error, LlmctlError):
            raise member.error
        yield result, member.error
    for result, undo in _to_undo(effects, results):
        its = op(result.step)
        error: LlmctlError | None = None
        try:
            Attempts(effects.run.clock).run(its, partial(undo, its))
        except LlmctlError as why:
            error = why
        yield result, error


def _staged_in_vain(results: list[StepResult]) -> Iterator[tuple[StepResult, Stage]]:
    done = (r.step for r in results if r.state is State.DONE)
    promoted = {(step.address, step.revision) for step in done if isinstance(step, Promote)}
    for result in reversed(results):
        step = result.step
        if not isinstance(step, Stage) or result.state is State.SKIPPED:
            continue
        if (step.address, step.revision) not in promoted:  # another one of the route may be: that which was restored
            yield result, step


def _to_undo(effects: Effects, results: list[StepResult]) -> Iterator[tuple[StepResult, Undo]]:
    users = users_of({r.step.id: r.step.needs for r in results})
    unfinished = {r.step.id for r in results if not r.state.ok}
    for result in reversed(results):
        step = result.step
        if result.state is State.SKIPPED:
            continue
        if isinstance(step, Provision) and not step.restores:
            waiting: set[str] = dependents(users, [step.id])
            in_vain = result.state is State.FAILED or not unfinished.isdisjoint(waiting)
            if not in_vain:
                continue
            if kind_of(step.address.kind).role is Role.RESOURCE:
                if not isinstance(result.error, Conflict):  # which says that it is somebody else's now
                    yield result, partial(_put_back, effects, step)
            elif not _in_use(effects, step):
                yield result, partial(_unprovision, effects, step)


def _in_use(effects: Effects, step: Provision) -> bool:
    """Whether what is recorded now, or was before, has this very revision in it."""
    was = effects.run.before.get(step.address)
    if was is not None and was.revision == step.revision:
        return True
    kind, key = step.address.kind, Key(step.address.name, step.revision)
    recorded = effects.run.resources.items()
    if kind == "endpoint":
        return any(key in chain_keys(now.spec) for address, now in recorded if address.kind == "route")
    if kind in ("model", "prompt", "dataset"):
        return any(now.spec.get(f"{kind}_revision") == step.revision for _, now in recorded)
    return False


def _refuse_while_served(effects: Effects, step: Provision, key: Key, op: Op) -> None:
    """What the gateway says counts here, and not the record: a route may have been promoted and not recorded."""
    for route in effects.traffic.rollout.current(step, op).routes.values():
        for revision in route.revisions.values():
            if any((u.endpoint, u.revision) == (key.name, key.revision) for u in revision.upstreams):
                raise ProviderError(f"route {route.name} still uses endpoint {key}")


def _unprovision(effects: Effects, step: Provision, op: Op) -> None:
    """Delete an endpoint revision again; an artifact's content stays in the store and only its record goes back.

    What was adopted, or changed in place, ran before, and stays.
    """
    made = step.action not in (Action.ADOPT, Action.UPDATE)
    if kind_of(step.address.kind).role is Role.DEPLOYMENT and made:
        key = key_of(step.address, step.revision)
        _refuse_while_served(effects, step, key, op)
        effects.delete(step, op, effects.live(step, op, key))
    _record_as_before(effects, step)


def _put_back(effects: Effects, step: Provision, op: Op) -> None:
    """The live thing of a plug-in as it was recorded before; nothing where there was none.

    Only where our own change is what is there. What was adopted is not ours to delete.
    """
    was = effects.run.before.get(step.address)
    live = effects.live(step, op, key_of(step.address, step.revision))
    if live is not None and live.revision == step.revision:
        if was is not None and live.state != was.spec:
            with effects.run.effect(step, "update", {"key": str(live.key)}):
                effects.run.inventory.update(step, op, live, was.spec, was.revision)
        elif was is None and step.action is not Action.ADOPT:
            effects.delete(step, op, live)
    _record_as_before(effects, step)


def _record_as_before(effects: Effects, step: Provision) -> None:
    """The revision keeps its version, so that no number ever means two things."""
    address = step.address
    recorded = effects.run.resources.get(address)
    if recorded is None or recorded.revision != step.revision:
        return
    was = effects.run.before.get(address)
    if recorded == was:
        return
    before = replace(was, revisions=recorded.revisions) if was else None
    trailers = (("Resource", str(address)), ("Revision", step.revision))
    subject = f"take back {address}@{step.revision[:8]}"
    effects.run.commit(Change(subject, resources={address: before}, trailers=trailers))
