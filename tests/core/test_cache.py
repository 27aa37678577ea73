"""The cache is kept in a folder of ours, and never where a link in its place points."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.core.cache import CacheFile


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "a.json").write_bytes(b"of somebody else")
    return folder


def test_a_cache_that_is_a_link_is_none(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / ".llmctl").mkdir()
    (tmp_path / ".llmctl/.cache").symlink_to(elsewhere)
    file = CacheFile(tmp_path, "a.json")
    assert file.read() == b""
    file.keep(b"ours")
    CacheFile(tmp_path, "b.json").keep(b"ours")
    file.forget()
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == {"a.json": b"of somebody else"}


def test_a_link_to_nowhere_stays_one(tmp_path: Path) -> None:
    (tmp_path / ".llmctl").mkdir()
    (tmp_path / ".llmctl/.cache").symlink_to(tmp_path / "nowhere")
    CacheFile(tmp_path, "a.json").keep(b"ours")
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_is_a_link_is_not_read_and_is_replaced(tmp_path: Path, elsewhere: Path) -> None:
    folder = tmp_path / ".llmctl/.cache"
    folder.mkdir(parents=True)
    (folder / "a.json").symlink_to(elsewhere / "a.json")
    file = CacheFile(tmp_path, "a.json")
    assert file.read() == b""
    file.keep(b"ours")
    assert (file.read(), (elsewhere / "a.json").read_bytes()) == (b"ours", b"of somebody else")


def test_a_folder_of_ours_on_another_disk_is_used(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / ".llmctl").symlink_to(elsewhere)
    file = CacheFile(tmp_path, "a.json")
    file.keep(b"ours")
    assert (file.read(), (elsewhere / ".cache/a.json").read_bytes()) == (b"ours", b"ours")
    file.forget()
    assert file.read() == b""
