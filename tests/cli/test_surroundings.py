"""What is around the file: git, ports, terminals, pipes, folders."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import InProcess
from tests.cli.project import DEADLINE_S, Project, ended, environment, until
from tests.terminal import COLUMNS, on_terminal

pytestmark = pytest.mark.e2e

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
KEY = '  hosted: {source: "openai:some", license: MIT, api_key: "${env:LLMCTL_TEST_KEY}"}\n'


@pytest.mark.parametrize("command", ["plan", "apply --yes", "destroy --yes", "status", "drift", "audit log"])
def test_without_a_repository(project: Project, here: InProcess, command: str) -> None:
    shutil.rmtree(project.root / ".git")
    before = sorted(project.root.rglob("*"))
    done = here(*command.split())
    assert (done.code, done.out) == (1, "")
    assert "this folder is not in a git repository" in done.err
    assert "Run `git init`" in done.err
    assert sorted(project.root.rglob("*")) == before


def test_without_an_identity(project: Project, here: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in project.env if n.startswith(("GIT_AUTHOR", "GIT_COMMITTER"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.useConfigOnly")  # no guess from the host's name
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    before = project.traces()
    assert here("plan").code == 0  # planning records nothing
    done = here("apply", "--yes")
    assert (done.code, done.out) == (1, "")
    assert "git does not know who you are" in done.err
    assert 'git config user.name "Your Name"' in done.err
    assert project.traces() == before


def test_a_taken_port(project: Project, here: InProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        project.replace("{target: local}", f"{{target: local, gateway: {{port: {port}}}}}")
        before = project.traces()
        done = here("apply", "--yes")
    assert done.code == 1
    assert f"port {port} is taken by pid {os.getpid()}" in done.err
    assert "--> llmops.yaml:15:40" in done.err
    assert "choose another port" in done.err
    assert project.traces() == before


def test_an_unset_secret_warns_in_a_plan_and_stops_an_apply(project: Project, here: InProcess) -> None:
    project.replace("models:\n", "models:\n" + KEY)
    project.replace("endpoints:\n", "endpoints:\n  backup: {model: hosted, engine: external}\n")
    column = KEY.index('"${') + 1
    place = f"llmops.yaml:30:{column} "
    planned = here("plan")
    assert planned.code == 0
    assert f"warning: environment variable LLMCTL_TEST_KEY is not set\n  --> {place}(model.hosted)" in planned.out
    before = project.traces()
    done = here("apply", "--yes")
    assert done.code == 1
    assert f"LLMCTL_TEST_KEY is not set\n  --> {place}(endpoint.backup)" in done.err
    assert "export LLMCTL_TEST_KEY=…" in done.err
    assert project.traces() == before


def test_nobody_to_confirm(project: Project) -> None:
    before = project.traces()
    done = project.run("apply", stdin="y\n")
    assert done.code == 1
    assert "nobody is there to confirm" in done.err
    assert "Add --yes" in done.err
    assert project.traces() == before


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (b"n\n", 0, "Nothing was changed."),
        (b"\n", 0, "Nothing was changed."),
        (b"\x03", 130, "Interrupted; nothing was changed."),
        (b"\x04", 130, "Interrupted; nothing was changed."),
    ],
    ids=["n", "enter", "ctrl-c", "ctrl-d"],
)
def test_a_question_that_is_not_answered_with_yes(project: Project, answer: bytes, code: int, said: str) -> None:
    before = project.traces()
    ended_with, shown = on_terminal(project.root, project.env, "apply", answer=answer)
    assert "Apply this to dev?" in shown
    assert (ended_with, said in shown) == (code, True), shown
    assert "Traceback" not in shown
    assert project.traces() == before


@pytest.mark.parametrize("how", ["flag", "variable", "llmctl"])
def test_no_color_on_a_terminal(project: Project, how: str) -> None:
    project.replace("context: 512", "context: lots")
    _, coloured = on_terminal(project.root, project.env, "plan")
    assert "\x1b[31m" in coloured
    project.env |= {"variable": {"NO_COLOR": "please"}, "llmctl": {"LLMCTL_NO_COLOR": "1"}}.get(how, {})
    code, plain = on_terminal(project.root, project.env, "plan", *(["--no-color"] if how == "flag" else []))
    assert code == 1
    assert "context: lots" in plain
    assert "\x1b[" not in plain


@pytest.mark.parametrize("command", ["plan", "plan --json", "schema", "--help"])
def test_a_pipe_that_closes(project: Project, command: str) -> None:
    process = project.start(*command.split())
    assert process.stdout is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(DEADLINE_S) in (0, 1)
    done = subprocess.run(
        f"{sys.executable} -m llmctl {command} | head -n 1",
        shell=True,
        cwd=project.root,
        env=project.env,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)


@pytest.mark.parametrize("command", ["plan", "plan --json"])
def test_a_disk_that_is_full_or_no_output_at_all(project: Project, command: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "llmctl", *command.split()],
            cwd=project.root,
            env=project.env,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE_S,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    closed = subprocess.run(
        f"{sys.executable} -m llmctl {command} >&-",
        shell=True,
        cwd=project.root,
        env=project.env,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert (closed.returncode, closed.stderr) == (0, "")


def test_a_terminal_that_cannot_show_every_sign(project: Project) -> None:
    done = project.run("validate", env={"PYTHONIOENCODING": "latin-1"})
    assert (done.code, done.out) == (0, "ok llmops.yaml is valid (dev)\n")
    assert project.run("validate", env={"LC_ALL": "C"}).out == "✓ llmops.yaml is valid (dev)\n"


def test_from_other_folders(project: Project, here: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inside = project.root / "data"
    monkeypatch.chdir(inside)
    assert here("plan").code == 0
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    monkeypatch.chdir(outside)
    none = here("plan")
    assert none.code == 1
    assert "there is no llmops.yaml in" in none.err
    assert "pass -f FILE" in none.err
    assert here("plan", "-f", str(project.file)).code == 0
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("locale", [{}, ASCII], ids=["UTF-8", "C"])
def test_a_folder_with_spaces_and_signs(template: Project, tmp_path: Path, locale: dict[str, str]) -> None:
    """The whole life of a project, also where Python takes all names and texts for ASCII."""
    root = tmp_path / "a b ü✓ %s"
    shutil.copytree(template.root, root)
    odd = Project(root, environment(tmp_path / "home") | locale)
    odd.file.write_text(odd.file.read_text().replace("limitations: Knows", "limitations: Weiß ☃; knows"), "utf-8")
    try:
        assert odd.run("validate").code == 0
        assert odd.run("apply", "--yes").code == 0
        saved = odd.run("plan", "--out", "my plan.json")
        assert "llmctl apply 'my plan.json'" in saved.out
        assert odd.run("apply", "my plan.json").code == 0
        assert "support@" in odd.run("chat", "support", "How long does shipping take?").err
        assert odd.run("logs", "gateway").code == 0
        assert "applied" in odd.run("audit", "show", "1").out
        assert odd.run("plan", "--detailed-exitcode", "--markdown").code == 0
        assert odd.run("audit", "verify").code == 0
    finally:
        assert odd.run("destroy", "--yes").code == 0
    assert odd.processes() == []


@pytest.mark.parametrize("command", ["validate", "plan", "status", "policy list", "apply --help"])
def test_a_terminal_of_80_columns(applied: Project, command: str) -> None:
    _, shown = on_terminal(applied.root, applied.env, *command.split())
    wide = [line for line in shown.splitlines() if len(re.sub(r"\x1b\[[0-9;]*m", "", line)) > COLUMNS]
    assert wide == []


def test_without_libgomp(project: Project, tmp_path: Path) -> None:
    """As on a machine without it: the module's own import fails with the words of the dynamic loader."""
    broken = tmp_path / "broken" / "xllamacpp"
    broken.mkdir(parents=True)
    reason = "libgomp.so.1: cannot open shared object file: No such file or directory"
    (broken / "__init__.py").write_text(f"raise ImportError({reason!r})\n")
    path = f"{broken.parent}:{project.env['PYTHONPATH']}"
    done = project.run("apply", "--yes", env={"PYTHONPATH": path})
    assert done.code == 1
    assert reason in done.text
    assert "apt-get install libgomp1" in done.text
    assert "Nothing was changed" in done.text
    assert project.git("for-each-ref", "--format=%(refname)", "refs/heads/llmctl", "refs/llmctl") == ""
    assert not (project.root / ".llmctl").exists()
    assert project.processes() == []


def test_two_applies_at_once(project: Project) -> None:
    first = project.start("apply", "--yes")
    until(first, "… gate:faq")
    os.kill(first.pid, signal.SIGSTOP)
    try:
        second = project.run("apply", "--yes")
        shown = project.run("apply", "--yes", "--json").json()
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert ended(first)[0] == 0
    assert second.code == 5
    assert f"pid {first.pid}" in second.err
    assert "dev is locked by Test <test@example.invalid>" in second.err
    assert (shown["exit_code"], shown["format"]) == (5, 1)
    assert [e["serial"] for e in project.run("audit", "log", "--json").json()["entries"]] == [1]


def test_ctrl_c_while_planning(project: Project, tmp_path: Path) -> None:
    """A git that waits holds the command where it only reads."""
    real, marker = shutil.which("git"), tmp_path / "waits"
    shim = tmp_path / "bin" / "git"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\ntouch "{marker}"\nsleep 0.5\nexec "{real}" "$@"\n')
    shim.chmod(0o755)
    for command in ("plan", "apply --yes", "status"):
        marker.unlink(missing_ok=True)
        before = project.traces()
        process = project.start(*command.split(), env={"PATH": f"{shim.parent}:{project.env['PATH']}"})
        while not marker.exists():
            assert process.poll() is None
            time.sleep(0.01)
        code, said = ended(process, interrupt=True)
        assert (code, "Interrupted; nothing was changed." in said) == (130, True), said
        assert project.traces() == before


@pytest.mark.parametrize("phase", ["starting the process manager", "… provision:", "… stage:", "… gate:faq"])
def test_ctrl_c_while_applying(project: Project, phase: str) -> None:
    process = project.start("apply", "--yes")
    until(process, phase)
    code, said = ended(process, interrupt=True)
    assert code == 130, said
    assert "Interrupted: finishing or undoing the steps in hand, then recording what happened" in said
    entry = project.run("audit", "log", "--json").json()["entries"][0]
    assert (entry["serial"], entry["outcome"]) == (1, "interrupted")
    assert project.run("status", "--json").json()["routes"] == []
    again = project.run("apply", "--yes")
    assert again.code == 0, again.text
    assert project.run("plan", "--detailed-exitcode").code == 0
