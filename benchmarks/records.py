"""Records in repositories of their own, for the benchmarks: of any size, signed or not.

make_repository(folder, signed=True)          a repository with one commit, and a key that git trusts
fill(repository, applies=10, changes=1000, resources=1000)      so many commits of changes in the record
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from llmctl.core.address import Address
from llmctl.core.digests import revision
from llmctl.core.protocols import Change
from llmctl.core.resources import Recorded
from llmctl.record import Attempt, Reader, Repository, open_repository
from llmctl.record.repository import branch

ENV = "dev"


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    """A git command of the user's; stops the benchmark when it fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, input=stdin, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode().rstrip("\n")


def make_repository(folder: Path, *, signed: bool = False) -> Repository:
    """A new repository in ``folder``. Signed: with an Ed25519 key that `gpg.ssh.allowedSignersFile` allows."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    settings = {"user.name": "Ann Bench", "user.email": "ann@example.invalid", "commit.gpgsign": "false"}
    if signed:
        key, allowed = folder / ".git/bench-key", folder / ".git/bench-allowed"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", str(key)], check=True)
        allowed.write_text(f'ann@example.invalid namespaces="git" {key.with_name("bench-key.pub").read_text()}')
        settings |= {"commit.gpgsign": "true", "gpg.format": "ssh", "user.signingkey": str(key)}
        settings |= {"gpg.ssh.allowedSignersFile": str(allowed)}
    for name, value in settings.items():
        git(folder, "config", name, value)
    (folder / "llmops.yaml").write_text("project: bench\n")
    git(folder, "add", "llmops.yaml")
    git(folder, "commit", "-q", "-m", "Begin")
    return open_repository(folder)


def prompt(number: int, version: int = 1) -> Recorded:
    """A prompt as an apply records it: 1 kB of JSON."""
    text = f"You are assistant number {number}, version {version}. Answer briefly, and say where you know it from."
    spec = {
        "messages": [{"role": "system", "content": text}, {"role": "user", "content": "{{ question }}"}],
        "parameters": {"max_tokens": 96, "temperature": 0},
        "variables": {"question": "string"},
    }
    now = revision(spec)
    return Recorded(Address("prompt", f"p{number:05}"), spec, now, version=version, needs=(), revisions=(now,))


def begin(repository: Repository) -> Attempt:
    """Begin the next attempt."""
    return Attempt.begin(
        repository,
        ENV,
        Reader(repository, ENV).state(),
        fence=1,
        action="apply",
        plan_digest="sha256:" + "a" * 64,
        source_commit=repository.head_commit(),
        project="bench",
        actor=repository.actor(),
    )


def apply(repository: Repository, changed: list[Recorded]) -> float:
    """One whole attempt with a commit for each of ``changed``; returns the seconds it took."""
    begun = time.perf_counter()
    attempt = begin(repository)
    for each in changed:
        verb = "create" if each.version == 1 else "update"
        trailers = [("Action", verb), ("Resource", str(each.address)), ("Revision", each.revision)]
        attempt.commit(
            Change(f"{verb.title()} {each.address} v{each.version}", {each.address: each}, trailers=trailers)
        )
    decided = {
        "action": "apply",
        "reason": "",
        "actor": repository.actor(),
        "machine": "bench",
        "changes": len(changed),
    }
    attempt.close("applied", subject=f"Apply {len(changed)} changes", decisions=decided, rejections=())
    return time.perf_counter() - begun


def fill(repository: Repository, *, applies: int, changes: int, resources: int) -> float:
    """So many applies of so many changes each, over ``resources`` in turn; returns the seconds."""
    begun, count = time.perf_counter(), 0
    for _ in range(applies):
        made = range(count, count + changes)
        apply(repository, [prompt(n % resources, n // resources + 1) for n in made])
        count += changes
    return time.perf_counter() - begun


def start_with(repository: Repository, resources: int) -> float:
    """A record of so many resources in one change: what they were made by does not matter. Returns the seconds."""
    begun = time.perf_counter()
    attempt = begin(repository)
    attempt.commit(Change("Begin", {each.address: each for each in map(prompt, range(resources))}))
    attempt.close("applied", subject="Begin", decisions={}, rejections=())
    return time.perf_counter() - begun


def commits(repository: Repository) -> int:
    """How many commits the record has, entries and changes."""
    return int(git(repository.work_tree, "rev-list", "--count", branch(ENV)))


def kilobytes(repository: Repository) -> int:
    """What .git takes on disk, as ``du`` counts it."""
    done = subprocess.run(["du", "-sk", str(repository.common_dir)], stdout=subprocess.PIPE, check=True)
    return int(done.stdout.split()[0])
