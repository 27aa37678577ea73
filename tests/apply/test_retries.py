"""What fails in a way that may pass is tried again: how often, how long, and when not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from llmctl.apply import ApplyResult, State, StepResult
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.errors import Conflict, LeaseLost, LlmctlError, ProviderError, RecordError, TransientError
from llmctl.core.resources import ALL, Key, Reading
from tests.apply.world import ENDPOINT, ROUTE, World, applied, planned, with_fields
from tests.plan.builders import application

Trouble = Callable[[str, Key], LlmctlError | None]
TRANSIENT = TransientError("the machine is busy")


def failing(times: int, error: LlmctlError, verb: str = "create") -> Trouble:
    """The first calls of a verb fail."""
    left = [times]

    def trouble(called: str, _: Key) -> LlmctlError | None:
        if called != verb or not left[0]:
            return None
        left[0] -= 1
        return error

    return trouble


def step_of(result: ApplyResult, begins: str) -> StepResult:
    return next(r for r in result.results if r.step.id.startswith(begins))


def provisioned(trouble: Trouble, **timeouts: float) -> tuple[World, StepResult]:
    """An application's new engine, made by a provider that has trouble."""
    world, state = applied()
    world.target.providers["endpoint"].trouble = trouble
    wanted = with_fields(application(weights="w2"), ENDPOINT, timeouts=timeouts)
    result, _ = world.run(planned(wanted, state, world), 2)
    return world, step_of(result, "provision:endpoint.main")


def test_a_failure_that_passes_is_tried_again_under_the_same_idempotency_key() -> None:
    world, result = provisioned(failing(3, TRANSIENT))
    assert (result.state, result.tries) == (State.DONE, 4)
    assert world.clock.pauses == [0.5, 1.0, 2.0]
    assert world.told("try") == [
        f"try {n} of 4 in {s:.1f} s: the machine is busy" for n, s in ((2, 0.5), (3, 1), (4, 2))
    ]
    keys = [op.idempotency_key for op in world.target.providers["endpoint"].ops]
    assert keys.count(f"dev/2/{result.step.id}") == 4
    outcomes = [word for step, word in world.journal.outcomes if step == result.step.id]
    assert outcomes == ["failed", "failed", "failed", "ok"]


def test_after_four_tries_it_has_failed_for_the_last_reason() -> None:
    world, result = provisioned(failing(9, TRANSIENT))
    assert (result.state, result.tries, result.error) == (State.FAILED, 4, TRANSIENT)
    assert world.clock.pauses[:3] == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("error", [ProviderError("corrupt GGUF"), Conflict("another one"), RecordError("no room")])
def test_only_the_type_of_the_error_says_that_it_may_pass(error: LlmctlError) -> None:
    world, result = provisioned(failing(1, error))
    assert (result.state, result.tries, result.error) == (State.FAILED, 1, error)
    assert not world.clock.pauses


def test_nothing_is_tried_beyond_the_deadline() -> None:
    world, result = provisioned(failing(9, TRANSIENT), ready_s=1.4)
    assert (result.tries, result.error) == (2, TRANSIENT)
    assert world.clock.pauses == [0.5]


def test_an_interruption_ends_the_pause_and_the_step() -> None:
    world, state = applied()
    endpoint = world.target.providers["endpoint"]
    endpoint.trouble = failing(1, TRANSIENT)
    run = world.begin(planned(application(weights="w2"), state, world), 2)
    world.clock.during = lambda _: run.cancelled.set()
    result = world.go(run)
    ended = step_of(result, "provision:endpoint.main")
    assert (ended.state, ended.tries, ended.error) == (State.FAILED, 1, TRANSIENT)
    assert step_of(result, "promote:").state is State.SKIPPED
    assert run.resources[ENDPOINT] == state.resources[ENDPOINT]


def test_without_the_lock_nothing_is_tried_again() -> None:
    world, state = applied()
    endpoint = world.target.providers["endpoint"]
    endpoint.trouble = failing(9, TRANSIENT)

    def lease() -> None:
        if world.clock.pauses:
            raise LeaseLost("taken over")

    creates = len(endpoint.calls)
    result, _ = world.run(planned(application(weights="w2"), state, world), 2, lease)
    assert isinstance(step_of(result, "provision:endpoint.main").error, LeaseLost)
    assert len(endpoint.calls) == creates + 1


def test_what_is_taken_back_is_tried_again_too() -> None:
    world, state = applied()
    new = application(weights="w2")[ROUTE].revision
    trouble = iter([None, ProviderError("refused"), TRANSIENT])  # staging, the shift, and the way back
    world.target.gateway.trouble = lambda _: next(trouble, None)
    result, _ = world.run(planned(application(weights="w2"), state, world), 2)
    assert step_of(result, "shift:").text == "refused"
    assert not result.warnings
    assert {r.step.id.split(":")[0] for r in result.undone} == {"stage", "provision"}
    assert new not in world.target.gateway.config.routes["support"].revisions


def test_what_cannot_be_read_is_asked_for_again_and_never_taken_for_gone() -> None:
    world, state = applied()
    endpoint = world.target.providers["endpoint"]
    plan = planned(application(weights="w2"), state, world)
    silent = Reading[Json](unreadable={ALL: Diagnostic("no answer from the machine")})
    endpoint.answer = lambda verb, made: silent if verb == "read" else made
    result, run = world.run(plan, 2)
    stage = step_of(result, "stage:")
    assert (stage.state, stage.tries) == (State.FAILED, 4)
    assert "cannot be read: no answer from the machine" in stage.text
    assert len(endpoint.found) == 2
    assert [w.summary.split(":")[0] for w in result.warnings] == ["could not undo provision"]
    endpoint.answer = lambda _, made: made
    plan = planned(application(weights="w2"), replace(state, resources=dict(run.resources)), world)
    assert world.run(plan, 3)[0].ok
    assert set(endpoint.found) == {Key("main", application(weights="w2")[ENDPOINT].revision)}
