"""Real git repositories, and small attempts in them."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from llmctl.core.address import Address
from llmctl.core.digests import Json, revision
from llmctl.core.evidence import Evidence, Judgement, Verdict
from llmctl.core.protocols import Change
from llmctl.core.resources import Recorded, RecordState
from llmctl.record import (
    Action,
    Attempt,
    Reader,
    Repository,
)

ENV = "dev"
BRANCH = f"refs/heads/llmctl/{ENV}"


def git(folder: Path, *arguments: str, stdin: bytes = b"", check: bool = True) -> str:
    """A git command of the user's, not of ours."""
    done = subprocess.run(["git", *arguments], cwd=folder, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0 or not check, done.stderr.decode()
    return done.stdout.decode(errors="surrogateescape").rstrip("\n")


def make_repository(folder: Path, *, commit: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.name", "Ann Example")
    git(folder, "config", "user.email", "ann@example.org")
    git(folder, "config", "commit.gpgsign", "false")
    if commit:
        (folder / "llmops.yaml").write_text("project: acme\n")
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", "Begin")
    return folder


def recorded(address: str, text: str = "hello", version: int = 1) -> Recorded:
    spec: dict[str, Json] = {"messages": [{"role": "system", "content": text}]}
    return Recorded(
        address=Address.parse(address),
        spec=spec,
        revision=revision(spec),
        version=version,
        needs=(Address("dataset", "faq"),),
        revisions=(revision(spec),),
        outputs={"port": 8080},
    )


def put(resource: Recorded, subject: str = "") -> Change:
    """A change that records one resource, as apply makes it."""
    return Change(
        subject or f"Create {resource.address} v{resource.version}",
        {resource.address: resource},
        trailers=[("Action", "create"), ("Resource", str(resource.address)), ("Revision", resource.revision)],
    )


def evidence(
    gate: str = "faq", threshold: float = 0.95, lower: float = 0.97, verdict: Verdict = Verdict.PASS
) -> Evidence:
    judgement = Judgement("exact_match", "min", threshold, 0.99, lower, 1.0, 200, 0.95, "clopper-pearson", verdict)
    return Evidence(
        gate=gate,
        gate_revision="0" * 16,
        gate_spec={"metrics": {"exact_match": {"min": threshold}}},
        route="support",
        route_revision="1" * 16,
        baseline_revision="",
        dataset_digest="sha256:" + "2" * 64,
        key="sha256:" + "3" * 64,
        samples=200,
        judgements=(judgement,),
        verdict=verdict,
        versions={"scipy": "1.17"},
        measured_at="2026-10-01T00:00:00Z",
        seconds=1.25,
    )


def prove(found: Evidence, subject: str = "") -> Change:
    return Change(subject or f"Gate {found.gate}: {found.verdict.value}", evidence=[found])


def begin(
    repository: Repository,
    state: RecordState | None = None,
    *,
    fence: int = 1,
    action: Action = "apply",
    lag_s: float = 0.0,
) -> Attempt:
    state = state or Reader(repository, ENV).state()
    return Attempt.begin(
        repository,
        ENV,
        state,
        fence=fence,
        action=action,
        plan_digest="sha256:" + "a" * 64,
        source_commit=repository.head_commit(),
        project="acme",
        actor=repository.actor(),
        run="ci-42",
        lag_s=lag_s,
    )


def apply(repository: Repository, *changes: Change, fence: int = 1, subject: str = "Apply") -> str:
    """One whole attempt; returns its entry."""
    attempt = begin(repository, fence=fence)
    for change in changes:
        attempt.commit(change)
    return attempt.close("applied", subject=subject, decisions={"policies": []}, rejections=())


def judge(found: Evidence) -> list[str]:
    """The verdict derived again from the interval, as the gates do it."""
    return [
        f"{j.metric}: {j.verdict.value} is not what {j.lower} against {j.threshold} gives"
        for j in found.judgements
        if (j.verdict is Verdict.PASS) != (j.lower >= j.threshold)
    ]


def users_view(folder: Path) -> dict[str, str]:
    """All that belongs to the user: work tree, index, HEAD, branches, status."""
    git_dir = Path(git(folder, "rev-parse", "--absolute-git-dir"))
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and ".git" not in p.relative_to(folder).parts]
    view = {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in [*files, git_dir / "HEAD"]}
    index = git_dir / "index"
    view["index"] = hashlib.sha256(index.read_bytes()).hexdigest() if index.exists() else ""
    view["index time"] = str(index.stat().st_mtime_ns) if index.exists() else ""
    view["status"] = subprocess.run(
        ["git", "status", "--porcelain"],
        cwd=folder,
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
    ).stdout
    view["refs"] = git(folder, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads/main", "refs/tags")
    view["stash"] = git(folder, "stash", "list")
    return view


def llmctl_refs(folder: Path) -> list[str]:
    return git(folder, "for-each-ref", "--format=%(refname)", "refs/heads/llmctl", "refs/llmctl").split()
