"""Calls of code that is not apply's own: bounded in time, and their answers looked at before they are believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Thread
from typing import TypeVar

from llmctl.apply.clock import Clock
from llmctl.core.digests import Json
from llmctl.core.errors import LlmctlError, ProviderError
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import GatewayReading, Op
from llmctl.core.resources import Key, Live, Reading
from llmctl.live import nonsense_in, raised_in

GRACE_S = 15.0  # a provider ends its calls at the deadline by itself, and may be in the middle of a request then
_DEFECT = "This is a defect of that provider, and not of what you wrote; please report it."

T = TypeVar("T")


def bounded(clock: Clock, op: Op, what: str, call: Callable[[], T]) -> T:
    """The answer of ``call``. ``what`` names it in messages.

    It is made on a thread of its own: one that hangs is left behind ``GRACE_S`` after the deadline of ``op``, and
    the process does not wait for it when it exits. Raises what the call raises, ``ProviderError`` for what is no
    error of this project.
    """
    answers: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            answers.append(call())
        except BaseException as error:  # noqa: BLE001 - it is raised again, on the thread that waits
            failures.append(error)

    working = Thread(target=work, name="call", daemon=True)
    working.start()
    if not clock.await_end(working, max(0.0, op.deadline_s - clock.now()) + GRACE_S):
        raise ProviderError(
            f"{what} did not end in the time allowed", hint="Look at `llmctl status` for what is there."
        )
    if not failures:
        return answers[0]
    if isinstance(failures[0], LlmctlError):
        raise failures[0]
    raise ProviderError(f"{what} raised {type(failures[0]).__name__}", detail=raised_in(failures[0]), hint=_DEFECT)


def as_reading(what: str, answer: object) -> Reading[Json]:
    """The answer of a ``read_all`` if it is one; raises ``ProviderError``."""
    if not isinstance(answer, Reading) or nonsense_in(answer):
        raise _garbage(what, answer)
    return answer


def as_live(what: str, answer: object, key: Key, revision: str) -> Live[Json]:
    """The answer of a ``create`` or ``update`` if what it was for is there now; raises ``ProviderError``."""
    if not isinstance(answer, Live) or not _is_live(answer):
        raise _garbage(what, answer)
    if answer.key != key:
        raise ProviderError(f"{what} answered with {answer.key}, asked for was {key}", hint=_DEFECT)
    if answer.revision != revision:
        there = answer.revision or "unknown"
        raise ProviderError(f"{what} left revision {there} there, asked for was {revision}", hint=_DEFECT)
    if not answer.healthy:
        raise ProviderError(f"{what} left it unhealthy: {answer.detail or 'no reason is given'}")
    return answer


def as_gateway_reading(what: str, answer: object) -> GatewayReading:
    """What the gateway's control read back, if it is that; raises ``ProviderError``."""
    if not isinstance(answer, GatewayReading) or not isinstance(answer.configs, Mapping):
        raise _garbage(what, answer)
    for config in answer.configs.values():
        if not isinstance(config, GatewayConfig):
            raise _garbage(what, config)
    return answer


def _is_live(live: object) -> bool:
    return (
        isinstance(live, Live)
        and isinstance(live.key, Key)
        and isinstance(live.revision, str)
        and isinstance(live.outputs, Mapping)
    )


def _garbage(what: str, answer: object) -> ProviderError:
    """Not the answer's text: nobody knows what is in it."""
    return ProviderError(f"{what} answered with something that is no answer ({type(answer).__name__})", hint=_DEFECT)
