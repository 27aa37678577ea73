"""A dataset of 1 GB: what validate, plan and apply cost, and that memory does not grow with the file.

    python benchmarks/large_dataset.py [--megabytes 1000] [--unique]

Writes a project with one large dataset that nothing evaluates, a small one with a gate, and a route to an API that
this script answers itself. `--unique` asks for different values in a column of the large file, which costs memory
for every row. CPU is user + system of the command and of all processes that it waited for; MB is the command's
largest resident memory. The file is deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

LLMCTL = str(Path(sys.executable).with_name("llmctl"))
IDENTITY = {
    f"GIT_{role}_{what}": "bench@example.invalid" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}
ANSWER = "thirty days"
FILLER = "All of this stands in the terms of sale, which every order repeats and nobody reads to the end. " * 7
SMALL_ROWS = 60

PROJECT = """\
apiVersion: llmctl/v1
project: large
environments: {{dev: {{target: local}}}}
datasets:
  large:
    source: large.jsonl
    columns: {{question: string, answer: string}}
    checks: {{min_rows: 1000, not_null: [question, answer]{unique}}}
  small: {{source: small.jsonl, columns: {{question: string, answer: string}}}}
models:
  hosted: {{source: "openai:bench", license: MIT, api_key: "${{env:LARGE_API_KEY}}"}}
prompts:
  ask: {{messages: [{{role: user, content: "{{{{ question }}}}"}}], variables: {{question: string}}}}
endpoints:
  api: {{model: hosted, engine: external, options: {{base_url: "{url}"}}}}
routes:
  ask: {{prompt: ask, endpoint: api}}
gates:
  right:
    route: ask
    dataset: small
    inputs: {{question: question}}
    expected: answer
    metrics: {{exact_match: {{min: 0.95}}}}
"""


class Api(BaseHTTPRequestHandler):
    """Lists its models, and answers every question with the same words."""

    def do_GET(self) -> None:
        self._send({"data": []})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": ANSWER}
        self._send({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def _send(self, data: object) -> None:
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def row(number: int, filler: str = "") -> str:
    return json.dumps({"question": f"How long may I keep order {number}? {filler}", "answer": ANSWER}) + "\n"


def write(folder: Path, url: str, megabytes: int, *, unique: bool) -> int:
    """Write the project into a git repository that ignores the large file; returns the number of its rows."""
    count = size = 0
    with (folder / "large.jsonl").open("w") as file:
        while size < megabytes * 1_000_000:
            size += file.write(row(count, FILLER))
            count += 1
    (folder / "small.jsonl").write_text("".join(map(row, range(SMALL_ROWS))))
    checks = ", unique: [question]" if unique else ""
    (folder / "llmops.yaml").write_text(PROJECT.format(url=url, unique=checks))
    (folder / ".gitignore").write_text(".llmctl/\nlarge.jsonl\n")
    for command in (["init", "-q", "."], ["add", "."], ["commit", "-q", "-m", "large"]):
        subprocess.run(["git", *command], cwd=folder, check=True, env={**os.environ, **IDENTITY})
    return count


def run(folder: Path, *arguments: str) -> None:
    """Run a command to its end and print what it took; stops the benchmark when it fails."""
    begun = time.perf_counter()
    environment = {**os.environ, **IDENTITY, "LARGE_API_KEY": "sk-bench"}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([LLMCTL, *arguments], cwd=folder, stdout=said, stderr=said, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"llmctl {' '.join(arguments)} exited {process.returncode}:\n{said.read()}")
    wall, cpu = time.perf_counter() - begun, usage.ru_utime + usage.ru_stime
    print(f"{' '.join(arguments):<26} {wall:>8.2f} {cpu:>8.2f} {usage.ru_maxrss / 1024:>8.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--unique", action="store_true")
    asked = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = write(folder, f"http://127.0.0.1:{server.server_address[1]}/v1", asked.megabytes, unique=asked.unique)
        print(f"{count} rows, {(folder / 'large.jsonl').stat().st_size / 1e6:.0f} MB")
        print(f"{'':<26} {'wall s':>8} {'CPU s':>8} {'MB':>8}")
        try:
            run(folder, "validate")
            run(folder, "plan", "--offline")
            run(folder, "plan")
            run(folder, "apply", "--yes")
            run(folder, "plan", "--detailed-exitcode")  # remembers what it saw of the large file
            run(folder, "plan", "--detailed-exitcode")
            run(folder, "status")
        finally:
            run(folder, "destroy", "--yes")
            server.shutdown()


if __name__ == "__main__":
    main()
