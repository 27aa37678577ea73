"""A project of its own for each test: a git repository with a copy of the example, and the real ``llmctl``."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from llmctl.core.digests import Json
from tests import canary
from tests.results import Result

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "src"
DEADLINE_S = 60.0

QUESTION = "Can I return shoes that do not fit?"
SYSTEM = "content: You are Acme's support assistant."
ONE_SENTENCE = "content: You are Acme's support assistant. Answer in one sentence."
MODEL = "source: models/support-tiny.gguf"
WORSE_MODEL = "source: models/support-tiny-early.gguf"
TONE = "adapters: [{source: models/tone-lora.gguf, scale: 1.0}]"

_PROGRAMS = {
    "supervisor.supervisord": "supervisord",
    "llmctl.gateway": "gateway",
    "llmctl.providers.local.engine": "engine",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client got from the gateway. ``status`` is 0 when there was no answer at all."""

    status: int
    text: str = ""
    revision: str = ""
    endpoint: str = ""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(self._path)


def wait_until(done: Callable[[], bool], what: str, seconds: float = DEADLINE_S) -> None:
    """Poll until ``done``; fails the test when it takes too long."""
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, f"waited too long for: {what}"
        time.sleep(0.02)


def tree(folder: Path) -> dict[str, str]:
    """Every path below ``folder``: digest of a file, target of a link, ``folder`` or ``other``."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "other"
    return found


@dataclass
class Project:
    """``base`` holds the project, the home folder and the sockets of one test, and nothing of anybody else."""

    base: Path
    variables: dict[str, str] = field(default_factory=dict)
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    @classmethod
    def make(cls, *, small: bool = False, times: int = 1) -> Project:
        """A copy of the example, committed.

        ``small`` gives it a gate that takes a quarter of the time, ``times`` one that asks every row so many times.
        """
        # Not pytest's own folder: the path of a unix socket is limited to about 107 bytes.
        project = cls(Path(tempfile.mkdtemp(prefix="e2e-", dir="/tmp")))
        for folder in (project.home, project.run):
            folder.mkdir(mode=0o700)
        shutil.copytree(REPOSITORY / "examples", project.root, ignore=shutil.ignore_patterns(".llmctl", "__pycache__"))
        if small:
            project.make_small()
        if times > 1:
            project.repeat_rows(times)
        project.git("init", "-q", "-b", "main")
        project.commit("the example")
        return project

    def make_small(self) -> None:
        path = self.root / "data/faq_eval.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:60]))
        self.edit("min_rows: 160", "min_rows: 60")
        self.edit("exact_match: {min: 0.95, max_drop: 0.02}", "exact_match: {min: 0.95}")

    def repeat_rows(self, times: int) -> None:
        path = self.root / "data/faq_eval.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        repeated = [row | {"id": f"{row['id']}-{number}"} for number in range(times) for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in repeated))
        self.edit("unique: [question], ", "")

    @property
    def root(self) -> Path:
        return self.base / "project"

    @property
    def home(self) -> Path:
        return self.base / "home"

    @property
    def run(self) -> Path:
        return self.base / "run"

    def environment(self) -> dict[str, str]:
        """Only what a plain shell has, so that nothing of the developer's set-up leaks in."""
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.run),
            "PYTHONPATH": str(SOURCE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "error::ResourceWarning",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Tess Tester",
            "GIT_AUTHOR_EMAIL": "tess@example.invalid",
            "GIT_COMMITTER_NAME": "Tess Tester",
            "GIT_COMMITTER_EMAIL": "tess@example.invalid",
            "LLMCTL_TRACEBACK": "1",
            **canary.PLANTED,
            **self.variables,
        }

    # -- commands -------------------------------------------------------------------------------

    def llmctl(self, *arguments: str, stdin: str | None = None) -> Result:
        """Run the real command; a traceback is a failure whatever the exit code."""
        process = self.start(*arguments)
        out, err = process.communicate(stdin, timeout=240)
        self.children.remove(process)
        result = Result(process.returncode, out, err)
        assert "Traceback" not in result.text, result.text
        canary.after_command(self.root, out, err)
        return result

    def ok(self, *arguments: str) -> Result:
        result = self.llmctl(*arguments)
        assert result.code == 0, f"llmctl {' '.join(arguments)} exited {result.code}:\n{result.text}"
        return result

    def start(self, *arguments: str, module: str = "llmctl") -> subprocess.Popen[str]:
        """The command without waiting for it; another ``module`` of the tests may stand around it."""
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.root,
            env=self.environment() | {"PYTHONPATH": f"{SOURCE}:{REPOSITORY}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.children.append(process)
        return process

    def apply(self) -> Result:
        return self.ok("apply", "--yes")

    def plan_code(self, *arguments: str) -> int:
        return self.llmctl("plan", "--detailed-exitcode", *arguments).code

    def status(self) -> Json:
        return self.ok("status", "--json").json()

    def serial(self) -> int:
        entries = self.llmctl("audit", "log", "--json", "-n", "1")
        return int(entries.json()["entries"][0]["serial"]) if entries.code == 0 else 0

    def git(self, *arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            env=self.environment(),
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # models are binary
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    # -- files ----------------------------------------------------------------------------------

    @property
    def file(self) -> Path:
        return self.root / "llmops.yaml"

    def edit(self, old: str, new: str) -> None:
        """Replace what stands once in the file, comments left aside."""
        lines = self.file.read_text().splitlines(keepends=True)
        found = [number for number, line in enumerate(lines) if old in line and not line.startswith("#")]
        assert len(found) == 1, f"{old!r} is in {len(found)} lines of llmops.yaml"
        lines[found[0]] = lines[found[0]].replace(old, new)
        self.file.write_text("".join(lines))

    def restore_file(self) -> None:
        """The file as it was committed last, without touching the index."""
        self.file.write_text(self.git("show", "HEAD:llmops.yaml"))

    def refs(self) -> dict[str, str]:
        lines = self.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        return dict(line.split(" ", 1) for line in lines)

    # -- what runs ------------------------------------------------------------------------------

    def state(self, environment: str = "dev") -> Path:
        return self.root / ".llmctl" / environment

    def processes(self, environment: str = "") -> list[psutil.Process]:
        """Every live process whose command line names this project's state folder."""
        folder = f"{self.root}/.llmctl/{environment}"
        found = []
        for process in psutil.process_iter():
            try:
                named = any(folder in word for word in process.cmdline())
                if named and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def census(self, environment: str = "dev") -> dict[str, list[int]]:
        """Pids by what they are: ``supervisord``, ``gateway``, ``engine support@3fa9…``."""
        found: dict[str, list[int]] = {}
        for process in self.processes(f"{environment}/"):
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            kind = next((_PROGRAMS[word] for word in words if word in _PROGRAMS), "unknown")
            if kind == "engine":
                kind += " " + next(Path(w).stem for w in words if w.endswith(".json"))
            found.setdefault(kind, []).append(process.pid)
        return found

    def one_of_each(self, engines: int = 1, environment: str = "dev") -> dict[str, int]:
        """The census, after checking that nothing is there twice and nothing is missing."""
        census = self.census(environment)
        assert all(len(pids) == 1 for pids in census.values()), f"something is there twice: {census}"
        kinds = [kind.split()[0] for kind in census]
        assert sorted(kinds) == sorted(["supervisord", "gateway", *["engine"] * engines]), census
        return {kind.split()[0] if engines == 1 else kind: pids[0] for kind, pids in census.items()}

    def base_url(self, environment: str = "dev") -> str:
        port = json.loads((self.state(environment) / "gateway" / "listen.json").read_text())["port"]
        return f"http://127.0.0.1:{port}"

    def ask(
        self, question: str = QUESTION, *, environment: str = "dev", headers: dict[str, str] | None = None
    ) -> Reply:
        """One question as a client puts it; no answer at all is a reply with status 0."""
        body = {"model": "support", "prompt_variables": {"question": question}}
        url = urlsplit(self.base_url(environment))
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers or {})
            answer = connection.getresponse()
            return _reply(
                answer.status,
                answer.read(),
                answer.headers.get("x-llmctl-revision", ""),
                answer.headers.get("x-llmctl-endpoint", ""),
            )
        except (OSError, http.client.HTTPException):
            return Reply(0)
        finally:
            connection.close()

    def answers(self, environment: str = "dev") -> Reply:
        """The reply to a question of the example, after checking that it is the right one."""
        question, right = self.a_row()
        reply = self.ask(question, environment=environment)
        assert (reply.status, reply.text) == (200, right), reply
        return reply

    def a_row(self, number: int = 0) -> tuple[str, str]:
        """A question of the example's evaluation data and its right answer."""
        row = json.loads((REPOSITORY / "examples/data/faq_eval.jsonl").read_text().splitlines()[number])
        return row["question"], row["answer"]

    def metric(self, **labels: str) -> int:
        """Chat requests that the gateway counted with these labels."""
        url = urlsplit(self.base_url())
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        wanted = [f'{name}="{value}"' for name, value in labels.items()]
        found = [line for line in lines if line.startswith("llmctl_gateway_requests_total{")]
        return round(sum(float(line.rpartition(" ")[2]) for line in found if all(w in line for w in wanted)))

    def admin(self, method: str, path: str, body: Json = None) -> tuple[int, Json]:
        """A request to the gateway's admin socket."""
        folder = json.loads((self.state() / "runtime.json").read_text())["folder"]
        connection = _UnixConnection(f"{folder}/admin.sock")
        try:
            connection.request(method, path, json.dumps(body).encode() if body is not None else None)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    # -- the end --------------------------------------------------------------------------------

    def end(self) -> None:
        """Take everything away, whatever a test did; then nothing of it may be left."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.communicate()
        self.children.clear()
        for process in self.processes():  # supervisord first: it would start the others again
            _kill(process, only="supervisor.supervisord")
        for process in self.processes():
            _kill(process)
        wait_until(lambda: not self.processes(), "the end of all processes", 10)
        canary.nowhere(self.root, self.environment(), self.home, self.run)
        shutil.rmtree(self.base)

    def destroy(self) -> None:
        """The tidy end: ``llmctl destroy``, which must leave no process and no state folder."""
        environments = [path.name for path in (self.root / ".llmctl").glob("[!.]*") if path.is_dir()]
        for environment in environments:
            self.ok("destroy", "--yes", "-e", environment)
        assert self.processes() == []
        assert not (self.root / ".llmctl").exists()
        assert list(self.run.iterdir()) == []


def _kill(process: psutil.Process, only: str = "") -> None:
    try:
        if not only or only in process.cmdline():
            process.kill()
    except psutil.Error:
        return


def _reply(status: int, body: bytes, revision: str, endpoint: str) -> Reply:
    try:
        data = json.loads(body)
        text = data["choices"][0]["message"]["content"] if status == 200 else data["error"]["message"]
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace")
    return Reply(status, text, revision, endpoint)
