"""After a failure: what was made for nothing is taken back, and what served keeps serving."""

from __future__ import annotations

from dataclasses import replace
from threading import Event

from llmctl.apply.effects import QUICK_S, Effects
from llmctl.apply.report import Reporter, State, StepResult
from llmctl.core import gateway_config as gw
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.errors import LlmctlError, Locked
from llmctl.core.resources import Key
from llmctl.core.steps import Action, Promote, Provision, Stage
from llmctl.plan.routes import chain_keys


def compensate(
    effects: Effects, results: list[StepResult], reporter: Reporter
) -> tuple[list[StepResult], list[Diagnostic]]:
    """Undo, in reverse: staged and shifted routes that were not promoted, endpoint revisions that nothing uses.

    Returns the results of undone steps, and a warning for each that could not be undone: the next apply
    finds what is left and takes it away. Nothing is done once the lock is lost.
    """
    if all(result.state is State.DONE for result in results):
        return [], []
    undone: list[StepResult] = []
    warnings: list[Diagnostic] = []
    promoted = {r.step.address for r in results if isinstance(r.step, Promote) and r.state is State.DONE}
    for result in reversed(results):
        step = result.step
        try:
            if isinstance(step, Stage) and result.state is not State.SKIPPED and step.address not in promoted:
                _unstage(effects, step)
            elif isinstance(step, Provision) and _made_for_nothing(effects, step, result):
                _unprovision(effects, step)
            else:
                continue
        except Locked as error:
            warnings.append(Diagnostic(error.summary, Severity.WARNING, hint="The next apply cleans up."))
            break
        except LlmctlError as error:
            warnings.append(
                Diagnostic(
                    f"could not undo {step.id}: {error.summary}", Severity.WARNING, hint="The next apply cleans up."
                )
            )
            continue
        if result.state is State.DONE:
            undone.append(replace(result, state=State.UNDONE, text="taken back"))
            reporter.ended(undone[-1])
    return undone, warnings


def _unstage(effects: Effects, step: Stage) -> None:
    """Back to 100 % of what was promoted before; the staged revision goes."""
    op = effects.run.op(step, lambda _: None, QUICK_S, cancelled=Event())
    name = step.address.name
    current = effects.rollout.current().routes.get(name)
    if current is None or current.promoted == step.revision:
        return
    effects.rollout.change(op, lambda config: gw.without_revision(gw.shifted_back(config, name), name, step.revision))


def _made_for_nothing(effects: Effects, step: Provision, result: StepResult) -> bool:
    """A new endpoint revision that no promoted route uses, although routes were meant to use it."""
    if step.address.kind != "endpoint" or step.restores or result.state is State.SKIPPED:
        return False
    if step.action not in (Action.CREATE, Action.REPLACE, Action.ADOPT):
        return False
    key = Key(step.address.name, step.revision)
    routes = [a for a in effects.run.plan.desired.resources if a.kind == "route"]
    meant = [a for a in routes if key in chain_keys(effects.run.plan.desired.resources[a].spec)]
    used = [a for a, r in effects.run.resources.items() if a.kind == "route" and key in chain_keys(r.spec)]
    return result.state is State.FAILED or (bool(meant) and not used)


def _unprovision(effects: Effects, step: Provision) -> None:
    op = effects.run.op(step, lambda _: None, QUICK_S, cancelled=Event())
    effects.delete_endpoint(step, Key(step.address.name, step.revision), op)
    address: Address = step.address
    recorded = effects.run.resources.get(address)
    if recorded is None or recorded.revision != step.revision:
        return
    was = effects.run.plan.recorded.resources.get(address)
    trailers = (("Resource", str(address)), ("Revision", step.revision))
    effects.record(f"take back {address}@{step.revision[:8]}", {address: was}, trailers)
