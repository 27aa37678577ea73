"""Requests through swaps of the gateway's configuration that alternate between two upstreams.

    python benchmarks/gateway_swaps.py [--requests 5000] [--swaps 50] [--clients 16]

Starts a gateway process and two upstreams, sends requests without a pause, and publishes the other upstream
again and again meanwhile. A request is lost when it is not answered with 200, or when it began after a swap
was done and an upstream from before it answered. Exits 1 when one is lost, or when a swap is never seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientError, ClientSession, web

from llmctl.core.gateway_config import GatewayConfig, Route, RouteRevision, Upstream
from llmctl.providers.local.wire import unix_request

NAMES = ("one", "two")
_READY = re.compile(r"serving on (http://[^ ]+) ")
_ANSWER_S = 30.0


@dataclass
class Outcome:
    """What came of it. ``swap_s`` is how long each publish took, until the gateway said that it serves it."""

    answered: int = 0
    lost: int = 0
    swaps: int = 0
    unseen: int = 0  # swaps after which no request that began then was answered by the new upstream
    seconds: float = 0.0
    swap_s: list[float] = field(default_factory=list)

    def table(self) -> str:
        rows = {
            "requests": f"{self.answered + self.lost}",
            "lost": f"{self.lost}",
            "swaps": f"{self.swaps}",
            "swaps not seen": f"{self.unseen}",
            "requests/s": f"{self.answered / self.seconds:.0f}",
            "ms a swap, median": f"{1000 * sorted(self.swap_s)[len(self.swap_s) // 2]:.1f}",
            "ms a swap, slowest": f"{1000 * max(self.swap_s):.1f}",
        }
        return "\n".join(f"{name:20} {value:>10}" for name, value in rows.items())


@asynccontextmanager
async def _upstream(name: str) -> AsyncIterator[str]:
    """The base URL of a server that answers every chat request with its own name."""

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        message = {"role": "assistant", "content": name}
        return web.json_response(
            {"object": "chat.completion", "model": body["model"], "choices": [{"message": message}]}
        )

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _gateway(folder: Path) -> AsyncIterator[str]:
    """The URL of a gateway process of its own, whose admin socket is ``folder/admin.sock``."""
    secrets, log = folder / "secrets.json", folder / "gateway.log"
    secrets.write_text(json.dumps({"gate_token": "benchmark", "keys": {}}))
    secrets.chmod(0o600)
    command = [sys.executable, "-m", "llmctl.gateway", "--dir", str(folder), "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "--admin-socket", str(folder / "admin.sock")], stderr=output)
    try:
        while (ready := _READY.search(log.read_text())) is None:
            if process.poll() is not None:
                raise SystemExit(f"the gateway does not start:\n{log.read_text()}")
            await asyncio.sleep(0.01)
        yield ready[1]
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


def _config(number: int, urls: list[str]) -> GatewayConfig:
    """Both revisions are there; the one whose turn it is has all traffic."""
    message = {"role": "user", "content": "{{ question }}"}
    revisions = {
        name: RouteRevision(
            name, (message,), {"question": "string"}, {"temperature": 0}, (Upstream(name, "r", (url,), name),)
        )
        for name, url in zip(NAMES, urls, strict=True)
    }
    live = NAMES[number % 2]
    return GatewayConfig("bench", number + 1, 1, {"support": Route("support", revisions, {live: 100}, live)})


def _publish(folder: Path, config: GatewayConfig, expected: str) -> str:
    body = json.dumps({"expected": expected, "config": config.to_json()}).encode()
    reply = unix_request(folder / "admin.sock", "PUT", "/config", body, timeout_s=_ANSWER_S)
    if reply.status != 200:
        raise SystemExit(f"the gateway refuses a configuration: {reply.body.decode()}")
    return str(reply.json()["revision"])


class _Load:
    """Clients that ask without a pause while ``quota`` requests have not begun yet.

    ``served`` are the numbers of the configurations that may answer now: two while one takes over.
    """

    def __init__(self, url: str, requests: int) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._requests = requests
        self._begun = 0
        self._more = asyncio.Event()
        self._quota = 0
        self.outcome = Outcome()
        self.served: tuple[int, ...] = (0,)
        self.seen: set[int] = set()

    def allow(self, quota: int) -> None:
        self._quota = quota
        self._more.set()

    async def client(self, session: ClientSession) -> None:
        body = {"model": "support", "prompt_variables": {"question": "x"}}
        while self._begun < self._requests:
            if self._begun >= self._quota:
                self._more.clear()
                await self._more.wait()
                continue
            self._begun += 1
            before = self.served
            try:
                async with session.post(self._url, json=body) as response:
                    answer = await response.json() if response.status == 200 else None
            except (ClientError, TimeoutError):
                answer = None
            said = answer["choices"][0]["message"]["content"] if answer else ""
            if said not in {NAMES[number % 2] for number in {*before, *self.served}}:
                self.outcome.lost += 1
                continue
            self.outcome.answered += 1
            if len(before) == 1 and said == NAMES[before[0] % 2]:
                self.seen.add(before[0])

    @property
    def done(self) -> int:
        return self.outcome.answered + self.outcome.lost


async def run(folder: Path, requests: int, swaps: int, clients: int) -> Outcome:
    """Measure in ``folder``, whose path must be short enough for a socket."""
    async with _upstream("one") as one, _upstream("two") as two, _gateway(folder) as url, ClientSession() as session:
        urls = [one, two]
        revision = _publish(folder, _config(0, urls), "")
        load = _Load(url, requests)
        begun = time.perf_counter()
        working = [asyncio.ensure_future(load.client(session)) for _ in range(clients)]
        share = requests // (swaps + 1)
        for number in range(1, swaps + 1):
            load.allow(number * share)
            while load.done < number * share - share // 2:  # the other half goes on while the swap is made
                await asyncio.sleep(0.001)
            load.served = (number - 1, number)
            at = time.perf_counter()
            revision = await asyncio.to_thread(_publish, folder, _config(number, urls), revision)
            load.outcome.swap_s.append(time.perf_counter() - at)
            load.served = (number,)
        load.allow(requests)
        await asyncio.gather(*working)
        outcome = load.outcome
        outcome.seconds = time.perf_counter() - begun
        outcome.swaps = len(outcome.swap_s)
        outcome.unseen = len(set(range(1, swaps + 1)) - load.seen)
        return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--clients", type=int, default=16)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="swaps-") as folder:
        outcome = asyncio.run(run(Path(folder), given.requests, given.swaps, given.clients))
    print(outcome.table())
    return 1 if outcome.lost or outcome.unseen else 0


if __name__ == "__main__":
    sys.exit(main())
