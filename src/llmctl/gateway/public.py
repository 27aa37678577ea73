"""The API that clients use: OpenAI-compatible, a route is a model."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import ClientError, web

from llmctl.core.digests import Json
from llmctl.gateway.chat import ChatRequest, parse, payload
from llmctl.gateway.metrics import Metrics
from llmctl.gateway.replies import ApiError, error_reply, no_such_model, reply
from llmctl.gateway.routing import choose
from llmctl.gateway.sse import Rewriter, event
from llmctl.gateway.state import Served, Snapshot, State
from llmctl.gateway.stats import Stats
from llmctl.gateway.upstream import Answer, Stream, UpstreamFailed, Upstreams

log = logging.getLogger("llmctl.gateway")

MAX_BODY = 4 << 20  # bytes
#: A client that reads nothing for so long is gone; it would hold its revision from being retired.
_CLIENT_STALL_S = 60.0
_GONE = 499  # as nginx counts a client that went away
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Outcome:
    """How a request ended, for the counters: what came of it until something else is known."""

    code: int = _GONE
    failed: bool = False


class PublicApi:
    """Handlers of the public port."""

    def __init__(self, state: State, upstreams: Upstreams, stats: Stats, metrics: Metrics) -> None:
        self._state = state
        self._upstreams = upstreams
        self._stats = stats
        self._metrics = metrics

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY, middlewares=[errors_as_json])
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/health", self.health)
        app.router.add_get("/metrics", self.metrics)
        return app

    async def health(self, _: web.Request) -> web.Response:
        return reply({"status": "ok", "config": self._state.snapshot.revision})

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": _METRICS_TYPE})

    async def models(self, request: web.Request) -> web.Response:
        snapshot = self._state.snapshot
        names = [name for name, route in snapshot.names.items() if snapshot.weights(route)]
        if _is_gate(snapshot, request):
            names += [f"{name}@{revision}" for name, served in snapshot.served.items() for revision in served]
        made = {"object": "model", "created": int(snapshot.since), "owned_by": "llmctl"}
        return reply(
            {"object": "list", "data": [{"id": name, **made} for name in sorted(names)]},
            headers={"x-llmctl-config": snapshot.revision},
        )

    async def chat(self, request: web.Request) -> web.StreamResponse:
        try:
            raw = await request.read()
        except ClientError:
            raise ApiError(400, "The request's body is not as its headers say.", "invalid_body") from None
        snapshot = self._state.snapshot
        headers = {"x-llmctl-config": snapshot.revision}
        try:
            asked = parse(raw)
            staged = "@" in asked.model
            served = _staged(snapshot, asked, request) if staged else _public(snapshot, asked)
        except ApiError as error:
            self._metrics.requests.labels("", "", "public", str(error.status)).inc()
            return error_reply(error, headers)
        headers |= {"x-llmctl-route": served.route, "x-llmctl-revision": served.spec.revision}
        return await self._counted(request, snapshot, served, asked, headers)

    async def _counted(
        self, request: web.Request, snapshot: Snapshot, served: Served, asked: ChatRequest, headers: dict[str, str]
    ) -> web.StreamResponse:
        staged = "@" in asked.model
        stats = self._stats.revision(served.route, served.spec.revision)
        labels = (served.route, served.spec.revision, "staged" if staged else "public")
        outcome = Outcome()
        started = time.perf_counter()
        stats.in_flight += 1
        self._metrics.in_flight.labels(*labels).inc()
        try:
            return await self._answer(request, snapshot, served, asked, headers, outcome)
        except ApiError as error:
            outcome.code, outcome.failed = error.status, error.status >= 429
            return error_reply(error, headers)
        except Exception:
            outcome.code, outcome.failed = 500, True
            raise
        finally:
            seconds = time.perf_counter() - started
            stats.finish(staged, outcome.failed, seconds if outcome.code == 200 else None)
            self._metrics.in_flight.labels(*labels).dec()
            self._metrics.seconds.labels(*labels).observe(seconds)
            self._metrics.requests.labels(*labels, str(outcome.code)).inc()

    async def _answer(
        self,
        request: web.Request,
        snapshot: Snapshot,
        served: Served,
        asked: ChatRequest,
        headers: dict[str, str],
        outcome: Outcome,
    ) -> web.StreamResponse:
        body = payload(asked, served.spec, served.fixed)
        keys = snapshot.secrets.keys
        if asked.stream:
            answer = await self._upstreams.stream(served, body, keys)
        else:
            answer = await self._upstreams.ask(served, body, keys)
        headers["x-llmctl-endpoint"] = answer.target.name
        if isinstance(answer, Stream):
            try:
                return await self._pass_on(request, answer, served.route, headers, outcome)
            finally:
                answer.close()
        outcome.code = answer.status
        return _whole(answer, served.route, headers)

    async def _pass_on(
        self, request: web.Request, stream: Stream, route: str, headers: dict[str, str], outcome: Outcome
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                **headers,
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
            }
        )
        rewriter = Rewriter(route)
        try:
            await response.prepare(request)
            try:
                await self._pump(stream, rewriter, response)
                outcome.code = 200
            except UpstreamFailed as failure:
                outcome.code, outcome.failed = 502, True
                self._upstreams.count_failure(stream.target, failure)
                error = ApiError(502, "The answer broke off; try again.", "upstream_failed")
                await _write(response, b"\n" * rewriter.half + event(error.body()))
            await response.write_eof()
        except (ConnectionError, TimeoutError):  # the client is gone, or reads nothing
            if not outcome.failed:
                outcome.code = _GONE
            if request.transport is not None:
                request.transport.abort()
        return response

    @staticmethod
    async def _pump(stream: Stream, rewriter: Rewriter, response: web.StreamResponse) -> None:
        chunk = stream.first
        while chunk and not rewriter.done:
            if lines := rewriter.feed(chunk):
                await _write(response, lines)
            if rewriter.failed:
                raise UpstreamFailed("broken")
            if not rewriter.done:
                chunk = await stream.more()
        if not rewriter.done:  # a closed connection ends a stream too, also when the server crashed
            raise UpstreamFailed("broken")


def _whole(answer: Answer, route: str, headers: dict[str, str]) -> web.Response:
    body: Json = answer.body
    if answer.status == 200:
        body["model"] = route
    return reply(body, answer.status, headers)


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(_CLIENT_STALL_S):
        await response.write(data)


def _is_gate(snapshot: Snapshot, request: web.Request) -> bool:
    return snapshot.secrets.is_gate(request.headers.get("Authorization", ""))


def _staged(snapshot: Snapshot, asked: ChatRequest, request: web.Request) -> Served:
    """The revision that a gate names; everybody else is told what they are told of any unknown model."""
    name, _, revision = asked.model.partition("@")
    routes = (name, snapshot.names.get(name, ""))  # its own name first: what is staged there is not served by it yet
    served = next((found for r in routes if (found := snapshot.served.get(r, {}).get(revision))), None)
    if not _is_gate(snapshot, request) or served is None:
        raise no_such_model(asked.model)
    return served


def _public(snapshot: Snapshot, asked: ChatRequest) -> Served:
    name = snapshot.names.get(asked.model)
    if name is None:
        raise no_such_model(asked.model)
    route, weights = snapshot.config.routes[name], snapshot.weights(name)
    if not weights:
        raise ApiError(503, f"Nothing is promoted on route {route.name} yet.", "not_promoted", "model")
    return snapshot.served[route.name][choose(route, weights, asked.user, random.random())]


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every failure in OpenAI's form; the text of an unexpected one stays here, it may quote a prompt."""
    try:
        return await handler(request)
    except ApiError as error:
        return error_reply(error)
    except web.HTTPRequestEntityTooLarge as error:
        limit = f"{MAX_BODY >> 20} MB"
        return error_reply(ApiError(error.status, f"The request is larger than {limit}.", "too_large"))
    except web.HTTPException as error:
        return error_reply(ApiError(error.status, f"{error.reason}: {request.method} {request.path}", "bad_request"))
    except Exception as error:  # noqa: BLE001  whatever it is, the client gets JSON and the log gets its kind
        log.error("%s %s failed inside the gateway: %s", request.method, request.path, type(error).__name__)
        return error_reply(ApiError(500, "The gateway failed; its log names the kind of failure.", "internal"))
