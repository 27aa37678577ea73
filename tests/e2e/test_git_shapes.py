"""Repositories of every shape, locks that a crash left, hooks that fail, signatures: it works, or says what to do."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.project import Project, tree

pytestmark = pytest.mark.e2e

LITTLE = """\
apiVersion: llmctl/v1
project: shapes
environments: {dev: {target: local}}
prompts:
  answer: {messages: [{role: system, content: Be brief.}]}
"""
HOOKS = """\
applypatch-msg commit-msg fsmonitor-watchman post-checkout post-commit post-index-change post-merge post-rewrite
post-update pre-auto-gc pre-commit pre-merge-commit pre-push pre-rebase pre-receive prepare-commit-msg proc-receive
push-to-checkout reference-transaction sendemail-validate update
"""


@pytest.fixture
def place() -> Iterator[Project]:
    """Where a test lays its own repository, as ``place.root``; ``place.base / "origin"`` has two commits."""
    place = Project(Path(tempfile.mkdtemp(prefix="e2e-", dir="/tmp")))
    for folder in (place.home, place.run):
        folder.mkdir(mode=0o700)
    origin = place.base / "origin"
    _repository(place, origin)
    _git(place, origin, "commit", "-q", "--allow-empty", "-m", "another")
    yield place
    place.end()


@pytest.fixture
def project(place: Project) -> Project:
    """A plain repository."""
    _repository(place, place.root)
    return place


def _git(place: Project, folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=folder, env=place.environment(), check=True, capture_output=True, text=True
    ).stdout


def _repository(place: Project, folder: Path, *options: str) -> None:
    folder.mkdir()
    (folder / "llmops.yaml").write_text(LITTLE)
    for arguments in (("init", "-q", "-b", "main", *options), ("add", "-A"), ("commit", "-q", "-m", "little")):
        _git(place, folder, *arguments)


def _shallow(place: Project) -> None:
    _git(place, place.base, "clone", "-q", "--depth", "1", f"file://{place.base}/origin", "project")


def _partial(place: Project, *options: str) -> None:
    _git(place, place.base / "origin", "config", "uploadpack.allowFilter", "true")
    _git(place, place.base, "clone", "-q", "--filter=blob:none", *options, f"file://{place.base}/origin", "project")


def _detached(place: Project) -> None:
    _git(place, place.base, "clone", "-q", "origin", "project")
    _git(place, place.root, "checkout", "-q", "--detach", "HEAD~1")


def _linked(place: Project) -> None:
    _git(place, place.base / "origin", "worktree", "add", "-q", str(place.root))


def _submodule(place: Project) -> None:
    _git(place, place.base, "init", "-q")
    _git(place, place.base, "-c", "protocol.file.allow=always", "submodule", "add", "-q", "./origin", "project")


def _sha256(place: Project) -> None:
    _repository(place, place.root, "--object-format=sha256")


def _unborn(place: Project) -> None:
    _repository(place, place.root)
    _git(place, place.root, "checkout", "-q", "--orphan", "fresh")


def _index_locked(place: Project) -> None:
    _repository(place, place.root)
    (place.root / ".git" / "index.lock").touch()


def _change(project: Project) -> None:
    project.edit("Be brief.", "Be very brief.")


def _works(project: Project) -> None:
    """Two applies, each with an empty plan afterwards, and a record that is whole."""
    for number in (1, 2):
        project.apply()
        assert project.plan_code() == 0
        assert project.serial() == number
        _change(project) if number == 1 else None
    project.ok("audit", "verify")


@pytest.mark.parametrize("shape", [_shallow, _partial, _detached, _linked, _submodule, _sha256, _unborn, _index_locked])
def test_it_works_in(place: Project, shape: Callable[[Project], None]) -> None:
    shape(place)
    _works(place)


def test_a_bare_repository_says_to_clone(place: Project) -> None:
    _git(place, place.base, "clone", "-q", "--bare", "origin", "project")
    (place.root / "llmops.yaml").write_text(LITTLE)
    before = tree(place.root)
    for words in (("plan",), ("apply", "--yes"), ("audit", "log")):
        refused = place.llmctl(*words)
        assert refused.code == 1
        assert "a bare git repository, without a work tree" in refused.err
        assert "Run llmctl in a clone" in refused.err
    assert tree(place.root) == before


def test_a_base_that_a_shallow_clone_lacks_says_to_fetch(place: Project) -> None:
    _shallow(place)
    refused = place.llmctl("plan", "--base", "main~1")
    assert refused.code == 1
    assert "main~1" in refused.err
    assert "git fetch" in refused.err
    _git(place, place.root, "fetch", "-q", "--unshallow")
    place.ok("plan", "--base", "main~1")


def test_a_partial_clone_without_its_remote_says_what_is_missing(place: Project) -> None:
    _partial(place, "--no-checkout")
    _git(place, place.root, "config", "remote.origin.url", "file:///nowhere")
    (place.root / "llmops.yaml").write_text(LITTLE)
    refused = place.llmctl("plan", "--base", "main")
    assert refused.code == 1
    assert "a partial clone, and what it left out could not be fetched" in refused.err
    assert "`git fetch`" in refused.err


@pytest.mark.parametrize("ref", ["refs/heads/llmctl/dev", "refs/llmctl/dev/lock"])
def test_a_lock_on_a_ref_that_a_crash_left_is_named(project: Project, ref: str) -> None:
    project.apply()
    _change(project)
    lock = project.root / ".git" / f"{ref}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    refused = project.llmctl("apply", "--yes")
    assert refused.code == 1
    assert str(lock) in refused.err
    assert "remove the .lock file that is named" in refused.err
    lock.unlink()
    _works_again(project)


def _works_again(project: Project) -> None:
    project.apply()
    assert project.plan_code() == 0
    project.ok("audit", "verify")
    assert "refs/llmctl" not in " ".join(project.refs()), "neither a lock nor an attempt is left"


def test_hooks_that_fail_never_run(project: Project) -> None:
    marker = project.base / "a-hook-ran"
    for folder in (project.root / ".git" / "hooks", project.base / "hooks"):
        folder.mkdir(exist_ok=True)
        for name in HOOKS.split():
            (folder / name).write_text(f'#!/bin/sh\necho "$0" >> "{marker}"\nexit 1\n')
            (folder / name).chmod(0o755)
    settings = {"hooksPath": project.base / "hooks", "fsmonitor": project.base / "hooks/update"}
    with (project.root / ".git/config").open("a") as config:  # a git that sets them would run them
        config.write("".join(["[core]\n", *(f"\t{name} = {value}\n" for name, value in settings.items())]))
    _works(project)
    assert not marker.exists()


# -- signatures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["ssh", "openpgp"])
@pytest.mark.parametrize("key", ["", "nobody-has-this"])
def test_commits_to_be_signed_without_a_key(project: Project, form: str, key: str) -> None:
    for name, value in {"commit.gpgsign": "true", "gpg.format": form, "user.signingkey": key}.items():
        if value:
            project.git("config", name, value)
    refs = project.refs()
    assert project.plan_code() == 2, "planning signs nothing"
    refused = project.llmctl("apply", "--yes")
    assert refused.code == 1
    assert "the commit could not be signed" in refused.err
    assert "git config user.signingkey" in refused.err
    assert project.refs() == refs
    assert not (project.root / ".llmctl").exists()
    assert project.processes() == []


def test_commits_signed_with_an_ssh_key(project: Project) -> None:
    key = project.base / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tess", "-f", key], check=True)
    allowed = project.base / "allowed"
    allowed.write_text(f"tess@example.invalid {key.with_suffix('.pub').read_text()}")
    settings = {"gpg.format": "ssh", "user.signingkey": str(key), "gpg.ssh.allowedSignersFile": str(allowed)}
    for name, value in {"commit.gpgsign": "true", **settings}.items():
        project.git("config", name, value)
    _works(project)
    _all_signed(project)


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")
def test_commits_signed_with_an_openpgp_key(project: Project) -> None:
    keys = project.base / "gnupg"
    keys.mkdir(mode=0o700)
    project.variables["GNUPGHOME"] = str(keys)
    make = ["--quick-gen-key", "Tess Tester <tess@example.invalid>", "ed25519", "sign", "never"]
    try:
        _gpg(project, "gpg", "--batch", "--quiet", "--passphrase", "", *make)
        project.git("config", "commit.gpgsign", "true")
        _works(project)
        _all_signed(project)
    finally:
        _gpg(project, "gpgconf", "--kill", "all")


def _gpg(project: Project, *command: str) -> None:
    done = subprocess.run(command, env=project.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _all_signed(project: Project) -> None:
    states = project.git("log", "--format=%G?", "llmctl/dev").split()
    assert len(states) > project.serial() == 2
    assert set(states) == {"G"}, "every entry and every change, by git's own word"
