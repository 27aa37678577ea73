"""A copy of the example in a git repository of its own, and the real ``llmctl`` as a user would run it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests import canary
from tests.results import Result

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "src"
EXAMPLE = REPOSITORY / "examples"
DEADLINE_S = 60


@dataclass
class Project:
    """A project folder; ``env`` is all that its commands know of the caller's environment."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.root / "llmops.yaml"

    def replace(self, old: str, new: str) -> None:
        """Change the file once; the old text must be there."""
        text = self.file.read_text()
        assert old in text, old
        self.file.write_text(text.replace(old, new, 1))

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.root, env=self.env, capture_output=True, text=True, check=True
        )
        return done.stdout

    def start(
        self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, without a terminal; stderr comes with stdout."""
        return subprocess.Popen(
            [sys.executable, "-m", "llmctl", *arguments],
            cwd=cwd or self.root,
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, stdin: str = ""
    ) -> Result:
        """Run a command to its end. No command may ever show a traceback."""
        done = subprocess.run(
            [sys.executable, "-m", "llmctl", *arguments],
            cwd=cwd or self.root,
            env={**self.env, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
        assert "internal error" not in done.stdout + done.stderr, done.stderr
        canary.after_command(self.root, done.stdout, done.stderr)
        return Result(done.returncode, done.stdout, done.stderr)

    def traces(self) -> tuple[object, ...]:
        """All that a refused command must leave alone: refs, git's own files, the work tree, processes.

        Objects that no ref holds are not counted: a lock leaves one, and git takes them away in time.
        """
        git = self.root / ".git"
        return (
            self.git("for-each-ref"),
            sorted(p for p in git.rglob("*") if p.is_file() and "objects" not in p.parts) if git.is_dir() else None,
            sorted((p.relative_to(self.root), p.stat().st_mtime_ns) for p in self.root.iterdir() if p != git),
            self.processes(),
        )

    def processes(self) -> list[int]:
        """Every process that names this project in its command line."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or ()
            if any(str(self.root / ".llmctl") in word for word in words):
                found.append(process.pid)
        return sorted(found)


def until(process: subprocess.Popen[str], text: str) -> str:
    """Read what a started command says until a line holds ``text``; all that was read."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    process.communicate()
    raise AssertionError(f"it ended without saying {text!r}:\n{said}")


def ended(process: subprocess.Popen[str], *, interrupt: bool = False) -> tuple[int, str]:
    """Wait for a started command, after Ctrl-C as a terminal sends it, and return its exit code and its last words."""
    if interrupt:
        os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in rest, rest
    return process.returncode, rest


def environment(home: Path) -> dict[str, str]:
    """A bare environment with a git identity, so that the caller's settings cannot help or hurt."""
    home.mkdir(exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(SOURCE),
        "LANG": "C.UTF-8",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.invalid",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.invalid",
        **canary.PLANTED,
    }


def make(root: Path, home: Path) -> Project:
    """Copy the example and commit it."""
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns(".llmctl", "training"))
    project = Project(root, environment(home))
    project.git("init", "-q", "-b", "main")
    project.git("add", "-A")
    project.git("commit", "-qm", "example")
    return project
