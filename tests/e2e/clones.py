"""Clones of one bare repository that has their record: CI runners and colleagues, each with a target of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.project import Project

LOCK = "refs/llmctl/dev/lock"
SMALLEST = """\
apiVersion: llmctl/v1
project: acme
environments:
  dev: {target: local, record: {remote: origin}}
prompts:
  answer: {messages: [{role: user, content: "ROUND"}]}
"""


class Hub:
    """A bare repository, in a folder of its own."""

    def __init__(self, base: Path) -> None:
        self.path = base / "hub.git"
        self._clones: list[Project] = []

    def git(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def refs(self) -> set[str]:
        """The refs of llmctl."""
        return {ref for ref in self.git("for-each-ref", "--format=%(refname)").split() if "llmctl" in ref}

    def clone(self, *options: str) -> Project:
        project = Project(Path(tempfile.mkdtemp(prefix="e2e-", dir="/tmp")))
        self._clones.append(project)
        for folder in (project.home, project.run):
            folder.mkdir(mode=0o700)
        subprocess.run(["git", "clone", "-q", *options, f"file://{self.path}", str(project.root)], check=True)
        return project

    def vanish(self, *, lapsed: bool) -> None:
        """The lock is one of a machine that is not this one, and its lease goes on or is over."""
        said = json.loads(self.git("cat-file", "blob", LOCK))
        said |= {"host": "runner-17", "lease_until": time.time() + (-3600 if lapsed else 60)}
        self.git("update-ref", LOCK, self.git("hash-object", "-w", "--stdin", stdin=json.dumps(said)))

    def end(self) -> None:
        for project in self._clones:
            project.end()


@contextmanager
def hub(first: Project) -> Iterator[Hub]:
    """A remote to which a project's ``main`` was pushed, as its ``origin``."""
    found = Hub(first.base)
    first.git("init", "-q", "--bare", "-b", "main", str(found.path))
    first.git("remote", "add", "origin", f"file://{found.path}")
    first.git("push", "-q", "-u", "origin", "main")
    try:
        yield found
    finally:
        found.end()


@contextmanager
def smallest() -> Iterator[Project]:
    """A project of one prompt, whose applies are quick: no engine, no gate, no route."""
    project = Project(Path(tempfile.mkdtemp(prefix="e2e-", dir="/tmp")))
    try:
        for folder in (project.root, project.home, project.run):
            folder.mkdir(mode=0o700)
        project.git("init", "-q", "-b", "main")
        project.file.write_text(SMALLEST)
        (project.root / ".gitignore").write_text(".llmctl/\nplan.json\n")
        project.commit("the smallest project")
        yield project
    finally:
        project.end()


def rounds(default: int) -> int:
    """How many races are run: as many as LLMCTL_RACES says."""
    return int(os.environ.get("LLMCTL_RACES", default))
