"""``llmctl init``: all of a project or nothing of it, never over a file, and what it makes works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from llmctl import spec
from llmctl.app.init import ENVIRONMENT, _project, init
from llmctl.cli import cli
from llmctl.core.address import NAME
from llmctl.core.digests import digest_file
from tests.cli.project import EXAMPLE, REPOSITORY, SOURCE, Project, environment

STARTER = SOURCE / "llmctl" / "starter"
FILES = (
    "README.md",
    "llmops.yaml",
    "data/faq_eval.jsonl",
    "data/faq_train.jsonl",
    "models/support-tiny.gguf",
    ".gitignore",
)


def _here(tmp_path: Path) -> Project:
    """A folder in no repository, with a git identity."""
    folder = tmp_path / "work"
    folder.mkdir()
    return Project(folder, environment(tmp_path / "home"))


def _tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, git's own left out, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


@pytest.mark.e2e
def test_what_it_makes_can_be_applied(tmp_path: Path) -> None:
    start = _here(tmp_path)
    made = start.run("init", "my prøject ✓")
    assert made.code == 0, made.text
    assert "project my-prject is started, in a new git repository" in made.out
    assert [line.strip() for line in made.out.splitlines() if line.strip() in FILES] == list(FILES)
    assert "Next, after `cd 'my prøject ✓'`:\n  llmctl plan " in made.out
    assert max(len(line) for line in made.out.splitlines()) <= 80
    project = Project(start.root / "my prøject ✓", start.env)
    assert sorted(_tree(project.root)) == sorted(FILES)
    assert (project.root / ".gitignore").read_text() == ".llmctl/\n"
    project.git("add", "-A")
    project.git("commit", "-qm", "Start")
    try:
        done = project.run("apply", "--yes")
        assert (done.code, "gate.faq PASS" in done.text) == (0, True), done.text
        answer = project.run("chat", "support", "How long does delivery take?")
        assert answer.out == "Standard shipping takes three to five business days.\n"
        again = project.run("init")
        assert (again.code, "was started before: nothing to write" in again.out) == (0, True), again.text
        assert project.git("status", "--porcelain") == ""
        second = project.run("init", "second")
        assert (second.code, "already holds the record of an environment dev" in second.err) == (1, True)
        assert not (project.root / "second").exists()
    finally:
        assert project.run("destroy", "--yes").code == 0
    assert project.processes() == []


def test_the_files_are_those_of_the_example(tmp_path: Path) -> None:
    for path in ("data/faq_eval.jsonl", "data/faq_train.jsonl", "models/support-tiny.gguf"):
        assert digest_file(STARTER / path) == digest_file(EXAMPLE / path)
    started = init(tmp_path / "acme", None)
    ours, theirs = (spec.load(folder / "llmops.yaml") for folder in (started.root, EXAMPLE))
    assert (ours.project, list(ours.environments)) == ("acme", [ENVIRONMENT])
    revisions = [
        {address: resource.revision for address, resource in spec.resolve(d, "dev").desired.resources.items()}
        for d in (ours, theirs)
    ]
    assert revisions[0] == revisions[1]


def test_an_existing_repository_keeps_what_it_has(tmp_path: Path) -> None:
    project = _here(tmp_path)
    project.git("init", "-q", "-b", "trunk")
    (project.root / "README.md").write_text("# Mine\n")
    (project.root / ".gitignore").write_text("*.pyc")
    (project.root / "data").mkdir()
    (project.root / "data/mine.csv").write_text("a\n1\n")
    done = project.run("init", "--name", "acme")
    assert done.code == 0, done.text
    assert "in the git repository that was there" in done.out
    assert "README.md is yours and stays as it is" in done.out
    assert (project.root / "README.md").read_text() == "# Mine\n"
    assert (project.root / ".gitignore").read_text() == "*.pyc\n.llmctl/\n"
    assert project.git("branch", "--show-current") == "trunk\n"
    assert project.run("validate").code == 0
    before = _tree(project.root)
    assert "nothing to write" in project.run("init", "--name", "acme").out
    (project.root / "data/faq_eval.jsonl").unlink()
    assert "\n  data/faq_eval.jsonl\n" in project.run("init", "--name", "acme").out
    assert _tree(project.root) == before


@pytest.mark.parametrize(
    "blocked",
    ["llmops.yaml", "models", "data/faq_eval.jsonl/", "models -> ../elsewhere", "llmops.yaml -> nowhere"],
)
def test_what_is_in_the_way_is_listed_and_nothing_is_written(tmp_path: Path, blocked: str) -> None:
    project = _here(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    path, _, target = blocked.partition(" -> ")
    there = project.root / path
    there.parent.mkdir(exist_ok=True)
    if target:
        there.symlink_to(target)
    elif path.endswith("/"):
        there.mkdir()
    else:
        there.write_text("mine\n")
    before = sorted(tmp_path.rglob("*"))
    done = project.run("init")
    assert (done.code, done.out) == (1, "")
    said = "models/support-tiny.gguf" if path == "models" else path.rstrip("/")
    assert f"a file is in the way in {project.root}: {said}" in done.err
    assert "nothing was written" in done.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("into", [".", "new/folder"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, into: str) -> None:
    """A limit on the size of a file stops the write of the model in its middle."""
    project = _here(tmp_path)
    (project.root / ".gitignore").write_text("*.pyc\n")
    script = f'ulimit -f 100; exec "{sys.executable}" -m llmctl init {into}'
    done = subprocess.run(
        ["bash", "-c", script], cwd=project.root, env=project.env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "models/support-tiny.gguf cannot be written: file too large\n  = note: Nothing was written." in done.stderr
    assert list(project.root.rglob("*")) == [project.root / ".gitignore"]
    assert (project.root / ".gitignore").read_text() == "*.pyc\n"


def test_a_git_that_fails_leaves_nothing(tmp_path: Path) -> None:
    project = _here(tmp_path)
    shim = tmp_path / "bin/git"
    shim.parent.mkdir()
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    shim.write_text(
        f'#!/bin/sh\ncase "$*" in *init*) mkdir .git; echo "No space left" >&2; exit 128;; esac\nexec {real} "$@"\n'
    )
    shim.chmod(0o755)
    done = project.run("init", env={"PATH": f"{shim.parent}:{project.env['PATH']}"})
    assert (done.code, done.out) == (1, "")
    assert "the disk with the git repository is full" in done.err
    assert list(project.root.iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("/proc/here", "/proc/here cannot be written"),
        ("file/below", "file is a file"),
        ("bare", "is a bare git repository"),
    ],
)
def test_a_folder_that_cannot_hold_a_project(tmp_path: Path, folder: str, said: str) -> None:
    project = _here(tmp_path)
    (project.root / "file").touch()
    project.git("init", "-q", "--bare", "bare")
    done = project.run("init", folder)
    assert (done.code, done.out) == (1, "")
    assert said in done.err


def _as_user() -> list[str]:
    """What makes a command obey permissions when root runs it."""
    command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("root may write everywhere, and setpriv cannot take that away here")
    return command


def test_a_read_only_folder(tmp_path: Path) -> None:
    project = _here(tmp_path)
    project.root.chmod(0o555)
    command = [*_as_user(), sys.executable, "-m", "llmctl", "init"]
    done = subprocess.run(command, cwd=project.root, env=project.env, capture_output=True, text=True, check=False)
    project.root.chmod(0o755)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        f"{project.root}/README.md cannot be written: permission denied\n  = note: Nothing was written." in done.stderr
    )
    assert list(project.root.iterdir()) == []


def test_git_without_an_identity_is_said(tmp_path: Path) -> None:
    project = _here(tmp_path)
    project.env = {k: v for k, v in project.env.items() if not k.startswith(("GIT_AUTHOR", "GIT_COMMITTER"))}
    done = project.run("init")
    assert done.code == 0
    assert "warning: git does not know who you are" in done.err
    assert "git config user.name" in done.err


@given(st.text(max_size=90))
def test_every_folder_gives_a_valid_name(name: str) -> None:
    assert NAME.match(_project(None, Path("/") / name.replace("/", "").replace("\0", "")))


def test_a_wrong_name(tmp_path: Path) -> None:
    shown = CliRunner().invoke(cli, ["init", str(tmp_path / "new"), "--name", "Acme Support"])
    assert "'Acme Support' cannot be a project's name" in str(shown.exception)
    assert not (tmp_path / "new").exists()


def test_the_wheel_has_the_starter(tmp_path: Path) -> None:
    """Built without a network, from a copy: a build leaves files beside its sources."""
    program = "import shutil, sys; from setuptools import build_meta\nprint(build_meta.build_wheel(sys.argv[1]))"
    copy = tmp_path / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (copy / name).write_bytes((REPOSITORY / name).read_bytes())
    (copy / "src").symlink_to(SOURCE)
    built = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=copy, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    shipped = {f"llmctl/starter/{path}" for path in FILES if path != ".gitignore"}
    assert {name for name in names if name.startswith("llmctl/starter/")} == shipped
