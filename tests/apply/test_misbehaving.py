"""Providers that hang, and providers that answer what is no answer: a step fails and says whose fault it is."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from llmctl.apply import State, StepResult
from llmctl.apply.calls import GRACE_S
from llmctl.core.protocols import GatewayReading
from llmctl.core.resources import Key, Reading
from tests.apply.world import ENDPOINT, ROUTE, World, applied, planned, with_fields
from tests.plan.builders import application

BY = "(tests.apply.fakes.MemoryProvider)"


def applied_with(verb: str, answer: Callable[[Any], Any], **change: Any) -> tuple[World, StepResult]:
    """A new model's engine, or another change, from a provider that answers so; what served still serves."""
    world, state = applied()
    before = world.target.gateway.config.routes
    endpoint = world.target.providers["endpoint"]
    wanted = with_fields(application(), ENDPOINT, **change) if change else application(weights="w2")
    plan = planned(wanted, state, world)
    endpoint.answer = lambda called, made: answer(made) if called == verb else made
    result, run = world.run(plan, 2)
    assert world.target.gateway.config.routes == before
    assert run.resources[ENDPOINT].spec == state.resources[ENDPOINT].spec
    return world, next(r for r in result.results if r.step.id.startswith("provision:endpoint.main"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: None, "answered with something that is no answer (NoneType)"),
        (lambda _: {"secret": "canary"}, "answered with something that is no answer (dict)"),
        (lambda made: replace(made, key=Key("other", "1")), "answered with other@1, asked for was"),
        (lambda made: replace(made, revision=""), "left revision unknown there, asked for was"),
        (lambda made: replace(made, revision=7), "answered with something that is no answer (Live)"),
        (lambda made: replace(made, outputs=None), "answered with something that is no answer (Live)"),
        (lambda made: replace(made, healthy=False, detail="out of memory"), "left it unhealthy: out of memory"),
        (lambda made: made["no such"], "raised TypeError"),
        (lambda _: sys.exit("canary"), "raised SystemExit"),
    ],
)
def test_an_answer_that_is_none_fails_the_step_and_names_provider_and_step(
    answer: Callable[[Any], Any], said: str
) -> None:
    _, result = applied_with("create", answer)
    assert (result.state, result.tries) == (State.FAILED, 1)
    assert result.text.startswith(f"{result.step.id}: create of the endpoint provider {BY} ")
    assert said in result.text
    assert result.error is not None
    told = f"{result.text} {result.error.detail}"
    assert "canary" not in told
    assert ("Raised in <lambda>, " in told) == ("raised" in said)
    assert "Traceback" not in result.text


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: None,
        lambda made: Reading({Key("main", "1"): live for live in made.found.values()}),
        lambda made: Reading(dict.fromkeys(made.found, "up")),  # type: ignore[arg-type]
        lambda _: Reading([]),  # type: ignore[arg-type]
    ],
)
def test_a_reading_that_is_none_fails_the_step(answer: Callable[[Any], Any]) -> None:
    _, result = applied_with("read", answer, replicas={"min": 2, "max": 2})
    assert f"read_all of the endpoint provider {BY} answered with something that is no answer" in result.text


def test_an_endpoint_that_does_not_say_how_it_is_reached_serves_nobody() -> None:
    world, state = applied()
    plan = planned(application(weights="w2"), state, world)
    world.target.providers["endpoint"].answer = lambda verb, made: (
        Reading({key: replace(live, outputs={}) for key, live in made.found.items()}) if verb == "read" else made
    )
    result, _ = world.run(plan, 2)
    assert [r.text.split(", ")[-1] for r in result.failed] == ["and its provider does not say how it is reached"]


@pytest.mark.parametrize("answer", [lambda _: None, lambda _: GatewayReading(True, {"local": "all well"})])  # type: ignore[dict-item]
def test_a_gateway_that_answers_garbage_fails_the_step(answer: Callable[[Any], Any]) -> None:
    world, state = applied()
    plan = planned(application(system="Be kind."), state, world)
    world.target.gateway.answer = answer
    result, _ = world.run(plan, 2)
    assert [r.step.id.split(":")[0] for r in result.failed] == ["stage"]
    assert "read of the gateway answered with something that is no answer" in result.failed[0].text


def test_a_provider_that_hangs_costs_its_step_the_deadline_and_nothing_more() -> None:
    world, state = applied()
    endpoint = world.target.providers["endpoint"]

    def hang(verb: str, _: Key) -> None:
        if verb == "create":
            world.clock.hang()

    endpoint.trouble = hang
    wanted = with_fields(application(weights="w2", rows="d2"), ENDPOINT, timeouts={"ready_s": 40.0})
    result, run = world.run(planned(wanted, state, world), 2)
    hung = next(r for r in result.failed)
    assert hung.text == f"{hung.step.id}: create of the endpoint provider {BY} did not end in the time allowed"
    assert (hung.tries, round(world.clock.passed)) == (1, round(40 + GRACE_S))
    left = [t for t in threading.enumerate() if t.name == "call"]
    assert len(left) == 1
    assert left[0].daemon
    assert run.resources[ROUTE] == state.resources[ROUTE]
    done = {str(r.step.address) for r in result.done}
    assert "dataset.faq" in done, "what does not need it goes on"
    world.clock.released.set()
    left[0].join(10)


def test_what_hangs_does_not_keep_the_process_from_exiting() -> None:
    program = """
from threading import Event
from llmctl.apply import Clock
from llmctl.apply.calls import bounded
from llmctl.core.errors import ProviderError
from llmctl.core.protocols import Op

class Impatient(Clock):
    def await_end(self, ended, seconds):
        return False

try:
    bounded(Impatient(), Op("key", 0.0), "create of the mad provider", Event().wait)
except ProviderError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.strip() == "create of the mad provider did not end in the time allowed"
