"""Ask the gateway every row of a dataset, at bounded concurrency, and measure each request.

asyncio and aiohttp load on first use: this room is also imported to validate a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from threading import Event
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, NoReturn

from llmctl.core.digests import Json
from llmctl.core.errors import Interrupted, ProviderError, TransientError
from llmctl.core.protocols import GateAccess

if TYPE_CHECKING:
    import asyncio

    import aiohttp

REVISION_HEADER = "x-llmctl-revision"
_LONGEST_ERROR = 300
_POLL_S = 0.02
_MASK = "**********"
_SHORTEST_SECRET = 8  # a shorter one stands in many a text by chance


class OutOfTime(Exception):
    """The time for all questions together was over before all were answered."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request gave. A failed one (``error``) has no text and counts as the whole time-out, so
    that failing fast never improves a latency."""

    text: str
    latency_ms: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """The route revision that is asked, and how it is reached."""

    access: GateAccess
    route: str
    revision: str
    timeout_s: float

    @property
    def model(self) -> str:
        return f"{self.route}@{self.revision}"

    def failed(self, reason: str) -> Answer:
        return Answer("", self.timeout_s * 1000, self.masked(reason)[:_LONGEST_ERROR])

    def masked(self, text: str) -> str:
        """A text of the other side, which may echo what it was sent."""
        token = self.access.token.reveal()
        return text.replace(token, _MASK) if len(token) >= _SHORTEST_SECRET else text


@dataclass(frozen=True, slots=True)
class _Limits:
    """What ends all requests at once."""

    cancelled: Event
    deadline_s: float

    def check(self) -> None:
        if self.cancelled.is_set():
            raise Interrupted("interrupted")
        if monotonic() > self.deadline_s:
            raise OutOfTime


def ask(
    target: Target,
    questions: Sequence[Mapping[str, Json]],
    *,
    concurrency: int,
    answered: Callable[[int, Answer], None],
    cancelled: Event,
    deadline_s: float = inf,
) -> list[Answer]:
    """Ask each question (prompt variables) once and return the answers in order.

    ``answered`` hears of each answer as it comes: (which question, answer). The first question is asked
    once more before, unmeasured and unheard. Raises ``ProviderError`` when the gateway cannot be reached,
    refuses the token, or answers by another revision, ``Interrupted`` soon after ``cancelled`` is set,
    ``OutOfTime`` soon after ``deadline_s`` of ``time.monotonic``. Must not be called from a running event loop.
    """
    if cancelled.is_set():
        raise Interrupted("interrupted")
    if not target.access.token.reveal().isprintable():
        # aiohttp would refuse such a header with a message that shows it.
        raise ProviderError(
            "the gate's token cannot be sent: it has a line break",
            hint="Run `llmctl destroy` and apply anew: the token is made then.",
        )
    if not questions:
        return []
    import asyncio

    return asyncio.run(_ask(target, questions, concurrency, answered, _Limits(cancelled, deadline_s)))


async def _ask(
    target: Target,
    questions: Sequence[Mapping[str, Json]],
    concurrency: int,
    answered: Callable[[int, Answer], None],
    limits: _Limits,
) -> list[Answer]:
    import asyncio

    import aiohttp

    answers: list[Answer | None] = [None] * len(questions)
    waiting = iter(enumerate(questions))

    async def work(session: aiohttp.ClientSession) -> None:
        for at, question in waiting:
            answers[at] = answer = await _one(session, target, question)
            answered(at, answer)

    limits.check()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=target.timeout_s, ceil_threshold=target.timeout_s + 1),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        await _unless(limits, [asyncio.create_task(_warm_up(session, target, questions[0]))])
        workers = max(1, min(concurrency, len(questions)))
        await _unless(limits, [asyncio.create_task(work(session)) for _ in range(workers)])
    return [answer for answer in answers if answer is not None]


async def _warm_up(session: aiohttp.ClientSession, target: Target, question: Mapping[str, Json]) -> None:
    await _one(session, target, question)


async def _unless(limits: _Limits, tasks: list[asyncio.Task[None]]) -> None:
    """Wait for the tasks; at the first failure, or when a limit is reached, stop them all and raise."""
    import asyncio

    async def watch() -> None:
        while True:
            limits.check()
            await asyncio.sleep(_POLL_S)

    watcher = asyncio.create_task(watch())
    waiting = {*tasks, watcher}
    try:
        while waiting - {watcher}:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in (watcher, *tasks):
            task.cancel()
        await asyncio.gather(watcher, *tasks, return_exceptions=True)


async def _one(session: aiohttp.ClientSession, target: Target, question: Mapping[str, Json]) -> Answer:
    import aiohttp

    payload = json.dumps({"model": target.model, "prompt_variables": dict(question), "stream": False})
    start = perf_counter()
    try:
        async with session.post(
            f"{target.access.base_url.rstrip('/')}/v1/chat/completions",
            data=payload.encode(),
            headers={
                "Authorization": f"Bearer {target.access.token.reveal()}",
                "Content-Type": "application/json",
            },
            allow_redirects=False,
        ) as response:
            body = await response.read()
            latency_ms = (perf_counter() - start) * 1000
    except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
        _unreachable(target, error)
    except TimeoutError:
        return target.failed(f"no answer within {target.timeout_s:g} s")
    except aiohttp.ClientError as error:
        return target.failed(f"the connection broke: {type(error).__name__}")
    return _read(target, response.status, response.headers.get(REVISION_HEADER, ""), body, latency_ms)


def _read(target: Target, status: int, served_by: str, body: bytes, latency_ms: float) -> Answer:
    if (served_by or status == 200) and served_by != target.revision:
        raise ProviderError(
            f"the gateway answered for {target.model} by revision {served_by or 'unknown'}",
            detail=f"Its header {REVISION_HEADER} must be {target.revision}; the gate would prove the wrong thing.",
            hint="Look at `llmctl status`; plan again.",
        )
    if status in (401, 403) and not served_by:
        raise ProviderError(
            "the gateway refuses the gate's token", hint="Look at `llmctl logs gateway`, and apply again."
        )
    if status == 404 and not served_by:
        raise ProviderError(
            f"the gateway does not know {target.model}", hint="It was taken away meanwhile; plan and apply again."
        )
    try:
        reply = json.loads(body)
    except ValueError:
        reply = None
    if status != 200:
        return target.failed(f"HTTP {status}: {_reason(reply)}".removesuffix(": "))
    try:
        text = reply["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        text = None
    if not isinstance(text, str):
        return target.failed("the answer has no text")
    return Answer(target.masked(text), min(latency_ms, target.timeout_s * 1000))


def _reason(reply: Json) -> str:
    error = reply.get("error") if isinstance(reply, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else ""


def _unreachable(target: Target, error: Exception) -> NoReturn:
    raise TransientError(
        f"the gateway cannot be reached at {target.access.base_url}",
        detail=target.masked(str(error)),
        hint="Look at `llmctl status` and `llmctl logs`; then apply again.",
    ) from None
