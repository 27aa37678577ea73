"""A project with the canary in every place where a secret may stand, and a search for it after every command."""

from __future__ import annotations

import base64
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from tests import canary
from tests.e2e.project import REPOSITORY, SOURCE, Project
from tests.results import Result

#: The key of the hosted model, the password of the remote, the passphrase and the comment of the signing key.
KEY, WRONG_KEY, PASSWORD, PASSPHRASE, COMMENT = (
    f"sk-{canary.CANARY}-{what}" for what in ("api", "old", "remote", "passphrase", "comment")
)
#: As the secrets look in an ``Authorization: Basic`` header.
BASIC = base64.b64encode(f"tess:{PASSWORD}".encode()).decode().rstrip("=")

_ENVIRONMENTS = """\
  dev: {target: local, record: {remote: origin, sign: required}}
  staging: {target: local, promote_from: dev, record: {remote: origin}}
"""
_HOSTED = '  hosted: {source: "openai:some", license: MIT, api_key: "${env:HOSTED_KEY}"}\n'


class EchoApi:
    """A hosted API and a git remote that say in every answer with which key they were asked.

    ``mode``: right answers; "401", "500" with the key in reason, headers and body; "400" for questions alone; "noise"
    for what is not HTTP.
    """

    def __init__(self) -> None:
        self.mode = "right"
        rows = (REPOSITORY / "examples/data/faq_eval.jsonl").read_text().splitlines()
        self.answers = {row["question"]: row["answer"] for row in map(json.loads, rows)}
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.answer(self, None)

            def do_POST(self) -> None:
                api.answer(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler, asked: dict[str, object] | None) -> None:
        given = request.headers.get("Authorization", "")
        if request.path.startswith("/acme.git"):
            _echo(request, 403 if given else 401, given, "text/plain")
        elif self.mode == "noise":
            request.wfile.write(f"{given}\r\n\r\n".encode())
            request.close_connection = True
        elif self.mode.isdigit() and (asked or self.mode != "400"):
            _echo(request, int(self.mode), given, "application/json")
        elif given != f"Bearer {KEY}":
            _echo(request, 401, given, "application/json")
        else:
            _send(request, 200, given, *self._said(asked))

    def _said(self, asked: dict[str, object] | None) -> tuple[bytes, str]:
        if asked is None:
            return b'{"data": []}', "application/json"
        messages = asked["messages"]
        assert isinstance(messages, list)
        text = self.answers.get(messages[-1]["content"], "I do not know.")
        if not asked.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            return json.dumps({"choices": [choice]}).encode(), "application/json"
        chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}
        return f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode(), "text/event-stream"

    def close(self) -> None:
        """May be called twice."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _echo(request: BaseHTTPRequestHandler, status: int, given: str, kind: str) -> None:
    said = f"you gave {given}"
    body = json.dumps({"error": {"message": said, "code": given}}) if kind == "application/json" else said
    _send(request, status, given, body.encode(), kind)


def _send(request: BaseHTTPRequestHandler, status: int, given: str, body: bytes, kind: str) -> None:
    request.send_response(status, None if status == 200 else f"No to {given}")
    for name, value in {"WWW-Authenticate": "Basic realm=acme", "X-Echo": given, "Content-Type": kind}.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


@dataclass
class Planted(Project):
    """``kept`` has what its user keeps elsewhere: the key, git's settings, the bare remote, what was witnessed."""

    api: EchoApi = field(default_factory=EchoApi)
    site: tuple[Path, ...] = ()  # where a plug-in is installed
    agent: int = 0
    read: dict[Path, int] = field(default_factory=dict)  # lines of the logs that were searched
    largest: int = -1  # bytes of a file: more of it is as on a disk that is full

    @classmethod
    def plant(cls) -> Planted:
        project = Planted(Project.make(small=True).base)
        for folder in (project.kept, project.kept / "watch", project.temporary):
            folder.mkdir(mode=0o700)
        hook = f"from tests.e2e.witness import watch\nwatch({canary.CANARY!r}, {str(project.kept / 'seen.log')!r})\n"
        (project.kept / "watch/sitecustomize.py").write_text(hook)
        (project.kept / "seen.log").touch()
        project.variables |= {
            "HOSTED_KEY": KEY,
            "LLMCTL_ENV": "dev",
            "TMPDIR": str(project.temporary),
            "GIT_CONFIG_GLOBAL": str(project.kept / "gitconfig"),
            "GIT_TRACE2_EVENT": str(project.git_log),
            "GIT_TRACE2_REDACT": "0",
            "PYTHONFAULTHANDLER": "1",
            "SSH_ASKPASS": str(project.kept / "askpass"),
            "SSH_ASKPASS_REQUIRE": "force",
        }
        project._make_key()
        project._declare()
        project.git("init", "-q", "--bare", "-b", "main", str(project.kept / "hub.git"))
        project.use_remote()
        return project

    @property
    def kept(self) -> Path:
        return self.base / "kept"

    @property
    def git_log(self) -> Path:
        """What every git has noted of itself and of the processes that it started."""
        return self.kept / "git.log"

    @property
    def temporary(self) -> Path:
        return self.base / "tmp"

    def use_remote(self, address: str = "") -> None:
        """The remote that has the record: the bare one, or another."""
        there = address or f"file://{self.kept / 'hub.git'}"
        (self.kept / "remote").write_text(f'[remote "origin"]\n\turl = {there}\n')

    def _declare(self) -> None:
        self.edit("  dev: {target: local}\n", _ENVIRONMENTS)
        self.edit("models:\n", f"models:\n{_HOSTED}")
        line = f'  backup: {{model: hosted, engine: external, options: {{base_url: "http://{self.api.place}/v1"}}}}\n'
        self.edit("endpoints:\n", f"endpoints:\n{line}")
        self.edit("    endpoint: support\n", "    endpoint: backup\n")
        (self.root / "cases.yaml").write_text(_CASES)
        self.commit("a hosted model")

    def _make_key(self) -> None:
        """An SSH key with a passphrase, which git's settings name, and an agent."""
        askpass = self.kept / "askpass"
        askpass.write_text(f"#!/bin/sh\ncat {self.kept / 'passphrase'}\n")
        askpass.chmod(0o700)
        (self.kept / "passphrase").write_text(PASSPHRASE)
        key = self.kept / "id_ed25519"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", PASSPHRASE, "-C", COMMENT, "-f", str(key)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        self.start_agent()
        (self.kept / "gitconfig").write_text(
            f"[include]\n\tpath = remote\n[gpg]\n\tformat = ssh\n[user]\n\tsigningkey = {key}\n"
            "[commit]\n\tgpgsign = true\n"
        )
        signers = self.kept / "allowed"
        signers.write_text(f'tess@example.invalid namespaces="git" {key.with_suffix(".pub").read_text()}')
        self.variables["LLMCTL_ALLOWED_SIGNERS"] = str(signers)

    def start(self, *arguments: str, module: str = "llmctl") -> subprocess.Popen[str]:
        path = [self.kept / "watch", SOURCE, REPOSITORY, *self.site]
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.root,
            env=self.environment() | {"PYTHONPATH": ":".join(map(str, path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=self._limit,
        )
        self.children.append(process)
        return process

    def _limit(self) -> None:
        """Core dumps are on, as in the shell of somebody who looks for a crash."""
        for which, soft in ((resource.RLIMIT_CORE, resource.RLIM_INFINITY), (resource.RLIMIT_FSIZE, self.largest)):
            hard = resource.getrlimit(which)[1]
            resource.setrlimit(which, (hard if soft == resource.RLIM_INFINITY else soft, hard))

    def run_out(self, *arguments: str, module: str = "llmctl", stdin: str | None = None) -> Result:
        """A command that may die or show where an error came from; searched like every other."""
        process = self.start(*arguments, module=module)
        out, err = process.communicate(stdin, timeout=240)
        self.children.remove(process)
        self.searched(out, err)
        return Result(process.returncode, out, err)

    def llmctl(self, *arguments: str, stdin: str | None = None) -> Result:
        result = self.run_out(*arguments, stdin=stdin)
        assert "Traceback" not in result.text, result.text
        return result

    def searched(self, out: str, err: str) -> None:
        """All that a command left and did: nothing of it holds a secret."""
        canary.unseen("what the command printed", (out + err).replace(BASIC, canary.CANARY))
        canary.after_command(self.root, out, err)
        tokens = self.gate_tokens()
        assert not [token for token in tokens if token in out + err], "the gate's token was printed"
        canary.nowhere(self.root, self.environment(), self.home, self.run, self.temporary, also=tokens)
        canary.nowhere(self.kept / "hub.git", self.environment(), also=tokens)
        for line in self._news(self.kept / "seen.log"):
            kind, _, rest = line.partition(" ")
            if kind == "start":
                canary.unseen("the arguments of a process", rest)
            elif kind == "file":
                assert rest.endswith("gateway/secrets.json"), f"a secret was in a file that is gone by now: {rest}"
        for line in self._news(self.git_log):
            words = json.loads(line).get("argv", ())
            if canary.CANARY in " ".join(words):
                # The address of a remote is an argument of git's own helper, as for every `git fetch` by hand.
                assert "remote-http" in " ".join(words[:2]), f"a secret is in the arguments of {words[:2]}"
                assert words[-1].startswith(f"http://tess:{PASSWORD}@")

    def _news(self, log: Path) -> list[str]:
        """The lines that were added since they were asked for last."""
        lines = log.read_text().splitlines() if log.exists() else []
        since, self.read[log] = self.read.get(log, 0), len(lines)
        return lines[since:]

    def gate_tokens(self) -> list[str]:
        """What every environment's gateway knows its gates by."""
        files = list(self.root.glob(".llmctl/*/gateway/secrets.json"))
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
        return [json.loads(path.read_text())["gate_token"] for path in files]

    def witnessed(self, kind: str) -> list[str]:
        lines = (self.kept / "seen.log").read_text().splitlines()
        return [line.removeprefix(f"{kind} ") for line in lines if line.startswith(f"{kind} ")]

    def started_by_git(self) -> list[Sequence[str]]:
        """The arguments of every git and of every process that a git started."""
        events = map(json.loads, self.git_log.read_text().splitlines())
        return [event["argv"] for event in events if "argv" in event]

    def start_agent(self) -> None:
        """An agent that has the key: it got the passphrase from the user's askpass program."""
        address = self.kept / "agent.sock"
        address.unlink(missing_ok=True)
        said = subprocess.run(["ssh-agent", "-a", str(address)], check=True, capture_output=True, text=True).stdout
        self.agent = int(said.partition("SSH_AGENT_PID=")[2].partition(";")[0])
        self.variables["SSH_AUTH_SOCK"] = str(address)
        subprocess.run(
            ["ssh-add", "-q", str(self.kept / "id_ed25519")],
            check=True,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
        )

    def end_agent(self) -> None:
        """The key is asked for with its passphrase from now on."""
        if self.agent:
            os.kill(self.agent, signal.SIGTERM)
            self.agent = 0

    def end(self) -> None:
        self.api.close()
        self.end_agent()
        super().end()


_CASES = """\
cases:
  - {policy: open-licence, resource: {license: MIT}, expect: allow}
"""
