"""A real gateway process, and a scripted OpenAI-compatible server for it to talk to."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from llmctl.core.digests import Json
from llmctl.core.gateway_config import GatewayConfig, Lease, Route, RouteRevision, Upstream

SOURCE = Path(__file__).parents[2] / "src"
TOKEN = "gate-token-CANARY-5f1c"
KEY = "sk-CANARY-upstream-key-77aa"
CANARIES = (TOKEN, KEY)
GATE = {"Authorization": f"Bearer {TOKEN}"}
DEADLINE_S = 15.0


def wait_until(done: Callable[[], bool], what: str) -> None:
    """Poll until ``done``; fails the test after ``DEADLINE_S``."""
    end = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < end, f"waited too long for: {what}"
        time.sleep(0.005)


async def until(done: Callable[[], bool], what: str) -> None:
    """As ``wait_until``, in a running loop."""
    end = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < end, f"waited too long for: {what}"
        await asyncio.sleep(0.005)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=DEADLINE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(DEADLINE_S)
        self.sock.connect(str(self._path))


class GatewayProcess:
    """``python -m llmctl.gateway`` in a folder of its own."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.socket = folder / "admin.sock"
        self.log = folder / "stderr.log"
        self._wanted_port = port
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        if not (folder / "secrets.json").exists():
            self.write_secrets({"gate_token": TOKEN, "keys": {"HOSTED": KEY}})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def write_secrets(self, value: Json, mode: int = 0o600) -> None:
        path = self.folder / "secrets.json"
        path.write_text(json.dumps(value))
        path.chmod(mode)

    def command(self) -> list[str]:
        return [
            sys.executable, "-m", "llmctl.gateway", "--dir", str(self.folder),
            "--port", str(self._wanted_port), "--admin-socket", str(self.socket),
        ]  # fmt: skip

    def spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as stderr:
            self.process = subprocess.Popen(
                self.command(), stderr=stderr, stdout=stderr, env={**os.environ, "PYTHONPATH": str(SOURCE)}
            )
        return self.process

    def start(self) -> GatewayProcess:
        before = self.log.read_text() if self.log.exists() else ""
        process = self.spawn()

        def ready() -> bool:
            assert process.poll() is None, self.log.read_text()
            found = re.search(r"serving on http://[^:]+:(\d+) ", self.log.read_text()[len(before) :])
            self.port = int(found[1]) if found else 0
            return found is not None

        wait_until(ready, "the gateway to be ready")
        return self

    def refuses_to_start(self) -> str:
        """Its stderr; fails the test unless it ends with exit code 1."""
        assert self.spawn().wait(DEADLINE_S) == 1
        return self.log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def admin(self, method: str, path: str, body: Json = None) -> tuple[int, Json]:
        connection = _UnixConnection(self.socket)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def publish(self, config: GatewayConfig) -> str:
        """Replace whatever is served."""
        _, now = self.admin("GET", "/config")
        status, answer = self.admin("PUT", "/config", {"expected": now["revision"], "config": config.to_json()})
        assert status == 200, answer
        assert answer["revision"] == config.revision
        return config.revision

    def stats(self) -> Json:
        return self.admin("GET", "/stats")[1]


@dataclass
class FakeUpstream:
    """An OpenAI-compatible server that does as ``behaviour`` says and remembers what it got."""

    behaviour: str = "ok"
    text: str = "hello"
    port: int = 0
    requests: list[Json] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    peers: list[Any] = field(default_factory=list)
    cancelled: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        assert request.transport is not None
        self.peers.append(request.transport.get_extra_info("peername"))
        try:
            return await self._answer(request, body)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def _answer(self, request: web.Request, body: Json) -> web.StreamResponse:
        assert request.transport is not None
        if self.behaviour.isdigit():
            echo = f"upstream says no to {request.headers.get('Authorization')}"
            return web.json_response({"error": {"message": echo, "type": "x"}}, status=int(self.behaviour))
        if self.behaviour == "hang":
            await self.go_on.wait()
        if self.behaviour == "drop":
            request.transport.abort()
        if self.behaviour == "nonsense":
            return web.Response(text="<html>not JSON</html>", content_type="application/json")
        if body.get("stream"):
            return await self._stream(request, body)
        message = {"role": "assistant", "content": self.text}
        return web.json_response(
            {"id": "c1", "object": "chat.completion", "model": body["model"], "choices": [{"message": message}]}
        )

    async def _stream(self, request: web.Request, body: Json) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        assert request.transport is not None
        if self.behaviour == "empty-stream":
            return response
        for position, piece in enumerate(("one ", "two ", "three")):
            event = {
                "object": "chat.completion.chunk",
                "model": body["model"],
                "choices": [{"delta": {"content": piece}}],
            }
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            if position == 0 and self.behaviour == "pause":
                await self.go_on.wait()
            if position == 1 and self.behaviour == "break":
                request.transport.abort()
                return response
            if position == 1 and self.behaviour == "error-event":
                await response.write(b'data: {"error": {"message": "upstream internals"}}\n\n')
                return response
            if position == 1 and self.behaviour == "no-end":
                return response
        await response.write(b"data: [DONE]\n\n")
        return response


@contextlib.asynccontextmanager
async def upstream(behaviour: str = "ok", text: str = "hello") -> AsyncIterator[FakeUpstream]:
    fake = FakeUpstream(behaviour, text)
    app = web.Application(client_max_size=8 << 20)
    app.router.add_post("/v1/chat/completions", fake.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.port = runner.addresses[0][1]
    try:
        yield fake
    finally:
        fake.go_on.set()
        await runner.cleanup()
        await asyncio.sleep(0)  # closing a transport takes one more turn of the loop
        await asyncio.sleep(0)


def to(*fakes: FakeUpstream | str, endpoint: str = "main", secret: str = "", timeout_s: float = 10.0) -> Upstream:
    """An upstream with a replica at each of these places."""
    urls = tuple(fake if isinstance(fake, str) else fake.base_url for fake in fakes)
    return Upstream(endpoint, "e1", urls, f"model-of-{endpoint}", secret, timeout_s)


def revision(name: str, *upstreams: Upstream, **fields: Any) -> RouteRevision:
    """A route revision that asks one question, unless ``fields`` say otherwise."""
    given = {
        "messages": ({"role": "system", "content": "You help."}, {"role": "user", "content": "Q: {{ question }}"}),
        "variables": {"question": "string"},
        "parameters": {"temperature": 0, "max_tokens": 96},
    }
    return RouteRevision(name, upstreams=upstreams, **{**given, **fields})


def promoted(name: str, *revisions: RouteRevision) -> Route:
    """A route that serves the first of ``revisions``; the others are staged."""
    first = revisions[0].revision
    return Route(name, {r.revision: r for r in revisions}, {first: 100}, first)


def split(name: str, weights: Mapping[str, int], lease_s: float, *revisions: RouteRevision) -> Route:
    """A split that is not promoted: the first revision is the promoted one."""
    lease = Lease(1, 1, time.time() + lease_s)
    return Route(name, {r.revision: r for r in revisions}, weights, revisions[0].revision, lease)


def config(*routes: Route, serial: int = 1, fence: int = 0) -> GatewayConfig:
    return GatewayConfig("dev", serial, fence, {route.name: route for route in routes})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
