"""After a failure: what was made for nothing is taken back, and what served keeps serving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from threading import Event

from llmctl.apply.effects import QUICK_S, Effects
from llmctl.apply.report import Reporter, State, StepResult
from llmctl.core import gateway_config as gw
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.errors import LlmctlError, Locked, ProviderError
from llmctl.core.kinds import Role, kind_of
from llmctl.core.resources import Key
from llmctl.core.steps import Promote, Provision, Stage
from llmctl.graph import dependents, users_of
from llmctl.plan.routes import chain_keys

Undo = Callable[[], None]


def compensate(
    effects: Effects, results: list[StepResult], reporter: Reporter
) -> tuple[list[StepResult], list[Diagnostic]]:
    """Undo, in reverse: routes that were staged and not promoted, endpoint revisions that nothing uses, and
    the record of artifacts that nothing uses.

    Returns the results of undone steps, and a warning for each that could not be undone: the next apply
    finds what is left and takes it away. Nothing is done once the lock is lost.
    """
    if all(result.state.ok for result in results):
        return [], []
    undone: list[StepResult] = []
    warnings: list[Diagnostic] = []
    for result, undo in _to_undo(effects, results):
        try:
            undo()
        except Locked as error:
            warnings.append(Diagnostic(error.summary, Severity.WARNING, hint="The next apply cleans up."))
            break
        except LlmctlError as error:
            text = f"could not undo {result.step.id}: {error.summary}"
            warnings.append(Diagnostic(text, Severity.WARNING, hint="The next apply cleans up."))
            continue
        if result.state is State.DONE:
            undone.append(replace(result, state=State.UNDONE, text="taken back"))
            reporter.ended(undone[-1])
    return undone, warnings


def _to_undo(effects: Effects, results: list[StepResult]) -> Iterator[tuple[StepResult, Undo]]:
    promoted = {r.step.address for r in results if isinstance(r.step, Promote) and r.state is State.DONE}
    users = users_of({r.step.id: r.step.needs for r in results})
    unfinished = {r.step.id for r in results if not r.state.ok}
    for result in reversed(results):
        step = result.step
        if result.state is State.SKIPPED:
            continue
        if isinstance(step, Stage) and step.address not in promoted:
            yield result, partial(_unstage, effects, step)
        elif isinstance(step, Provision) and not step.restores:
            waiting: set[str] = dependents(users, [step.id])
            in_vain = result.state is State.FAILED or not unfinished.isdisjoint(waiting)
            if in_vain and not _in_use(effects, step):
                yield result, partial(_unprovision, effects, step)


def _unstage(effects: Effects, step: Stage) -> None:
    """Back to 100 % of what is recorded, also when the promotion itself was published and not recorded."""
    op = effects.run.op(step, lambda _: None, QUICK_S, cancelled=Event())
    name = step.address.name
    was = effects.run.resources.get(step.address)

    def edit(config: gw.GatewayConfig) -> gw.GatewayConfig:
        route = config.routes.get(name)
        if route is None:
            return config
        if was is not None and was.revision in route.revisions:
            return gw.promoted(config, name, was.revision)
        return gw.without_revision(gw.shifted_back(config, name), name, step.revision)

    effects.rollout.change(op, edit)


def _in_use(effects: Effects, step: Provision) -> bool:
    """Whether what is recorded now, or was before, has this very revision in it."""
    was = effects.run.plan.recorded.resources.get(step.address)
    if was is not None and was.revision == step.revision:
        return True
    name, revision = step.address.name, step.revision
    for address, recorded in effects.run.resources.items():
        spec = recorded.spec
        if address.kind == "route" and Key(name, revision) in chain_keys(spec) and step.address.kind == "endpoint":
            return True
        if (
            step.address.kind in ("model", "prompt", "dataset")
            and spec.get(f"{step.address.kind}_revision") == revision
        ):
            return True
    return False


def _refuse_while_served(effects: Effects, key: Key) -> None:
    """What the gateway says counts here, and not the record: a route may have been promoted and not recorded."""
    for route in effects.rollout.current().routes.values():
        for revision in route.revisions.values():
            if any((u.endpoint, u.revision) == (key.name, key.revision) for u in revision.upstreams):
                raise ProviderError(f"route {route.name} still uses endpoint {key}")


def _unprovision(effects: Effects, step: Provision) -> None:
    """Delete an endpoint revision again; an artifact's content stays in the store and only its record goes back.

    The revision keeps its version, so that no number ever means two things.
    """
    address = step.address
    if kind_of(address.kind).role is Role.DEPLOYMENT:
        _refuse_while_served(effects, Key(address.name, step.revision))
        op = effects.run.op(step, lambda _: None, QUICK_S, cancelled=Event())
        effects.delete_endpoint(step, Key(address.name, step.revision), op)
    recorded = effects.run.resources.get(address)
    if recorded is None or recorded.revision != step.revision:
        return
    was = effects.run.plan.recorded.resources.get(address)
    before = replace(was, revisions=recorded.revisions) if was else None
    trailers = (("Resource", str(address)), ("Revision", step.revision))
    effects.record(f"take back {address}@{step.revision[:8]}", {address: before}, trailers)
