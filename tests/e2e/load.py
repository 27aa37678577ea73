"""A client in a process of its own: asks the route again and again until its standard input ends.

Prints one line of JSON a request: when it began and ended, status, revision, and whether the answer is right.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import aiohttp

CLIENTS = 16


async def _client(session: aiohttp.ClientSession, url: str, rows: list[dict[str, str]], stop: asyncio.Event) -> None:
    number = 0
    while not stop.is_set():
        row = rows[number % len(rows)]
        number += 1
        begun, status, revision, text = time.time(), 0, "", ""
        body = {"model": "support", "prompt_variables": {"question": row["question"]}}
        try:
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                data = await response.json()
                status, revision = response.status, response.headers.get("x-llmctl-revision", "")
                text = data["choices"][0]["message"]["content"] if status == 200 else ""
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            status = status or -1
        print(json.dumps([begun, time.time(), status, revision, text == row["answer"]]))


async def main(url: str, dataset: str) -> None:
    rows = [json.loads(line) for line in Path(dataset).read_text().splitlines()]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(_client(session, url, rows[number:] + rows[:number], stop))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
