"""``llmctl doctor``: what is wrong is found and named, with its remedy; nothing raises, nothing is changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest

from llmctl.app.doctor import ENGINE, PYTHON
from llmctl.providers.local.wire import free_port
from tests.cli.conftest import InProcess
from tests.cli.project import REPOSITORY, Project, until

NAMES = (
    *("python", "engine", "plug-ins", "git", "identity", "signing", "repository", "remote", "file", "variables"),
    *("permissions", "disk", "sockets", "ports", "gateway", "clock", "locks", "pulumi"),
)
KEY = '  hosted: {source: "openai:some", license: MIT, api_key: "${env:LLMCTL_TEST_KEY}"}\n'


def _checks(here: InProcess, *arguments: str) -> dict[str, dict[str, str]]:
    """The checks by name; the exit code must say whether one failed."""
    done = here("doctor", "--json", *arguments)
    shown = done.json()
    failed = any(check["status"] == "failed" for check in shown["checks"])
    assert (shown["format"], shown["ok"], shown["exit_code"], done.code) == (1, not failed, failed, failed)
    assert all(check["status"] == "ok" or check["remedy"] for check in shown["checks"])
    return {check["name"]: check for check in shown["checks"]}


def _says(check: dict[str, str], status: str, found: str, remedy: str) -> None:
    assert (check["status"], found in check["found"], remedy in check["remedy"]) == (status, True, True), check


def test_all_is_well(project: Project, here: InProcess) -> None:
    before = project.traces()
    checks = _checks(here)
    assert tuple(checks) == NAMES
    assert {name: check for name, check in checks.items() if check["status"] != "ok"} == {}
    shown = here("doctor")
    assert [line[0] for line in shown.out.splitlines()[: len(NAMES)]] == ["✓"] * len(NAMES)
    assert "✓ file         llmops.yaml is valid (dev)\n" in shown.out
    assert shown.out.endswith("\nAll is well.\n")
    assert project.traces() == before


def test_without_a_project(tmp_path: Path, here: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checks = _checks(here)
    _says(checks["file"], "ok", "the machine is checked alone", "llmctl init")
    assert checks["repository"]["found"] == "this folder is in none; a project needs one"
    _says(_checks(here, "-f", "nothing.yaml")["file"], "failed", "'nothing.yaml' does not exist", "Name a file")


def test_a_wrong_file_and_a_wrong_environment(project: Project, here: InProcess) -> None:
    _says(_checks(here, "-e", "prod")["file"], "failed", "there is no environment 'prod'", "dev")
    project.replace("context: 512", "context: lots")
    _says(_checks(here)["file"], "failed", "llmops.yaml:50:14: `context` must be", "llmctl validate")
    project.replace("endpoint: support", "endpoint: other")
    _says(_checks(here)["file"], "failed", ", and 1 more", "llmctl validate")


def test_no_repository(project: Project, here: InProcess) -> None:
    shutil.rmtree(project.root / ".git")
    checks = _checks(here)
    _says(checks["repository"], "failed", "is not in a git repository", "git init")
    assert [name for name, check in checks.items() if check["status"] != "ok"] == ["repository"]


def test_a_clone_that_is_shallow_detached_and_interrupted(
    project: Project, here: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.git("commit", "-q", "--allow-empty", "-m", "second")
    project.git("checkout", "-q", "--detach")
    _says(_checks(here)["repository"], "ok", "HEAD is detached, which is no harm", "")
    (project.root / ".git/index.lock").touch()
    _says(_checks(here)["repository"], "warning", "left index.lock", f"rm {project.root}/.git/index.lock")
    project.git("clone", "-q", "--depth", "1", f"file://{project.root}", str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")
    _says(_checks(here)["repository"], "warning", "a shallow clone", "git fetch --unshallow")
    project.git("clone", "-q", "--bare", str(project.root), str(tmp_path / "bare"))
    (tmp_path / "bare/llmops.yaml").write_text(project.file.read_text())
    monkeypatch.chdir(tmp_path / "bare")
    _says(_checks(here)["repository"], "failed", "is a bare git repository", "git clone")


def test_no_git_at_all(project: Project, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = project.run("doctor", env={"PATH": str(empty)})
    assert done.code == 1
    assert re.search(r"✗ git +git is not installed, or not on the PATH\n +Install git 2\.36 or newer\.", done.out)


def test_an_identity_that_is_missing(project: Project, here: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in project.env if n.startswith(("GIT_AUTHOR", "GIT_COMMITTER"))]:
        monkeypatch.delenv(name)
    _says(_checks(here)["identity"], "failed", "git does not know who you are", "git config user.name")


@pytest.mark.parametrize(
    ("settings", "status", "found"),
    [
        ({"gpg.format": "ssh"}, "failed", "user.signingkey is not set"),
        ({"gpg.format": "ssh", "user.signingkey": "/no/such/key"}, "failed", "there is no key /no/such/key"),
        ({"gpg.format": "ssh", "user.signingkey": "key::ssh-ed25519 AAAA"}, "ok", "with a key of the agent"),
        ({"gpg.program": "no-such-gpg"}, "failed", "no-such-gpg is not installed"),
        ({"gpg.program": "false", "user.signingkey": "ABCD"}, "failed", "there is no secret key of ABCD"),
        ({"gpg.program": "true", "user.signingkey": "ABCD"}, "ok", "openpgp with the key of ABCD"),
    ],
)
def test_signing(project: Project, here: InProcess, settings: dict[str, str], status: str, found: str) -> None:
    for name, value in {"commit.gpgsign": "true", **settings}.items():
        project.git("config", name, value)
    if settings.get("gpg.format") == "ssh" and shutil.which("ssh-keygen") is None:
        status, found = "failed", "ssh-keygen is not installed"
    _says(_checks(here)["signing"], status, found, "commit.gpgsign false" if status == "failed" else "")


def test_a_port_and_a_variable(project: Project, here: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    project.replace("models:\n", "models:\n" + KEY)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        project.replace("{target: local}", f"{{target: local, gateway: {{port: {port}}}}}")
        checks = _checks(here)
    _says(checks["ports"], "failed", f"port {port} of environment dev is taken by pid {os.getpid()}", "gateway.port")
    _says(checks["variables"], "failed", "LLMCTL_TEST_KEY (for model.hosted)", "export LLMCTL_TEST_KEY=…")
    monkeypatch.setenv("LLMCTL_TEST_KEY", "CANARY-51a7")
    done = here("doctor", "--json")
    assert done.code == 0
    assert "CANARY" not in done.text


def test_a_disk_that_is_full(project: Project, here: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The free space is made up: a disk cannot be filled in a test."""
    real = shutil.disk_usage(project.root)
    for free, status, found in (
        (300_000, "failed", "storing the project's files takes 0.4 MB"),
        (5e8, "warning", "0.5 GB"),
    ):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: real._replace(free=int(free)))
        _says(_checks(here)["disk"], status, found, "Make room")


def test_an_engine_that_cannot_be_loaded(project: Project, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "xllamacpp"
    broken.mkdir(parents=True)
    reason = "libgomp.so.1: cannot open shared object file: No such file or directory"
    (broken / "__init__.py").write_text(f"raise ImportError({reason!r})\n")
    done = project.run("doctor", env={"PYTHONPATH": f"{broken.parent}:{project.env['PYTHONPATH']}"})
    assert done.code == 1
    assert re.search(rf"✗ engine +xllamacpp \S+ cannot be loaded: .*{re.escape(reason)}", done.out)
    assert "apt-get install libgomp1" in done.out


def test_a_socket_path_that_is_too_long(project: Project, here: InProcess) -> None:
    """Too long a folder is passed over, so a path can only be too long in the note of an older llmctl."""
    state = project.root / ".llmctl/dev"
    state.mkdir(parents=True)
    long = "/tmp/" + "x" * 90
    (state / "runtime.json").write_text(json.dumps({"state": str(state), "folder": long}))
    _says(_checks(here)["sockets"], "failed", f"{long} is too long: 119 of 104 bytes", "XDG_RUNTIME_DIR")


def test_what_the_code_needs_is_what_the_package_declares() -> None:
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert declared["requires-python"] == ">=" + ".".join(map(str, PYTHON))
    assert f"xllamacpp>={'.'.join(map(str, ENGINE))}" in declared["dependencies"]


@pytest.mark.e2e
def test_a_gateway_that_is_old_or_gone_and_its_port_that_is_taken(
    project: Project, here: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _checks(here)["gateway"]["found"] == "nothing is applied here yet"
    port = free_port()
    project.replace("{target: local}", f"{{target: local, gateway: {{port: {port}}}}}")
    assert project.run("apply", "--yes").code == 0
    checks = _checks(here)
    assert (checks["gateway"]["found"], checks["ports"]["found"]) == ("dev serves", f"{port} serves (dev)")
    with monkeypatch.context() as patched:
        patched.setattr("llmctl.app.local.__version__", "99.0.0")
        _says(_checks(here)["gateway"], "warning", ", and this is 99.0.0", "`llmctl local stop` and then")
    other = free_port()
    project.replace(f"port: {port}", f"port: {other}")
    _says(_checks(here)["gateway"], "warning", f"listens on port {port}, the file asks for {other}", "moves it")
    project.replace(f"port: {other}", f"port: {port}")
    assert project.run("local", "stop").code == 0
    assert _checks(here)["gateway"]["found"] == "dev is stopped"
    with socket.create_server(("127.0.0.1", port)):
        _says(_checks(here)["ports"], "failed", f"port {port} of environment dev is taken by", "gateway.port")


@pytest.mark.e2e
def test_a_lock_an_interruption_and_a_clock(project: Project, here: InProcess) -> None:
    applying = project.start("apply", "--yes")
    until(applying, "… gate:faq")
    os.kill(applying.pid, signal.SIGSTOP)
    try:
        _says(_checks(here)["locks"], "warning", "dev is locked by Test <test@example.invalid> on", "llmctl unlock")
    finally:
        applying.kill()
        applying.communicate()
    _says(_checks(here)["locks"], "warning", "apply 1 of dev by Test <test@example.invalid>", "next `llmctl apply`")
    ahead = {"GIT_COMMITTER_DATE": "2100-01-01T00:00:00Z", "GIT_AUTHOR_DATE": "2100-01-01T00:00:00Z"}
    assert project.run("apply", "--yes").code == 0
    tip = project.git("rev-parse", "llmctl/dev").strip()
    text = project.git("cat-file", "commit", tip)
    moved = re.sub(r"(?m)^((?:author|committer) .*>) \d+", r"\1 4102444800", text)
    made = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
        cwd=project.root,
        env={**project.env, **ahead},
        input=moved,
        capture_output=True,
        text=True,
        check=True,
    )
    project.git("update-ref", "refs/heads/llmctl/dev", made.stdout.strip())
    try:
        _says(_checks(here)["clock"], "failed", "the newest entry of llmctl/dev is", "timedatectl")
    finally:
        project.git("update-ref", "refs/heads/llmctl/dev", tip)
    lock = project.root / ".git/refs/heads/llmctl/dev.lock"
    lock.touch()
    _says(_checks(here)["locks"], "failed", f"git was interrupted and left {lock}", f"rm {lock}")
    lock.unlink()


def test_a_remote_that_has_the_record_is_asked(project: Project, here: InProcess, tmp_path: Path) -> None:
    assert _checks(here)["remote"]["found"] == "records are kept in this clone"
    project.replace("dev: {target: local}", "dev: {target: local, record: {remote: hub}}")
    _says(_checks(here)["remote"], "failed", "cannot be fetched from the git remote hub", "git remote add hub")
    project.git("init", "-q", "--bare", str(tmp_path / "hub.git"))
    project.git("remote", "add", "hub", str(tmp_path / "hub.git"))
    _says(_checks(here)["remote"], "ok", "hub has no record of dev yet", "")
    project.git("push", "-q", "hub", "HEAD:refs/heads/llmctl/dev")
    _says(_checks(here)["remote"], "ok", "hub has the record of dev", "")
    (tmp_path / "hub.git").rename(tmp_path / "away.git")
    _says(_checks(here)["remote"], "failed", "cannot be fetched from the git remote hub", "git remote -v")
