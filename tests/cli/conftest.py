"""Projects for the tests of the command line."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmctl.cli import main
from tests import canary
from tests.cli.project import Project, make
from tests.results import Result

InProcess = Callable[..., Result]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A fresh project that no test changes."""
    folder = tmp_path_factory.mktemp("template")
    return make(folder / "project", folder / "home")


@pytest.fixture
def project(template: Project, tmp_path: Path) -> Iterator[Project]:
    """A fresh project; what a test leaves running is ended."""
    root = tmp_path / "project"
    shutil.copytree(template.root, root, symlinks=True)
    mine = Project(root, dict(template.env))
    yield mine
    end(mine)
    canary.nowhere(mine.root, mine.env)


@pytest.fixture(scope="module")
def applied(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project that is applied and serves; tests that share it put it back as it was."""
    root = tmp_path_factory.mktemp("applied") / "project"
    shutil.copytree(template.root, root, symlinks=True)
    mine = Project(root, dict(template.env))
    done = mine.run("apply", "--yes")
    assert done.code == 0, done.text
    yield mine
    canary.nowhere(mine.root, mine.env)
    end(mine)


def end(project: Project) -> None:
    """Take away what runs; whatever the test did to the file, the one that was committed is good."""
    if not (project.root / ".llmctl").exists():
        return
    project.git("checkout", "-q", "--", ".")
    done = project.run("destroy", "--yes")
    assert done.code == 0, done.text
    assert project.processes() == []


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[InProcess]:
    """Runs a command of ``project`` in this process: the same entry point, without the start of an interpreter."""
    monkeypatch.chdir(project.root)
    for name in [n for n in os.environ if n.startswith(("LLMCTL_", "GIT_")) or n == "NO_COLOR"]:
        monkeypatch.delenv(name)
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    threshold = gc.get_threshold()

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["llmctl", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err, err
        assert "internal error" not in out + err, err
        canary.after_command(project.root, out, err)
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, out, err)

    yield run
    gc.set_threshold(*threshold)
    gc.unfreeze()
