"""Linked work trees share the record and not `.llmctl/`: what runs in another one is told before it is there twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from llmctl.record.git import GitCommand
from tests.cli.conftest import InProcess, end
from tests.cli.project import Project

pytestmark = pytest.mark.e2e


def test_an_environment_that_runs_in_another_work_tree_is_told(
    project: Project, here: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.run("apply", "--yes").code == 0
    linked = Project(tmp_path / "linked", project.env)
    project.git("worktree", "add", "-q", "--detach", str(linked.root))
    assert here("plan", "--json").json()["warnings"] == []
    assert here("status", "--json").json()["elsewhere"] == ""
    monkeypatch.chdir(linked.root)
    (warning,) = here("plan", "--json").json()["warnings"]
    assert warning["severity"] == "warning"
    assert warning["summary"] == f"dev runs in {project.root}, another work tree of this repository"
    assert f"Work in {project.root}, or" in warning["hint"]
    assert f"! dev runs in {project.root}, another" in here("status").out
    assert here("plan", "--json", "--offline").json()["warnings"] == []
    assert project.run("local", "stop").code == 0
    (warning,) = here("plan", "--json").json()["warnings"]
    assert warning["summary"].startswith(f"dev was applied in {project.root}, ")


def test_both_are_told_of_each_other_where_it_runs_twice(project: Project, tmp_path: Path) -> None:
    assert project.run("apply", "--yes").code == 0
    linked = Project(tmp_path / "linked", project.env)
    project.git("worktree", "add", "-q", "--detach", str(linked.root))
    try:
        done = linked.run("apply", "--yes")
        assert (done.code, f"dev runs in {project.root}, another" in done.text) == (0, True), done.text
        for one, other in ((project, linked), (linked, project)):
            assert f"dev runs in {other.root}, another" in one.run("plan").text
    finally:
        end(linked)


def test_git_is_not_asked_where_there_is_one_work_tree_and_a_lost_one_is_no_matter(
    project: Project, here: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = GitCommand.run

    def run(self: GitCommand, *arguments: str, **more: object) -> bytes:
        asked.append(arguments[0])
        return real(self, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(GitCommand, "run", run)
    assert here("plan", "--json").json()["warnings"] == []
    assert "worktree" not in asked
    project.git("worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    shutil.rmtree(tmp_path / "linked")
    assert here("plan", "--json").json()["warnings"] == []
    assert "worktree" in asked
