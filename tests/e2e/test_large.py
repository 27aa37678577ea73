"""A project of many resources in many files: applied whole, nothing to do afterwards, and one change stays one."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.e2e.project import Project

pytestmark = pytest.mark.e2e

PROMPTS, ROUTES, GATES, PARTS = 600, 60, 12, 6
ANSWER = "thirty days"

MAIN = """\
apiVersion: llmctl/v1
project: large
environments: {{dev: {{target: local}}}}
include: ["parts/*.yaml"]
datasets:
  rows: {{source: rows.jsonl, columns: {{question: string, answer: string}}}}
models:
  hosted: {{source: "openai:any", license: MIT, api_key: "${{env:LARGE_API_KEY}}"}}
endpoints:
  api: {{model: hosted, engine: external, options: {{base_url: "{url}"}}}}
"""
PROMPT = """\
  p{number:03}:
    messages: [{{role: system, content: You are assistant {number}.}}, {{role: user, content: "{{{{ question }}}}"}}]
    variables: {{question: string}}
"""
ROUTE = "  r{number:03}: {{prompt: p{number:03}, endpoint: api}}\n"
GATE = """\
  g{number:03}:
    route: r{number:03}
    dataset: rows
    inputs: {{question: question}}
    expected: answer
    metrics: {{exact_match: {{min: 0.9, decide: point}}}}
"""


class Api(BaseHTTPRequestHandler):
    """A hosted API that gives every question the same answer."""

    protocol_version = "HTTP/1.1"

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


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def large(url: str) -> Iterator[Project]:
    project = Project(Path(tempfile.mkdtemp(prefix="e2e-", dir="/tmp")))
    project.variables["LARGE_API_KEY"] = "sk-any"
    try:
        for folder in (project.home, project.run, project.root, project.root / "parts"):
            folder.mkdir(mode=0o700)
        project.file.write_text(MAIN.format(url=url))
        rows = [{"question": f"How long may I keep order {number}?", "answer": ANSWER} for number in range(5)]
        (project.root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for part in range(PARTS):
            _write(project, f"prompts-{part}", "prompts", PROMPT, range(part, PROMPTS, PARTS))
        _write(project, "routes", "routes", ROUTE, range(ROUTES))
        _write(project, "gates", "gates", GATE, range(GATES))
        project.git("init", "-q", "-b", "main")
        project.commit("large")
        yield project
    finally:
        project.end()


def _write(project: Project, name: str, section: str, entry: str, numbers: range) -> None:
    text = "".join(entry.format(number=number) for number in numbers)
    (project.root / "parts" / f"{name}.yaml").write_text(f"{section}:\n{text}")


def test_many_resources_in_many_files(large: Project) -> None:
    large.ok("validate")
    done = large.ok("apply", "--yes", "--json", "--parallelism", "32").json()
    assert done["serial"] == 1
    assert large.plan_code() == 0
    served = large.status()
    assert len(served["routes"]) == ROUTES
    before = large.git("rev-parse", "llmctl/dev").strip()

    part = large.root / "parts" / "prompts-1.yaml"
    part.write_text(part.read_text().replace("You are assistant 7.", "You are the assistant 7."))
    plan = large.ok("plan", "--json").json()
    assert {change["address"]: change["action"] for change in plan["changes"]} == {
        "prompt.p007": "update",
        "route.r007": "replace",
    }
    assert [gate["gate"] for gate in plan["gates"]] == ["gate.g007"]
    large.apply()
    assert large.plan_code() == 0
    changed = re.findall(r"resources/(\w+/\w+)\.json", large.git("diff", "--name-only", before, "llmctl/dev"))
    assert set(changed) == {"prompt/p007", "route/r007"}
    large.ok("audit", "verify")
    large.destroy()
