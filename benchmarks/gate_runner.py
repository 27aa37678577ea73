"""Wall time of a gate over 2,000 rows beside a bare aiohttp loop that sends the same requests, in the same run.

    python benchmarks/gate_runner.py [--rows 2000] [--concurrency 64] [--runs 5]

Both ask the same server, a process of its own that answers each request after 20 ms, in turns. The gate does all that a
gate does: it keeps every answer as it comes, in case that it is cut short, scores, judges and stores the rows. The bare
loop parses each reply and does nothing with it. The medians count, and their ratio: at most 2.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event

import aiohttp
from aiohttp import web

from llmctl import gates
from llmctl.core.digests import digest_bytes
from llmctl.core.protocols import GateAccess
from llmctl.core.resources import Environment
from llmctl.core.secrets import Secret
from llmctl.providers.local import LocalTarget

ANSWER_S = 0.020
MOST = 2.0
REVISION = "0123456789abcdef"


async def _answer(request: web.Request) -> web.Response:
    body = await request.json()
    await asyncio.sleep(ANSWER_S)
    message = {"role": "assistant", "content": f"The answer to {body['prompt_variables']['question']}"}
    reply = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    return web.json_response(reply, headers={"x-llmctl-revision": REVISION})


def serve(ready: Connection) -> None:
    """Run the server until the process is ended; sends its port first."""

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", _answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    with suppress(KeyboardInterrupt):
        asyncio.run(main())


async def bare(url: str, rows: int, concurrency: int) -> None:
    """The same requests with aiohttp alone."""
    waiting = iter(range(rows))

    async def work(session: aiohttp.ClientSession) -> None:
        for number in waiting:
            body = {"model": f"support@{REVISION}", "prompt_variables": {"question": f"question {number}"}}
            async with session.post(f"{url}/v1/chat/completions", data=json.dumps(body).encode()) as response:
                json.loads(await response.read())

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(work(session) for _ in range(concurrency)))


def gate(url: str, rows: int, concurrency: int, folder: Path) -> None:
    """A gate with two scores, a latency and an error rate over all rows; raises unless it passes."""
    spec = {
        "route": "support",
        "dataset": "questions",
        "dataset_digest": digest_bytes(b"questions"),
        "inputs": {"question": "question"},
        "expected": "answer",
        "metrics": {
            "exact_match": {"min": 0.95},
            "rouge_l": {"min": 0.9},
            "latency_p95_ms": {"max": 10_000},
            "error_rate": {"max": 0.01},
        },
    }
    lines = [{"question": f"question {n}", "answer": f"The answer to question {n}"} for n in range(rows)]
    asked = [gates.Row.of(number, line) for number, line in enumerate(lines, 1)]
    result = gates.run(
        gates.GateRequest("faq", "g", spec, REVISION, "", asked),
        GateAccess(url, Secret("a token for the benchmark")),
        LocalTarget(folder, "bench", Environment("dev", "local")).artifacts,
        (),
        concurrency=concurrency,
        resume=folder / "answers",
        progress=lambda *_: None,
        cancelled=Event(),
    )
    if result.evidence.verdict.blocks:
        raise SystemExit(f"the gate says {result.evidence.verdict.value}: {result.evidence.judgements}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}"
    seconds: dict[str, list[float]] = {"bare aiohttp loop": [], "llmctl gate": []}
    try:
        for turn in range(options.runs + 1):  # the first one warms up and is not counted
            with tempfile.TemporaryDirectory() as folder:
                begun = time.perf_counter()
                asyncio.run(bare(url, options.rows, options.concurrency))
                middle = time.perf_counter()
                gate(url, options.rows, options.concurrency, Path(folder))
                ended = time.perf_counter()
            if turn:
                seconds["bare aiohttp loop"].append(middle - begun)
                seconds["llmctl gate"].append(ended - middle)
    finally:
        server.terminate()
        server.join()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{options.rows} rows, {options.concurrency} at once, a server that answers after {ANSWER_S * 1000:g} ms")
    for name, median in medians.items():
        print(f"{name:<20} {median:>7.3f} s {median / medians['bare aiohttp loop']:>6.2f}x")
    if medians["llmctl gate"] > MOST * medians["bare aiohttp loop"]:
        raise SystemExit(f"more than {MOST:g} times the bare loop")


if __name__ == "__main__":
    main()
