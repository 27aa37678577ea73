"""Reads a target. Whatever a provider does instead of answering, it is unreadable then, and never absent."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from threading import Event, Thread
from time import monotonic
from typing import Generic, TypeVar

from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.errors import LlmctlError
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import GatewayReading, Target
from llmctl.core.resources import ALL, Key, Live, Reading
from llmctl.core.signals import HEAR_S
from llmctl.live.state import LiveState

READ_S = 30.0  # that a provider may take for its bulk read
GATEWAY = "gateway"

T = TypeVar("T")
_DEFECT = "This is a defect of that provider, and not of what you wrote; please report it."


def read(target: Target, *, timeouts: Mapping[str, float] | None = None) -> LiveState:
    """Read all kinds and the gateway at once. A provider that fails, hangs or answers nonsense is unreadable.

    ``timeouts`` are seconds by kind, and "gateway"; ``READ_S`` where none is given. A read that hangs is left
    behind on a thread that the process does not wait for.
    """
    allowed = timeouts or {}
    calls = {kind: _Call(kind, provider.read_all) for kind, provider in target.providers.items()}
    gateway = _Call(GATEWAY, target.gateway.read)
    readings: dict[str, Reading[Json]] = {}
    for kind, call in calls.items():
        answer = call.answer(allowed.get(kind, READ_S))
        readings[kind] = _failed(answer) if isinstance(answer, Diagnostic) else _checked(kind, answer)
    served = gateway.answer(allowed.get(GATEWAY, READ_S))
    return LiveState(readings, _served(served))


class _Call(Generic[T]):
    """One read on a thread of its own, from the moment that it is made."""

    def __init__(self, kind: str, read: Callable[[], T]) -> None:
        self._what = "the gateway's control" if kind == GATEWAY else f"the provider of kind {kind}"
        self._read = read
        self._begun = monotonic()
        self._ended = Event()
        self._result: T | Diagnostic | None = None
        Thread(target=self._work, name=f"read {kind}", daemon=True).start()

    def _work(self) -> None:
        try:
            self._result = self._read()
        except LlmctlError as error:
            self._result = Diagnostic(error.summary, detail=error.detail, hint=error.hint)
        except BaseException as error:  # noqa: BLE001 - also what a provider should not raise is an answer: none
            self._result = self._raised(error)
        finally:
            self._ended.set()

    def _raised(self, error: BaseException) -> Diagnostic:
        return Diagnostic(f"{self._what} raised {type(error).__name__}", detail=raised_in(error), hint=_DEFECT)

    def answer(self, seconds: float) -> object:
        """What was read, or a ``Diagnostic`` that says why nothing was."""
        while not self._ended.wait(min(HEAR_S, max(0.0, self._begun + seconds - monotonic()))):
            if monotonic() >= self._begun + seconds:
                hint = "See whether what it talks to hangs, then run the command again."
                return Diagnostic(f"{self._what} did not answer in {seconds:g} s", hint=hint)
        return self._result


def raised_in(error: BaseException) -> str:
    """Where an error was raised that nobody foresaw. Not its text: nobody knows what is in it, a key maybe."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"Raised in {frame.name}, {frame.filename}:{frame.lineno}."


def _failed(reason: Diagnostic) -> Reading[Json]:
    return Reading(unreadable={ALL: reason})


def _checked(kind: str, answer: object) -> Reading[Json]:
    """A reading, if it is one; what is both found and unreadable counts as unreadable."""
    wrong = nonsense_in(answer)
    if wrong or not isinstance(answer, Reading):
        return _failed(Diagnostic(f"the provider of kind {kind} answered nonsense: {wrong}", hint=_DEFECT))
    if answer.unreadable.keys().isdisjoint(answer.found):
        return answer
    return Reading({k: live for k, live in answer.found.items() if k not in answer.unreadable}, answer.unreadable)


def nonsense_in(answer: object) -> str:
    """What is wrong with the answer of a bulk read, "" for nothing; never its text."""
    if not isinstance(answer, Reading):
        return f"a {type(answer).__name__} where a reading should be"
    if not isinstance(answer.found, Mapping) or not isinstance(answer.unreadable, Mapping):
        return "a reading without its two maps"
    for key, live in answer.found.items():
        if not isinstance(key, Key) or not isinstance(live, Live):
            return f"{type(key).__name__}: {type(live).__name__} where a key and a live thing should be"
        if live.key != key:
            return "a live thing under the key of another one"
        if not isinstance(live.revision, str) or not isinstance(live.outputs, Mapping):
            return "a live thing without revision or outputs"
    for key, why in answer.unreadable.items():
        if not isinstance(key, Key) or not isinstance(why, Diagnostic):
            return "something unreadable without a key or a reason"
    return ""


def _served(answer: object) -> GatewayReading:
    if isinstance(answer, GatewayReading) and isinstance(answer.configs, Mapping):
        wrong = [c for c in answer.configs.values() if not isinstance(c, GatewayConfig)]
        if not wrong:
            return answer
        answer = wrong[0]
    if isinstance(answer, Diagnostic):
        return GatewayReading(running=True, unreadable=answer.summary)
    said = f"the gateway's control answered nonsense: a {type(answer).__name__}"
    return GatewayReading(running=True, unreadable=said)
