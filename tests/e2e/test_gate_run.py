"""``llmctl gate run``: measures what the gateway has, records nothing, and goes on after it was killed."""

from __future__ import annotations

import json
import signal
import stat
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread

import pytest

from tests.e2e.project import DEADLINE_S, REPOSITORY, Project, wait_until

pytestmark = pytest.mark.e2e
ROWS = 60
AT_ONCE = 16


class Upstream:
    """A hosted API that knows the right answers, says which questions came, and can hold its answers back."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.wrong = False
        self.asked: list[str] = []
        self.held = 0
        self._answers = answers
        self._free: int | None = None  # how many more are answered before the others are held
        self._changed = Condition()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send({"object": "list", "data": [{"id": "support", "object": "model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = api.answer(body["messages"][-1]["content"])
                message = {"role": "assistant", "content": text}
                self._send({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

            def _send(self, content: object) -> None:
                data = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Who asked may be gone."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def answer(self, question: str) -> str:
        with self._changed:
            self.asked.append(question)
            self.held += 1
            self._changed.wait_for(lambda: self._free is None or self._free > 0)
            self.held -= 1
            if self._free is not None:
                self._free -= 1
        return "No idea." if self.wrong else self._answers.get(question, "")

    def hold_after(self, answers: int | None) -> None:
        with self._changed:
            self._free = answers
            self.asked.clear()
            self._changed.notify_all()

    def close(self) -> None:
        self.hold_after(None)
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    lines = (REPOSITORY / "examples/data/faq_eval.jsonl").read_text().splitlines()
    api = Upstream({row["question"]: row["answer"] for row in map(json.loads, lines)})
    yield api
    api.close()


@pytest.fixture(scope="module")
def hosted(upstream: Upstream) -> Iterator[Project]:
    """The example on the hosted API, with a gate that has no latency, applied."""
    project = Project.make(small=True)
    try:
        project.edit("models:", 'models:\n  hosted: {source: "openai:support", license: MIT}')
        endpoint = f'  hosted: {{model: hosted, engine: external, options: {{base_url: "{upstream.url}"}}}}'
        project.edit("endpoints:", f"endpoints:\n{endpoint}")
        project.edit("    endpoint: support", "    endpoint: hosted")
        project.edit("exact_match: {min: 0.95}", "exact_match: {min: 0.95, max_drop: 0.5}")
        project.edit("      latency_p95_ms: {max: 2000}\n", "")
        project.apply()
        yield project
        project.destroy()
    finally:
        project.end()


def _log(project: Project) -> list[str]:
    """The answers that are kept while a gate runs."""
    folder = project.state() / "gates"
    return [line for file in folder.glob("*.jsonl") for line in file.read_text().splitlines() if line]


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_run_that_was_cut_short_asks_only_the_rest(
    hosted: Project, upstream: Upstream, how: signal.Signals, code: int
) -> None:
    refs, serial = hosted.refs(), hosted.serial()
    upstream.hold_after(20)
    process = hosted.start("gate", "run", "faq", "--json")
    # One answer is the warm-up's, which is not kept.
    wait_until(lambda: len(_log(hosted)) == 19 and upstream.held == AT_ONCE, "nineteen answers")
    process.send_signal(how)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, "Traceback" in err) == (code, False)
    (file,) = (hosted.state() / "gates").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    known = {json.loads(line)["id"] for line in _log(hosted)}
    wait_until(lambda: upstream.held == AT_ONCE, "no more requests")

    upstream.hold_after(None)
    wait_until(lambda: upstream.held == 0, "the end of the requests that were held")
    upstream.hold_after(None)
    done = hosted.ok("gate", "run", "faq", "--json").json()
    rows = [json.loads(line) for line in (hosted.root / "data/faq_eval.jsonl").read_text().splitlines()]
    rest = [row["question"] for row in rows if row["id"] not in known]
    assert len(rest) == ROWS - 19
    assert sorted(upstream.asked) == sorted([rest[0], *rest])
    (gate,) = done["gates"]
    assert (gate["verdict"], gate["samples"], gate["taken_over"], gate["cached"]) == ("PASS", ROWS, 19, [])
    assert list((hosted.state() / "gates").iterdir()) == []
    assert (hosted.refs(), hosted.serial(), hosted.plan_code()) == (refs, serial, 0)


def test_a_gate_that_blocks_exits_4_and_changes_nothing(hosted: Project, upstream: Upstream) -> None:
    refs, served = hosted.refs(), hosted.ask().revision
    upstream.wrong = True
    try:
        blocked = hosted.llmctl("gate", "run")
        shown = hosted.llmctl("gate", "run", "--json").json()
    finally:
        upstream.wrong = False
    assert blocked.code == 4
    assert "gate.faq FAIL" in blocked.out
    assert "answered  No idea." in blocked.out
    assert (shown["exit_code"], shown["gates"][0]["verdict"]) == (4, "FAIL")
    assert "No idea" not in json.dumps(shown)
    assert (hosted.refs(), hosted.ask().revision, hosted.plan_code()) == (refs, served, 0)
    assert "gate.faq PASS" in hosted.ok("gate", "run").out


def test_a_staged_revision_is_compared_with_what_serves(hosted: Project, upstream: Upstream) -> None:
    serves, staged = hosted.ask().revision, "5ca1ab1e00000000"
    _, was = hosted.admin("GET", "/config")
    config = json.loads(json.dumps(was["config"]))
    revisions = config["routes"]["support"]["revisions"]
    revisions[staged] = {**revisions[serves], "revision": staged}
    code, now = hosted.admin("PUT", "/config", {"expected": was["revision"], "config": config})
    assert code == 200
    try:
        upstream.hold_after(None)
        (gate,) = hosted.ok("gate", "run", "--route", "support@5ca1", "--json").json()["gates"]
        refused = hosted.llmctl("gate", "run", "--route", "support@ffff")
    finally:
        back = {"expected": now["revision"], "config": was["config"]}
        assert hosted.admin("PUT", "/config", back)[0] == 200
    assert (gate["route_revision"], gate["baseline_revision"]) == (staged, serves)
    assert len(upstream.asked) == ROWS + 1, "what serves was asked the same rows by apply"
    drop = next(j for j in gate["judgements"] if j["rule"] == "max_drop")
    assert (drop["samples"], drop["estimate"], drop["verdict"]) == (ROWS, 0, "PASS")
    assert refused.code == 1
    assert f"There are: {', '.join(sorted([f'{serves[:8]} (serves)', '5ca1ab1e (staged)']))}." in refused.err
