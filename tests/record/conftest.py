from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.record import Repository, open_repository
from tests.record.helpers import make_repository
from tests.record.remotes import clone, make_remote


@pytest.fixture(autouse=True)
def _own_git_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's git settings and identity do not reach the tests."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "no-gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("EMAIL", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name, raising=False)


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
