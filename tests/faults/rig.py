"""A copy of the example that is changed, broken and mended over and over, and who asks it all the while."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from llmctl.core.digests import Json
from tests.e2e.project import MODEL, REPOSITORY, Project, Reply
from tests.faults.points import Fault, Point

ROWS = 6  # of the gate's dataset: the gate itself is tested elsewhere
_ASK_EVERY_S = 0.15
_SALT = b"general.name\x08\0\0\0\x04\0\0\0\0\0\0\0"
_EXTRA_ENDPOINT = "  second: {model: support-tiny, engine: llama.cpp, context: 512}\n"
_EXTRA_ROUTE = "  second: {prompt: answer, endpoint: second}\n"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the file says. Each change of ``salt`` is a model of its own content."""

    salt: int = 0
    card: int = 0
    replicas: int = 1
    seed: int = 0
    second: bool = False
    shared: bool = False  # the record is on a remote

    @property
    def engines(self) -> int:
        return self.replicas + self.second


@dataclass(frozen=True, slots=True)
class Run:
    """How a command ended. ``code`` -9: killed; 124: it hung."""

    code: int
    out: str
    err: str
    met: bool
    points: tuple[Point, ...]
    uncovered: tuple[str, ...]

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass
class Rig:
    """In watched commands, ``lag_s`` is how far git may be behind the journal, and ``plant`` a defect of llmctl."""

    project: Project
    process: subprocess.Popen[str]
    lag_s: float = 0.0
    plant: str = ""
    wanted: Wanted = field(default_factory=Wanted)
    number: int = 0
    good: int = 0  # an entry of the record to go back to, and what the file said then
    before: Wanted = field(default_factory=Wanted)
    applied: Wanted | None = None  # what is known to hold
    _template: str = ""
    _adapter: bytes = b""

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[Self]:
        project = Project.make(small=True)
        try:
            _make_smaller(project)
            environment = project.environment()
            environment["PYTHONPATH"] += f":{REPOSITORY}"
            environment["TMPDIR"] = str(project.base / "tmp")
            (project.base / "tmp").mkdir()
            process = subprocess.Popen(
                [sys.executable, "-c", "from tests.faults.zygote import serve; serve()"],
                cwd=project.root,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            project.children.append(process)
            rig = cls(project, process)
            rig._template = project.file.read_text()
            rig._adapter = rig.adapter.read_bytes()
            yield rig
        finally:
            project.end()

    @property
    def adapter(self) -> Path:
        return self.project.root / "models/tone-lora.gguf"

    def run(self, *arguments: str, watch: bool = False, fault: Fault | None = None) -> Run:
        """One command, in a fork of the zygote."""
        assert self.process.stdin
        assert self.process.stdout
        point, mode = (fault.point, fault.mode) if fault else ("", "")
        asked = {"arguments": arguments, "watch": watch, "point": point, "mode": mode, "lag": self.lag_s}
        asked["plant"] = self.plant if watch else ""
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the zygote ended"
        said: Json = json.loads(line)
        points = tuple(Point(**point) for point in said["points"])
        return Run(said["code"], said["out"], said["err"], said["met"], points, tuple(said["uncovered"]))

    def ok(self, *arguments: str) -> Run:
        run = self.run(*arguments)
        assert run.code == 0, f"llmctl {' '.join(arguments)} exited {run.code}:\n{run.text}"
        return run

    def serial(self) -> int:
        """Of the last entry of the record, 0 when there is none; with a remote, of the one that is further."""
        places = [".git", str(self.origin)] if self.origin.exists() else [".git"]
        return max(int(self._state(place).get("serial", 0)) for place in places)

    def outcome(self) -> str:
        """Of the last entry of the record, "" when there is none."""
        return str(self._state(".git").get("outcome", ""))

    def _state(self, place: str) -> Json:
        command = ["git", f"--git-dir={place}", "show", "refs/heads/llmctl/dev:state.json"]
        shown = subprocess.run(command, cwd=self.project.root, capture_output=True, check=False)
        return json.loads(shown.stdout) if shown.returncode == 0 else {}

    def want(self, **changes: Json) -> None:
        """Have the file say so."""
        self.write(replace(self.wanted, **changes))

    def write(self, wanted: Wanted) -> None:
        self.wanted = wanted
        text = self._template.replace("max_tokens: 48", f"max_tokens: 48, seed: {wanted.seed}")
        text = text.replace("Knows only the FAQ", f"Knows only the FAQ of day {wanted.card}")
        text = text.replace(
            "slots: 4}", f"slots: 4}}\n    replicas: {{min: {wanted.replicas}, max: {wanted.replicas}}}"
        )
        if wanted.second:
            text = text.replace("endpoints:\n", f"endpoints:\n{_EXTRA_ENDPOINT}")
            text = text.replace("routes:\n", f"routes:\n{_EXTRA_ROUTE}")
        if wanted.shared:
            text = text.replace("dev: {target: local}", "dev: {target: local, record: {remote: origin}}")
            self._share()
        self.project.file.write_text(text)
        at = self._adapter.index(_SALT) + len(_SALT)
        salt = f"{wanted.salt:04d}".encode()
        self.adapter.write_bytes(self._adapter[:at] + salt + self._adapter[at + 4 :])

    @property
    def origin(self) -> Path:
        return self.project.base / "origin.git"

    def _share(self) -> None:
        if not self.origin.exists():
            self.project.git("init", "-q", "--bare", str(self.origin))
            self.project.git("remote", "add", "origin", str(self.origin))

    def refs(self) -> set[str]:
        """All refs, also those of the remote."""
        there = self.project.git("ls-remote", "origin").split("\n") if self.origin.exists() else []
        return {*self.project.refs(), *(f"origin {line.partition(chr(9))[2]}" for line in there if line)}

    def forget(self) -> None:
        """Have the next command write all caches, as the first one in a project does."""
        shutil.rmtree(self.project.root / ".llmctl/.cache", ignore_errors=True)

    def next(self) -> int:
        """A number that no change had before."""
        self.number += 1
        return self.number

    @contextmanager
    def asked(self) -> Iterator[Client]:
        """A client that asks all the time."""
        client = Client(self.project)
        client.thread.start()
        try:
            yield client
        finally:
            client.end.set()
            client.thread.join()


def _make_smaller(project: Project) -> None:
    path = project.root / "data/faq_eval.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:ROWS]))
    project.edit("min_rows: 60", f"min_rows: {ROWS}")
    project.edit("exact_match: {min: 0.95}", "exact_match: {min: 0.3}")
    project.edit("rouge_l: {min: 0.9}", "rouge_l: {min: 0.3}")
    project.edit("latency_p95_ms: {max: 2000}", "error_rate: {max: 0.7}")
    project.edit(MODEL, f"{MODEL}\n    adapters: [{{source: models/tone-lora.gguf, scale: 0.01}}]")


class Client:
    """Asks the example's question again and again, and keeps what it got."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._question, self._right = project.a_row()
        self.replies: list[Reply] = []
        self.end = threading.Event()
        self.thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        while not self.end.is_set():
            self.replies.append(self._project.ask(self._question))
            self.end.wait(_ASK_EVERY_S)

    def wrong(self) -> list[str]:
        """What came back and should not have."""
        return [f"{r.status} {r.text[:200]}" for r in self.replies if (r.status, r.text) != (200, self._right)]
