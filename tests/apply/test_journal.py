"""Intents come before effects and outcomes after; what cannot be noted is not done, or is taken back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmctl.core.errors import LeaseLost, LlmctlError, RecordError
from llmctl.core.resources import Key
from tests.apply.world import ENDPOINT, ROUTE, World, applied, planned, recorded_by
from tests.plan.builders import application

FULL = RecordError("the disk is full")


def full(world: World, verb: str, begins: str) -> None:
    """The journal fails at one kind of line, of one step."""

    def trouble(called: str, what: str) -> LlmctlError | None:
        return FULL if called == verb and what.startswith(begins) else None

    world.journal.trouble = trouble


def test_every_effect_has_its_intent_before_and_its_outcome_after() -> None:
    world, state = applied()
    seen: list[tuple[int, int]] = []

    def watch(verb: str, _: Key) -> None:
        if verb != "read":
            seen.append((len(world.journal.intents), len(world.journal.outcomes)))

    for provider in world.target.providers.values():
        provider.trouble = watch
    run = world.begin(planned(application(weights="w2"), state, world), 2)
    assert world.go(run, parallelism=1).ok
    assert seen
    assert all(intents == outcomes + 1 for intents, outcomes in seen)
    assert len(world.journal.intents) == len(world.journal.outcomes)
    assert {word for _, word in world.journal.outcomes} <= {"ok", "already so"}


@pytest.mark.parametrize("begins", ["provision:endpoint", "stage:", "shift:", "promote:"])
def test_what_cannot_be_intended_is_not_done(begins: str) -> None:
    world, state = applied()
    full(world, "intend", begins)
    result, run = world.run(planned(application(weights="w2"), state, world), 2)
    assert [(r.step.id.startswith(begins), r.error) for r in result.failed] == [(True, FULL)]
    _as_before(world)
    assert run.resources[ROUTE] == state.resources[ROUTE]
    assert set(world.target.providers["endpoint"].found) == {Key("main", state.resources[ENDPOINT].revision)}


@pytest.mark.parametrize(
    ("verb", "begins"),
    [
        ("done", "provision:endpoint"),
        ("done", "promote:"),
        ("commit", "replace endpoint.main"),
        ("commit", "promote route.support"),
    ],
)
def test_what_was_done_and_could_not_be_recorded_is_taken_back(verb: str, begins: str) -> None:
    world, state = applied()
    full(world, verb, begins)
    result, run = world.run(planned(application(weights="w2"), state, world), 2)
    assert [r.error for r in result.failed] == [FULL]
    _as_before(world)
    assert run.resources[ROUTE] == state.resources[ROUTE]
    world.journal.trouble = lambda *_: None
    result, run = world.run(planned(application(weights="w2"), recorded_by(run), world), 3)
    assert result.ok
    assert planned(application(weights="w2"), recorded_by(run), world).is_empty


def test_without_the_lock_no_effect_is_begun_even_by_a_provider_that_does_not_look() -> None:
    world, state = applied()
    plan = planned({a: r for a, r in application().items() if a.kind not in ("endpoint", "route")}, state, world)
    endpoint = world.target.providers["endpoint"]
    there = next(iter(endpoint.found.values()))
    endpoint.found |= {Key("main", n): replace(there, key=Key("main", n), revision=n) for n in ("1", "2")}
    deleted: list[Key] = []
    endpoint.delete = lambda op, key, was: deleted.append(key)  # type: ignore[method-assign]  # noqa: ARG005

    def lease() -> None:
        if deleted:
            raise LeaseLost("taken over")

    result = world.go(world.begin(plan, 2, lease), parallelism=1)
    assert {type(r.error) for r in result.failed} == {LeaseLost}
    assert len(deleted) == 1
    assert sum(intent.effect == "delete" for intent in world.journal.intents) == 1


def _as_before(world: World) -> None:
    old = application()[ROUTE].revision
    assert dict(world.target.gateway.config.routes["support"].weights) == {old: 100}
