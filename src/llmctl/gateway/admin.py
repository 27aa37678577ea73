"""The API that llmctl uses, on a unix socket that only the owner can open."""

from __future__ import annotations

import asyncio
import json
import logging
import os

from aiohttp import web

from llmctl import __version__
from llmctl.core.digests import Json
from llmctl.core.errors import Conflict, LlmctlError
from llmctl.gateway.checks import BadConfig
from llmctl.gateway.metrics import Metrics
from llmctl.gateway.replies import reply
from llmctl.gateway.state import Snapshot, State
from llmctl.gateway.stats import Stats

log = logging.getLogger("llmctl.gateway")

_MAX_CONFIG = 64 << 20  # bytes


class AdminApi:
    """Handlers of the admin socket."""

    def __init__(self, state: State, stats: Stats, metrics: Metrics) -> None:
        self._state = state
        self._stats = stats
        self._metrics = metrics
        self._one_writer = asyncio.Lock()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_CONFIG)
        app.router.add_get("/config", self.read)
        app.router.add_put("/config", self.publish)
        app.router.add_get("/stats", self.stats)
        app.router.add_get("/health", self.health)
        return app

    async def health(self, _: web.Request) -> web.Response:
        return reply({"status": "ok", "revision": self._state.snapshot.revision, "pid": os.getpid()})

    async def stats(self, _: web.Request) -> web.Response:
        return reply({"revision": self._state.snapshot.revision, **self._stats.to_json()})

    async def read(self, _: web.Request) -> web.Response:
        snapshot = self._state.snapshot
        return reply(
            {
                "revision": snapshot.revision,
                "config": snapshot.config.to_json(),
                "effective": snapshot.effective(),
                "missing_secrets": snapshot.missing_secrets(),
                "version": __version__,
            }
        )

    async def publish(self, request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read())
        except (ValueError, RecursionError):
            return self._refused(400, "the body is not valid JSON")
        if not isinstance(body, dict) or not isinstance(body.get("expected"), str) or "config" not in body:
            return self._refused(400, 'the body must be {"expected": revision, "config": {…}}')
        async with self._one_writer:
            try:
                # In a thread: the disk takes milliseconds, and clients are being answered meanwhile.
                snapshot = await asyncio.to_thread(self._state.publish, body["config"], body["expected"])
            except BadConfig as error:
                return self._refused(400, str(error))
            except Conflict as error:
                return self._refused(409, error.summary)
            except LlmctlError as error:
                log.error("a configuration was refused: %s", error.summary)
                return self._refused(500, error.summary)
            self._swapped(snapshot)
        return reply({"revision": snapshot.revision, "missing_secrets": snapshot.missing_secrets()})

    def _swapped(self, snapshot: Snapshot) -> None:
        self._metrics.serving(snapshot)
        served = [s for revisions in snapshot.served.values() for s in revisions.values()]
        self._stats.forget_all_but(
            ((s.route, s.spec.revision) for s in served), (t.name for s in served for t in s.targets)
        )

    def _refused(self, status: int, why: str) -> web.Response:
        body: Json = {"error": why, "revision": self._state.snapshot.revision}
        return reply(body, status)
