"""A small gateway on loopback, scripted by the test, and a small artifact store of real files."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from llmctl.core.digests import digest_bytes, digest_file
from llmctl.core.errors import ProviderError
from llmctl.core.protocols import ArtifactStore, GateAccess
from llmctl.core.secrets import Secret
from llmctl.gates import GateRequest, Row

CANARY = "gate-token-canary-7f3a"
NEW, OLD = "newnewnewnewnew1", "oldoldoldoldold0"
DEADLINE_S = 10.0


class FileStore:
    """An ``ArtifactStore``: one file a digest."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_file(self, source: Path, digest: str) -> None:
        if digest_file(source) != digest:
            raise ProviderError("the file is not what its digest says")
        self.path_of(digest).write_bytes(source.read_bytes())

    def put_bytes(self, data: bytes) -> str:
        digest = digest_bytes(data)
        self.path_of(digest).write_bytes(data)
        return digest

    def has(self, digest: str) -> bool:
        return self.path_of(digest).exists()

    def path(self, digest: str) -> Path:
        if not self.has(digest):
            raise ProviderError(f"{digest} is not in the store")
        return self.path_of(digest)

    def list(self) -> frozenset[str]:
        return frozenset(file.name.replace("_", ":") for file in self.root.iterdir())

    def delete(self, digest: str) -> None:
        self.path_of(digest).unlink(missing_ok=True)

    def path_of(self, digest: str) -> Path:
        return self.root / digest.replace(":", "_")


def store_at(path: Path) -> ArtifactStore:
    path.mkdir(exist_ok=True)
    return FileStore(path)


@dataclass(frozen=True)
class Reply:
    """What the gateway answers. ``served_by`` None: the revision asked for; "": no header."""

    text: str | None = ""
    status: int = 200
    served_by: str | None = None
    hang: bool = False
    cut: bool = False
    body: str | None = None


Script = Callable[[str, dict[str, Any]], Reply]


@dataclass
class Gateway:
    """Answers by ``script(revision, prompt_variables)`` and remembers what it was asked."""

    script: Script
    base_url: str = ""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    wait_for: int = 0  # hold every request but the first until so many are in hand
    _now: int = 0
    _enough: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def access(self) -> GateAccess:
        return GateAccess(self.base_url, Secret(CANARY))

    def hold(self, requests: int) -> None:
        """From now on hold every request but the first until so many are in hand."""
        self.asked.clear()
        self.most_at_once, self.wait_for, self._enough = 0, requests, asyncio.Event()

    def count(self, revision: str) -> int:
        return sum(asked == revision for asked, _ in self.asked)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        assert set(body) == {"model", "prompt_variables", "stream"}
        assert body["stream"] is False
        route, _, revision = body["model"].partition("@")
        assert route == "support"
        self.asked.append((revision, body["prompt_variables"]))
        self.headers.append(dict(request.headers))
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            if self._now >= self.wait_for:
                self._enough.set()
            if len(self.asked) > 1:
                async with asyncio.timeout(DEADLINE_S):
                    await self._enough.wait()
            return await self._reply(request, self.script(revision, body["prompt_variables"]), revision)
        finally:
            self._now -= 1

    async def _reply(self, request: web.Request, reply: Reply, revision: str) -> web.StreamResponse:
        await asyncio.sleep(0)
        if reply.hang:
            await asyncio.Event().wait()
        if reply.cut:
            assert request.transport is not None
            request.transport.abort()
        served_by = revision if reply.served_by is None else reply.served_by
        content: Any = {"choices": [{"message": {"role": "assistant", "content": reply.text}}]}
        if reply.status != 200:
            content = {"error": {"message": reply.text}}
        return web.Response(
            status=reply.status,
            text=json.dumps(content) if reply.body is None else reply.body,
            headers={"x-llmctl-revision": served_by} if served_by else {},
        )


@contextmanager
def serving(script: Script) -> Iterator[Gateway]:
    """Run a gateway in a thread of its own, on a free port."""
    gateway = Gateway(script)
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", gateway.chat)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        gateway.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await stop.wait()
        await runner.cleanup()
        for _ in range(10):  # a client that gave up at once may have been accepted just now: let it be closed
            await asyncio.sleep(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert ready.wait(5)
    try:
        yield gateway
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def rows(count: int) -> list[Row]:
    return [
        Row.of(n, {"id": f"q{n}", "question": f"How is {n}?", "answer": f"It is {n}."}) for n in range(1, count + 1)
    ]


def spec(**metrics: Any) -> dict[str, Any]:
    return {
        "route": "support",
        "dataset": "faq-eval",
        "dataset_revision": "d1",
        "dataset_digest": "sha256:dd",
        "dataset_format": "jsonl",
        "inputs": {"question": "question"},
        "expected": "answer",
        "metrics": metrics or {"exact_match": {"min": 0.9}},
        "confidence": 0.95,
    }


def request(count: int = 60, *, baseline: str = "", revision: str = NEW, **metrics: Any) -> GateRequest:
    return GateRequest("faq", "g1", spec(**metrics), revision, baseline, rows(count))


def right(_revision: str, variables: dict[str, Any]) -> Reply:
    """Answers every question as expected."""
    return Reply(variables["question"].replace("How is", "It is").replace("?", "."))


def always(reply: Reply) -> Script:
    """Gives the same reply to every question."""

    def script(_revision: str, _variables: dict[str, Any]) -> Reply:
        return reply

    return script


def quiet(*_counts: int) -> None:
    """Progress that nobody looks at."""
