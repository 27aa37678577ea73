"""Reading a target whose providers fail, hang, answer nonsense or list half: unreadable, and never absent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from llmctl import live
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import ProviderError
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import GatewayReading
from llmctl.core.resources import ALL, Key, Live, Reading

KEY = Key("main", "0123456789abcdef")
MAIN = Live[Any](KEY, {}, KEY.revision)
SECRET = "sk-canary-4711"


@dataclass
class Provider:
    answer: Callable[[], Any]

    def read_all(self) -> Any:
        return self.answer()

    read = read_all


def target(providers: dict[str, Provider], gateway: Provider | None = None) -> Any:
    """What ``live.read`` asks of a target."""
    down = Provider(lambda: GatewayReading(running=False))
    return SimpleNamespace(providers=providers, gateway=gateway or down)


def failing(error: BaseException) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


@contextmanager
def hanging() -> Iterator[Provider]:
    """A provider that answers only when the test is over."""
    over = Event()
    try:
        yield Provider(lambda: over.wait() and Reading())
    finally:
        over.set()


def read(answer: Callable[[], Any]) -> live.LiveState:
    return live.read(target({"endpoint": Provider(answer), "model": Provider(lambda: Reading({KEY: MAIN}))}))


@pytest.mark.parametrize(
    "answer",
    [
        lambda: None,
        lambda: {"main": "runs"},
        lambda: Reading({"main": MAIN}),  # type: ignore[dict-item]
        lambda: Reading({KEY: "runs"}),  # type: ignore[arg-type]
        lambda: Reading({Key("other", KEY.revision): MAIN}),
        lambda: Reading({KEY: Live[Any](KEY, {}, None)}),  # type: ignore[arg-type]
        lambda: Reading({KEY: Live[Any](KEY, {}, KEY.revision, outputs=None)}),  # type: ignore[arg-type]
        lambda: Reading([MAIN]),  # type: ignore[arg-type]
        lambda: Reading(unreadable={KEY: "no idea"}),  # type: ignore[dict-item]
        failing(ValueError(SECRET)),
        failing(KeyError("found")),
        failing(SystemExit(0)),
        failing(RecursionError()),
        failing(ProviderError("supervisord does not answer", hint="Start it.")),
    ],
)
def test_whatever_a_provider_does_instead_of_answering_it_is_unreadable(answer: Callable[[], Any]) -> None:
    state = read(answer)
    reason = state.unreadable("endpoint", KEY)
    assert reason is not None
    assert "endpoint" in reason.summary or reason.hint == "Start it."
    assert SECRET not in f"{reason}{state.fingerprint()}"
    assert state.find("endpoint", KEY) is None
    assert state.find("model", KEY) == MAIN
    assert state.unreadable("model", KEY) is None


def test_a_provider_that_lists_half_is_believed_in_that_half() -> None:
    lost = Key("spare", KEY.revision)
    state = read(lambda: Reading({KEY: MAIN}, {lost: Diagnostic("its file is damaged")}))
    assert state.find("endpoint", KEY) == MAIN
    assert state.unreadable("endpoint", KEY) is None
    assert state.unreadable("endpoint", lost) == Diagnostic("its file is damaged")


def test_what_is_both_found_and_unreadable_is_unreadable() -> None:
    state = read(lambda: Reading({KEY: MAIN}, {KEY: Diagnostic("half of it")}))
    assert state.find("endpoint", KEY) is None
    assert state.unreadable("endpoint", KEY) is not None


def test_a_provider_that_hangs_is_given_up_and_the_others_are_read() -> None:
    with hanging() as stuck:
        readable = Provider(lambda: Reading({KEY: MAIN}))
        state = live.read(
            target({"endpoint": stuck, "model": readable}, stuck), timeouts={"endpoint": 0.0, "gateway": 0.0}
        )
    reason = state.readings["endpoint"].unreadable[ALL]
    assert reason.summary == "the provider of kind endpoint did not answer in 0 s"
    assert state.gateway.unreadable == "the gateway's control did not answer in 0 s"
    assert state.find("model", KEY) == MAIN


@pytest.mark.parametrize(
    "answer",
    [
        lambda: None,
        lambda: GatewayReading(running=True, configs={"local": "config"}),  # type: ignore[dict-item]
        lambda: GatewayReading(running=True, configs=None),  # type: ignore[arg-type]
        failing(OSError(SECRET)),
        failing(ProviderError("the gateway's socket is gone")),
    ],
)
def test_a_gateway_that_answers_nonsense_is_unreadable(answer: Callable[[], Any]) -> None:
    state = live.read(target({}, Provider(answer)))
    assert "gateway" in state.gateway.unreadable
    assert SECRET not in state.gateway.unreadable
    assert state.unreadable("route", Key("support")) is not None
    assert state.gateway_config() is None


def test_a_laggard_among_the_gateways_counts() -> None:
    configs = {"a": GatewayConfig("dev", serial=2), "b": GatewayConfig("dev", serial=1)}
    state = live.read(target({}, Provider(lambda: GatewayReading(True, configs))))
    assert state.gateway_config() == configs["b"]
