"""What a forge does around a recipe of ``docs/ci``: runners, artifacts, and the few calls of its REST API."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from ruamel.yaml import YAML

from llmctl.core.digests import Json
from tests.e2e.project import REPOSITORY, SOURCE, Project

RECIPES = REPOSITORY / "docs/ci"
TOKEN = "CANARY-token-3c9a"
_NAME = re.compile(r"\b(?:github|vars|secrets|inputs|runner|steps)(?:\.[A-Za-z_]+)+")


def recipe(name: str) -> Json:
    return YAML(typ="safe").load((RECIPES / name).read_text())


@dataclass
class Artifact:
    name: str
    content: bytes
    branch: str
    sha: str


@dataclass
class Ran:
    """How a job ended: what its log shows, its summary, and the first exit status that was not 0."""

    code: int
    log: str
    summary: str = ""


@dataclass
class Forge:
    """The server, what it keeps, and every text that somebody could read there."""

    notes: list[Json] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    pulls: dict[str, Json] = field(default_factory=dict)  # by merge commit
    calls: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        forge = self

        class Handler(_Api):
            kept = forge

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def our_notes(self) -> list[Json]:
        return [dict(note) for note in self.notes if note["author"]["id"] == 7]


class _Api(BaseHTTPRequestHandler):
    """GitHub's and GitLab's calls that the recipes make. A wrong token, or a call of another kind, is an error."""

    kept: Forge

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        self.kept.calls.append(f"{self.command} {self.path}")
        given = self.headers.get("Authorization"), self.headers.get("PRIVATE-TOKEN"), self.headers.get("JOB-TOKEN")
        if given not in ((f"Bearer {TOKEN}", None, None), (None, TOKEN, None), (None, None, TOKEN)):
            self._answer(401, {"message": "Bad credentials"})
            return
        url = urlsplit(self.path)
        self._route(f"{self.command} {url.path}", {k: v[0] for k, v in parse_qs(url.query).items()}, body)

    do_GET = do_POST = do_PATCH = do_PUT = _serve

    def _route(self, call: str, query: Mapping[str, str], body: Json) -> None:
        kept = self.kept
        listed = r"GET /(repos/acme/app/issues/1/comments|projects/11/merge_requests/1/notes)"
        if re.fullmatch(listed, call):
            start = (int(query["page"]) - 1) * 100
            self._answer(200, kept.notes[start : start + 100])
        elif re.fullmatch(listed.replace("GET", "POST"), call):
            kept.notes.append(_note(len(kept.notes) + 1, 7, "github-actions[bot]", "Bot", body["body"]))
            self._answer(201, kept.notes[-1])
        elif found := re.fullmatch(
            r"(?:PATCH /repos/acme/app/issues/comments|PUT /projects/11/merge_requests/1/notes)/(\d+)", call
        ):
            note = kept.notes[int(found[1]) - 1]
            if note["author"]["id"] != 7:
                self._answer(403, {"message": "not yours"})
                return
            note["body"] = body["body"]
            self._answer(200, note)
        elif call == "GET /user":
            self._answer(200, {"id": 7})
        elif found := re.fullmatch(r"GET /repos/acme/app/commits/(\w+)/pulls", call):
            self._answer(200, [kept.pulls[found[1]]] if found[1] in kept.pulls else [])
        elif call == "GET /repos/acme/app/actions/artifacts":
            found_artifacts = [
                {"id": n, "expired": False, "workflow_run": {"head_branch": a.branch, "head_sha": a.sha}}
                for n, a in enumerate(kept.artifacts)
                if a.name == query["name"]
            ]
            self._answer(200, {"artifacts": found_artifacts})
        elif found := re.fullmatch(r"GET /repos/acme/app/actions/artifacts/(\d+)/zip", call):
            self._answer(200, kept.artifacts[int(found[1])].content)
        elif call == "GET /projects/11/jobs/artifacts/main/raw/llmctl-head.txt" and query["job"] == "llmctl-apply":
            self._answer(200, max((n, a.content) for n, a in enumerate(kept.artifacts) if a.name == "head")[1])
        else:
            self._answer(404, {"message": call})

    def _answer(self, status: int, body: Json) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is written to stderr."""


def _note(number: int, author: int, login: str, kind: str, body: str) -> Json:
    """A comment as both forges give it."""
    return {
        "id": number,
        "body": body,
        "system": False,
        "author": {"id": author},
        "user": {"login": login, "type": kind},
    }


def strangers_note(number: int, body: str) -> Json:
    return _note(number, 666, "mallory", "User", body)


@dataclass
class Runner:
    """A machine that runs jobs in one workspace; ``variables`` are what every process there has."""

    forge: Forge
    project: Project
    workspace: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def temp(self) -> Path:
        return self.project.base / "runner-temp"

    def environment(self) -> dict[str, str]:
        """Of a plain runner: no name for git, which the recipe must bring."""
        known = self.project.environment()
        tools = self.project.base / "bin"
        tools.mkdir(exist_ok=True)
        for name, words in (("llmctl", "-m llmctl"), ("python", "")):
            path = tools / name
            path.write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
            path.chmod(0o755)
        kept = {k: v for k, v in known.items() if not k.startswith(("GIT_AUTHOR", "GIT_COMMITTER", "LLMCTL_"))}
        return {**kept, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(SOURCE), **self.variables}

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.workspace, env=self.environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def bash(self, script: str, variables: Mapping[str, str]) -> tuple[int, str]:
        """As the runners do: no start-up files, stop at the first failure."""
        file = self.project.base / "step.sh"
        file.write_text(script)
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(file)],
            cwd=self.workspace,
            env=self.environment() | dict(variables),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        log = done.stdout + done.stderr
        assert "Traceback" not in log, log
        self.forge.logs.append(log)
        return done.returncode, log

    # -- GitHub Actions -------------------------------------------------------------------------

    def github(self, job: str, context: Mapping[str, str], ref: str) -> Ran:
        """Run a job of the recipe. ``context`` has the values of expressions; ``ref`` is what is checked out."""
        whole = recipe("github-actions.yml")
        steps = whole["jobs"][job]["steps"]
        shutil.rmtree(self.temp, ignore_errors=True)
        self.temp.mkdir()
        known = {"runner.temp": str(self.temp), "github.token": TOKEN, **context}
        assert _value(whole["jobs"][job]["if"], known), f"the job {job} would not run"
        files = {name: self.temp / name for name in ("GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        variables = {
            "GITHUB_API_URL": self.forge.url,
            "GITHUB_REPOSITORY": "acme/app",
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_SHA": context.get("github.sha", ""),
            "RUNNER_TEMP": str(self.temp),
            **{name: str(path) for name, path in files.items()},
            **_filled(whole["env"], known),
            **_filled(whole["jobs"][job].get("env", {}), known),
        }
        code, log = 0, ""
        for step in steps:
            condition = str(step.get("if", "success()"))
            if (code and "always()" not in condition) or not _value(condition, known):
                continue
            if "uses" in step:
                self._use(step, known, ref)
                continue
            if step["name"] == "Install llmctl":
                continue
            for file in files.values():
                file.touch()
            own = variables | dict(_lines(files["GITHUB_ENV"])) | _filled(step.get("env", {}), known)
            ended, said = self.bash(step["run"], own)
            code, log = code or ended, log + said
            if "id" in step:
                known |= {f"steps.{step['id']}.outputs.{k}": v for k, v in _lines(files["GITHUB_OUTPUT"])}
        summary = files["GITHUB_STEP_SUMMARY"].read_text() if files["GITHUB_STEP_SUMMARY"].exists() else ""
        self.forge.logs.append(summary)
        assert not (self.temp / "llmctl/signing-key").exists()
        return Ran(code, log, summary)

    def _use(self, step: Json, known: Mapping[str, str], ref: str) -> None:
        action, given = step["uses"].partition("@")[0], step.get("with", {})
        if action == "actions/checkout":
            self.checkout(ref, depth=given.get("fetch-depth", 1), clean=given.get("clean", True))
        elif action == "actions/upload-artifact":
            path = Path(_text(given["path"], known))
            if path.exists():
                name = _text(given["name"], known)
                branch = known["github.ref_name"]
                sha = known.get("github.event.pull_request.head.sha") or known["github.sha"]
                self.forge.artifacts.append(Artifact(name, _zipped(path), branch, sha))
                self.forge.logs.append(path.read_text())
        else:
            assert action == "actions/setup-python", action

    def checkout(self, ref: str, *, depth: int, clean: bool) -> None:
        """What ``actions/checkout`` does in a workspace that is there: every local branch goes, HEAD is detached."""
        assert depth == 0, "a plan needs the branch that it is compared with"
        self.git("fetch", "-q", "--prune", "origin", "+refs/heads/*:refs/remotes/origin/*", f"+{ref}:refs/remotes/ref")
        self.git("checkout", "-q", "--force", "--detach", "refs/remotes/ref")
        for branch in self.git("for-each-ref", "--format=%(refname)", "refs/heads").split():
            self.git("update-ref", "-d", branch)
        if clean:
            self.git("clean", "-ffdxq")

    # -- GitLab CI ------------------------------------------------------------------------------

    def gitlab(self, job: str, predefined: Mapping[str, str], ref: str) -> Ran:
        """Run the script of a job; what it leaves as artifacts is kept."""
        whole = recipe("gitlab-ci.yml")
        self.checkout(ref, depth=int(whole["variables"]["GIT_DEPTH"]), clean=False)
        variables = {
            "CI_API_V4_URL": self.forge.url,
            "CI_PROJECT_ID": "11",
            "CI_PROJECT_DIR": str(self.workspace),
            "CI_DEFAULT_BRANCH": "main",
            **{k: str(v) for k, v in whole["variables"].items() if "$" not in str(v)},
            **{k: str(v) for k, v in whole[job].get("variables", {}).items()},
            **predefined,
        }
        code, log = self.bash("\n".join(whole[job]["script"]), variables)
        for path in whole[job].get("artifacts", {}).get("paths", []):
            file = self.workspace / path
            if file.exists():
                self.forge.logs.append(file.read_text())
                if path == "llmctl-head.txt":
                    self.forge.artifacts.append(Artifact("head", file.read_bytes(), "main", ""))
                    file.unlink()
        return Ran(code, log)


def _zipped(path: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.write(path, path.name)
    return out.getvalue()


def _lines(file: Path) -> list[tuple[str, str]]:
    text = file.read_text() if file.exists() else ""
    return [(line.partition("=")[0], line.partition("=")[2]) for line in text.splitlines()]


def _filled(variables: Mapping[str, Json], known: Mapping[str, str]) -> dict[str, str]:
    return {name: _text(str(value), known) for name, value in variables.items()}


def _text(text: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{\s*(.*?)\s*\}\}", lambda m: known.get(m[1], ""), text)


def _value(condition: str, known: Mapping[str, str]) -> bool:
    """A condition of a workflow: comparisons of contexts with texts and with each other."""
    names = {name: known.get(name, "") for name in _NAME.findall(condition)}
    python = _NAME.sub(lambda m: f"names[{m[0]!r}]", condition)
    for theirs, ours in (("&&", " and "), ("||", " or "), ("always()", "True"), ("success()", "True")):
        python = python.replace(theirs, ours)
    return bool(eval(python, {"__builtins__": {}}, {"names": names}))  # our own recipe
