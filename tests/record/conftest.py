from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.record import Repository, open_repository
from tests.record.helpers import ENV, git, make_repository
from tests.record.remotes import clone, make_remote
from tests.record.signed_record import Case, make_case


@pytest.fixture(autouse=True)
def _own_git_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's git settings and identity do not reach the tests."""
    _alone(monkeypatch, tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "project")


@pytest.fixture
def repository(folder: Path) -> Repository:
    return open_repository(folder)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    return make_remote(tmp_path)


@pytest.fixture
def ann(bare: Path) -> Repository:
    return clone(bare, "ann")


@pytest.fixture
def bob(bare: Path) -> Repository:
    return clone(bare, "bob")


@pytest.fixture(scope="session")
def _signed_record(tmp_path_factory: pytest.TempPathFactory) -> Case:
    with pytest.MonkeyPatch.context() as patch:
        _alone(patch, tmp_path_factory.getbasetemp())
        return make_case(tmp_path_factory.mktemp("tampering"))


@pytest.fixture
def case(_signed_record: Case, tmp_path: Path) -> Case:
    """The record in a plain clone, as the one has who tampers with it."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--no-local", str(_signed_record.folder), str(clone))
    git(clone, "branch", "-q", f"llmctl/{ENV}", f"origin/llmctl/{ENV}")
    git(clone, "remote", "remove", "origin")
    git(clone, "config", "user.name", "Mallory")
    git(clone, "config", "user.email", "mallory@example.org")
    return replace(_signed_record, folder=clone)


def _alone(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setenv("GIT_CONFIG_GLOBAL", str(folder / "no-gitconfig"))
    patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("EMAIL", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        patch.delenv(name, raising=False)
