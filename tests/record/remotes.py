"""A bare remote and clones of it, as CI runners and colleagues have them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.protocols import Change
from llmctl.record import (
    Attempt,
    HeldLock,
    Lock,
    Reader,
    Remote,
    Repository,
    find_interrupted,
    open_repository,
    verify,
)
from tests.record.helpers import BRANCH, ENV, git, judge, make_repository

LOCK = f"refs/llmctl/{ENV}/lock"


def attempt_ref(serial: int) -> str:
    return f"refs/llmctl/{ENV}/attempt/{serial}"


def make_remote(base: Path) -> Path:
    """A bare repository with one commit of a project on ``main``."""
    bare = base / "hub.git"
    git(base, "init", "-q", "--bare", "-b", "main", str(bare))
    first = make_repository(base / "first")
    git(first, "push", "-q", str(bare), "main")
    return bare


def clone(bare: Path, name: str, *options: str) -> Repository:
    """A clone beside the remote; its record is on ``origin``."""
    folder = bare.parent / name
    git(bare.parent, "clone", "-q", *options, f"file://{bare}", str(folder))
    for key, value in (("user.name", name.capitalize()), ("user.email", f"{name}@example.org")):
        git(folder, "config", key, value)
    return open_repository(folder, remote="origin")


def sync(repository: Repository) -> None:
    Remote(repository, ENV).sync()


def begin(repository: Repository, held: HeldLock, *, lag_s: float = 0.0) -> Attempt:
    return Attempt.begin(
        repository,
        ENV,
        Reader(repository, ENV).state(),
        fence=held.fence,
        action="apply",
        plan_digest="",
        source_commit=repository.head_commit(),
        project="acme",
        actor=repository.actor(),
        lag_s=lag_s,
        lock=held,
    )


def apply(repository: Repository, *changes: Change, subject: str = "Apply") -> str:
    """One whole attempt, with its lock; returns its entry."""
    with Lock(repository, ENV).acquire("llmctl apply") as held:
        attempt = begin(repository, held)
        for change in changes:
            attempt.commit(change)
        return attempt.close("applied", subject=subject, decisions={}, rejections=())


def finish(repository: Repository) -> list[str]:
    """What the next apply does first, as ``app/interrupted.py`` has it; returns what it would tell."""
    said: list[str] = []
    with Lock(repository, ENV).acquire("llmctl apply") as held:
        found = find_interrupted(repository, ENV, dropped=said.append)
        if found:
            said.append(found.describe())
            attempt = found.recover(held.fence, held)
            ended = found.closing
            attempt.close(
                ended.outcome if ended else "interrupted",
                subject=ended.subject if ended else "Interrupted",
                decisions=ended.decisions if ended else {},
                rejections=ended.rejections if ended else (),
            )
    return said


def remote_refs(bare: Path) -> dict[str, str]:
    """The refs of llmctl on the remote."""
    lines = git(bare, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    found = (line.split(" ", 1) for line in lines)
    return {ref: value for ref, value in found if "llmctl" in ref}


def head(folder: Path) -> str:
    """The record's head in a repository, "" for none."""
    return git(folder, "rev-parse", "-q", "--verify", f"refs/heads/llmctl/{ENV}", check=False)


def journal(repository: Repository, serial: int) -> Path:
    return repository.private_dir(ENV) / f"attempt-{serial}.jsonl"


def on_remote(bare: Path, serial: int) -> list[dict[str, Any]]:
    """The lines of a journal on the remote, in their order."""
    names = git(bare, "ls-tree", "-r", "--name-only", attempt_ref(serial)).split()
    text = "".join(git(bare, "show", f"{attempt_ref(serial)}:{name}") + "\n" for name in names)
    return [json.loads(line) for line in text.splitlines()]


def sound(bare: Path, *repositories: Repository) -> None:
    """The remote has a record that verifies and nothing else, and so have the clones."""
    assert set(remote_refs(bare)) == {BRANCH}
    for repository in repositories:
        sync(repository)
        assert head(repository.work_tree) == head(bare)
        assert verify(repository, ENV, expect_head=head(bare), judge=judge).findings == ()
        assert find_interrupted(repository, ENV) is None
        assert not repository.private_dir(ENV).exists()
        assert git(repository.work_tree, "for-each-ref", "refs/llmctl", "refs/llmctl-remotes") == ""


class Line:
    """A connection that can be cut: git reaches the remote through a program that stands for ssh."""

    def __init__(self, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._bare = bare
        self._cut = bare.parent / "cut"
        program = bare.parent / "line"
        cut = shlex.quote(str(self._cut))
        program.write_text(
            "#!/bin/sh\n"
            f"if [ -e {cut} ]; then\n"
            f"  left=$(cat {cut})\n"
            f'  if [ "$left" -gt 1 ]; then echo $((left - 1)) > {cut}; else rm {cut}; fi\n'
            "  echo 'ssh: connect to host hub port 22: Connection refused' >&2; exit 255\n"
            "fi\n"
            'shift $(($# - 1)); eval "$1"\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("GIT_SSH", str(program))
        monkeypatch.setenv("GIT_SSH_VARIANT", "simple")

    def attach(self, repository: Repository) -> None:
        """Let a clone reach the remote through this line."""
        git(repository.work_tree, "remote", "set-url", "origin", f"ssh://hub{self._bare}")

    def cut(self, times: int = 1_000_000) -> None:
        """Refuse so many connections."""
        self._cut.write_text(str(times))

    def mend(self) -> None:
        self._cut.unlink()


def lose_answers(bare: Path, *, then_cut: int = 0) -> None:
    """Have the remote make the next push and end before it can say so; and refuse so many connections after that."""
    hook, marker = bare / "hooks" / "reference-transaction", bare.parent / "lose"
    marker.write_text(str(then_cut))
    cut = shlex.quote(str(bare.parent / "cut"))
    hook.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = committed ] && [ -e {shlex.quote(str(marker))} ]; then\n'
        f"  left=$(cat {shlex.quote(str(marker))}); rm {shlex.quote(str(marker))}\n"
        f'  if [ "$left" -gt 0 ]; then echo "$left" > {cut}; fi\n'
        "  kill -9 $PPID\nfi\n"
    )
    hook.chmod(0o755)


def refuse(bare: Path, pattern: str) -> Path:
    """A rule of the remote: pushes of refs that match are declined. Returns the hook, to take it away."""
    hook = bare / "hooks" / "pre-receive"
    hook.write_text(f"#!/bin/sh\nif grep -qE {shlex.quote(pattern)}; then echo 'ask the owners' >&2; exit 1; fi\n")
    hook.chmod(0o755)
    return hook
