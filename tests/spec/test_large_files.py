"""What is remembered of large files between commands: the same answers without reading, and never a stale one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmctl.core import files as core_files
from llmctl.core.resources import Desired
from llmctl.core.watch import WATCH
from llmctl.spec import datasets, files, large_files, rows
from tests.spec.project import make_project, resolved


@pytest.fixture(autouse=True)
def small_files_count_as_large_and_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_files, "LARGE", 0)
    monkeypatch.setattr(core_files, "_SETTLED_NS", 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / ".llmctl").mkdir()
    return make_project(tmp_path)


def _desired(file: Path) -> Desired:
    return resolved(file).desired


def _kept(file: Path) -> Path:
    return file.parent / ".llmctl" / ".cache" / "large-files.json"


def _forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise AssertionError("a file was read again")

    monkeypatch.setattr(files, "digest_file", refuse)
    monkeypatch.setattr(datasets, "survey", refuse)
    monkeypatch.setattr(rows, "_shared", refuse)


def test_what_did_not_change_is_not_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _desired(file)
    _forbid_reading(monkeypatch)
    assert _desired(file) == first


def test_a_changed_file_is_read_again_though_its_size_and_time_are_as_before(file: Path) -> None:
    path = file.parent / "data/eval.jsonl"
    first, before = _desired(file), path.stat()
    text = path.read_text()
    path.write_text(text.replace("A3.", "B3."))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    changed = [a for a, r in _desired(file).resources.items() if r.revision != first.resources[a].revision]
    assert "dataset.eval" in map(str, changed)


@pytest.mark.parametrize(
    "how", ["[]", "{}", "not JSON", '{"by": "0", "files": {}}', "[" * 100_000, "a list", "entries", "findings"]
)
def test_a_damaged_memory_is_as_good_as_none(file: Path, how: str) -> None:
    first = _desired(file)
    content = json.loads(_kept(file).read_text())
    if how == "a list":
        content["files"] = []
    if how == "entries":
        content["files"] = dict.fromkeys(content["files"], 7)
    for entry in content["files"].values() if how == "findings" else ():
        entry["found"] = {what: [7] for what in entry["found"] if what != "'digest'"}
    _kept(file).write_text(json.dumps(content) if how in ("a list", "entries", "findings") else how)
    assert _desired(file) == first


def test_nothing_is_remembered_before_there_is_a_folder_of_ours(tmp_path: Path) -> None:
    file = make_project(tmp_path)
    _desired(file)
    assert not (tmp_path / ".llmctl").exists()


def test_a_file_that_was_just_written_is_not_remembered(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_files, "_SETTLED_NS", 3_600_000_000_000)
    _desired(file)
    assert not _kept(file).exists()


def test_who_watches_is_told_of_what_is_read_and_not_of_what_is_remembered(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    told: list[tuple[str, int]] = []

    @contextmanager
    def watch(name: str, size: int) -> Iterator[None]:
        told.append((name, size))
        yield

    before = WATCH.set(watch)
    try:
        _desired(file)
        assert ("data/eval.jsonl", (file.parent / "data/eval.jsonl").stat().st_size) in told
        told.clear()
        _desired(file)
        assert told == []
        monkeypatch.setattr(large_files, "LARGE", 8 << 20)
        _kept(file).unlink()
        _desired(file)
        assert told == []
    finally:
        WATCH.reset(before)
