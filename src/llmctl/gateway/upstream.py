"""The client side: asks a route revision's upstreams in order until one answers."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from types import SimpleNamespace
from typing import TypeVar

import aiohttp
from yarl import URL

from llmctl import __version__
from llmctl.core.digests import Json
from llmctl.core.secrets import Secret
from llmctl.gateway.metrics import Metrics
from llmctl.gateway.replies import ApiError, dump
from llmctl.gateway.routing import by_load
from llmctl.gateway.state import Served, Target
from llmctl.gateway.stats import Stats

log = logging.getLogger("llmctl.gateway")
T = TypeVar("T")

_CONNECT_S = 10.0
#: llama.cpp closes an idle connection after 5 s; below that, few requests meet a closed one.
_KEEPALIVE_S = 3.0
_CONNECTIONS = 1000
_WARN_EVERY_S = 10.0
_LARGE = 1 << 20  # bytes; aiohttp wants more than that as a file, to write it piece by piece
_LOADING = 503  # what an engine answers before its model is loaded: it has not begun to work on the request
#: Faults of our own set-up (key, account, model name), not of the client's request: the next upstream
#: may do better, and the upstream's words about our account are not for clients.
_OURS = frozenset({401, 402, 403, 404, 407, 408, 429})


class UpstreamFailed(Exception):
    """One upstream gave no answer. ``reason``: connect, lost (before a byte came), timeout, status, broken or key."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; ``status`` is 200 or the client error that the upstream found."""

    target: Target
    status: int
    body: Json


class Stream:
    """A streamed answer that has begun: ``first`` is what came already. Close it in any case."""

    def __init__(self, target: Target, response: aiohttp.ClientResponse, first: bytes, closed: Callable[[], None]):
        self.target = target
        self.first = first
        self._response = response
        self._closed = closed

    async def more(self) -> bytes:
        """The next bytes, empty at the end; raises ``UpstreamFailed`` when it breaks or stalls."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _failed(error) from None

    def close(self) -> None:
        """End the upstream's request too, wherever it is."""
        self._response.close()
        self._closed()


class Upstreams:
    """Connections to all upstreams. Create it in the running loop."""

    def __init__(self, stats: Stats, metrics: Metrics) -> None:
        self._stats = stats
        self._metrics = metrics
        self._warned: dict[str, float] = {}
        self._in_flight: Counter[URL] = Counter()  # by replica; it outlives configurations, as requests do
        self._turns = itertools.count()
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_mark_reused)
        self._pooled = self._session(
            aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_KEEPALIVE_S), trace_configs=[trace]
        )
        # llama.cpp closes the connection after a stream without saying so: a reused one would fail.
        self._fresh = self._session(aiohttp.TCPConnector(limit=_CONNECTIONS, force_close=True))

    @staticmethod
    def _session(
        connector: aiohttp.TCPConnector, trace_configs: list[aiohttp.TraceConfig] | None = None
    ) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            trace_configs=trace_configs,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"llmctl-gateway/{__version__}", "Accept-Encoding": "identity"},
            auto_decompress=False,
        )

    async def close(self) -> None:
        await self._pooled.close()
        await self._fresh.close()

    async def ask(self, served: Served, payload: Json, keys: Mapping[str, Secret]) -> Answer:
        """A whole answer; raises ``ApiError`` when no upstream has one."""
        return await self._first(served, lambda target, url: self._ask(target, url, payload, keys))

    async def stream(self, served: Served, payload: Json, keys: Mapping[str, Secret]) -> Stream | Answer:
        """A stream whose first bytes are there, or a client error; raises ``ApiError`` as ``ask`` does."""
        return await self._first(served, lambda target, url: self._open(target, url, payload, keys))

    async def _first(self, served: Served, attempt: Callable[[Target, URL], Awaitable[T]]) -> T:
        statuses = []
        for position, target in enumerate(served.targets):
            if position:
                self._metrics.fallbacks.labels(served.route, served.spec.revision).inc()
            lost = False
            for url in by_load(target.urls, self._in_flight, next(self._turns)):
                try:
                    return await attempt(target, url)
                except UpstreamFailed as failure:
                    statuses.append(failure.status)
                    self.count_failure(target, failure)
                    # A replica that went away under a request may have died of it: one other is tried, not all.
                    first_lost, lost = failure.reason == "lost" and not lost, lost or failure.reason == "lost"
                    if failure.reason != "connect" and failure.status != _LOADING and not first_lost:
                        break  # any other would fail alike
        headers = {"x-llmctl-endpoint": served.targets[-1].name}
        if set(statuses) == {429}:
            raise ApiError(429, "The model is over its rate limit; try again later.", "rate_limited", headers=headers)
        raise ApiError(502, "The model could not be reached; try again later.", "upstream_failed", headers=headers)

    def count_failure(self, target: Target, failure: UpstreamFailed) -> None:
        """Count it and say it, but not at every request of an outage."""
        self._stats.upstream(target.name).errors += 1
        self._metrics.upstream_errors.labels(target.upstream.endpoint, target.upstream.revision, failure.reason).inc()
        now = monotonic()
        if now - self._warned.get(target.name, -_WARN_EVERY_S) >= _WARN_EVERY_S:
            self._warned[target.name] = now
            status = f" {failure.status}" if failure.status else ""
            key = f"; the key {target.upstream.secret} is not in secrets.json" if failure.reason == "key" else ""
            log.warning("endpoint %s failed: %s%s%s", target.name, failure.reason, status, key)

    def _begin(self, target: Target, url: URL) -> Callable[[], None]:
        stats = self._stats.upstream(target.name)
        stats.requests += 1
        stats.in_flight += 1
        self._in_flight[url] += 1

        def end() -> None:
            stats.in_flight -= 1
            self._in_flight[url] -= 1
            if not self._in_flight[url]:
                del self._in_flight[url]

        return end

    async def _ask(self, target: Target, url: URL, payload: Json, keys: Mapping[str, Secret]) -> Answer:
        end = self._begin(target, url)
        try:
            async with asyncio.timeout(target.upstream.timeout_s):
                async with await self._post_pooled(target, url, payload, keys) as response:
                    if response.status != 200:
                        return await _client_error(target, response, keys)
                    body = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
            raise _failed(error) from None
        finally:
            end()
        if not isinstance(body, dict):
            raise UpstreamFailed("broken")
        return Answer(target, 200, body)

    async def _open(self, target: Target, url: URL, payload: Json, keys: Mapping[str, Secret]) -> Stream | Answer:
        end = self._begin(target, url)
        response: aiohttp.ClientResponse | None = None
        opened = False
        try:
            async with asyncio.timeout(target.upstream.timeout_s):
                response = await self._post(self._fresh, target, url, payload, keys)
                if response.status != 200:
                    return await _client_error(target, response, keys)
                first = await response.content.readany() if response.content_type == "text/event-stream" else b""
            if not first:
                raise UpstreamFailed("broken")
            opened = True
            return Stream(target, response, first, end)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _failed(error) from None
        finally:
            if not opened:
                if response is not None:
                    response.close()
                end()

    async def _post_pooled(
        self, target: Target, url: URL, payload: Json, keys: Mapping[str, Secret]
    ) -> aiohttp.ClientResponse:
        context = SimpleNamespace(reused=False)
        try:
            return await self._post(self._pooled, target, url, payload, keys, context)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not context.reused:
                raise
        # The server closed an idle connection just as we took it: it never saw the request.
        return await self._post(self._fresh, target, url, payload, keys)

    async def _post(
        self,
        session: aiohttp.ClientSession,
        target: Target,
        url: URL,
        payload: Json,
        keys: Mapping[str, Secret],
        context: SimpleNamespace | None = None,
    ) -> aiohttp.ClientResponse:
        headers = {"Content-Type": "application/json"}
        upstream = target.upstream
        if upstream.secret:
            key = keys.get(upstream.secret)
            if key is None:
                raise UpstreamFailed("key")
            headers["Authorization"] = f"Bearer {key.reveal()}"
        body = dump({**payload, "model": upstream.model})
        return await session.post(
            url,
            data=body if len(body) <= _LARGE else io.BytesIO(body),
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=upstream.timeout_s),
            trace_request_ctx=context,
        )


async def _client_error(target: Target, response: aiohttp.ClientResponse, keys: Mapping[str, Secret]) -> Answer:
    """What the upstream says is wrong with the request; raises ``UpstreamFailed`` when that is not it."""
    status = response.status
    if not 400 <= status < 500 or status in _OURS:
        raise UpstreamFailed("status", status)
    text = await response.text()
    if target.upstream.secret:
        text = text.replace(keys[target.upstream.secret].reveal(), "***")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        body = ApiError(status, "The model refused this request.", "refused").body()
    return Answer(target, status, body)


async def _mark_reused(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _: aiohttp.TraceConnectionReuseconnParams
) -> None:
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.reused = True


def _failed(error: Exception) -> UpstreamFailed:
    if isinstance(error, TimeoutError):
        return UpstreamFailed("timeout")
    if isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamFailed("connect")
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
        return UpstreamFailed("lost")
    return UpstreamFailed("broken")
