"""Files of an earlier commit, without touching the work tree."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from llmctl.core.errors import InvalidInput
from llmctl.record import Repository, open_repository
from llmctl.record.source import source_at
from tests.record.helpers import git


def test_files_as_they_were(repository: Repository, folder: Path) -> None:
    (folder / "app" / "parts").mkdir(parents=True)
    (folder / "app" / "llmops.yaml").write_text("old: 1\n")
    (folder / "app" / "parts" / "a b.yaml").write_text("part: 1\n")
    (folder / "app" / "weights.gguf").write_bytes(b"\0" * 10)
    (folder / "other.yaml").write_text("not: mine\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "old")
    git(folder, "tag", "v1")
    (folder / "app" / "llmops.yaml").write_text("new: 1\n")
    found = source_at(repository, "v1", folder / "app")
    weights = {"weights.gguf": b"\0" * 10}
    assert dict(found) == {"llmops.yaml": b"old: 1\n", "parts/a b.yaml": b"part: 1\n", **weights}
    assert "other.yaml" not in found
    assert set(source_at(repository, "HEAD", folder)) >= {"other.yaml", "app/llmops.yaml"}
    assert (folder / "app" / "llmops.yaml").read_text() == "new: 1\n"


@pytest.mark.parametrize("name", ["nowhere", "--all", "", "HEAD~99"])
def test_a_revision_that_is_not_there(repository: Repository, folder: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="there is no commit"):
        source_at(repository, name, folder)


def test_a_shallow_clone_says_what_to_fetch(folder: Path, tmp_path: Path) -> None:
    git(folder, "commit", "-q", "--allow-empty", "-m", "one more")
    clone = tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{folder}", str(clone)], check=True)
    with pytest.raises(InvalidInput) as caught:
        source_at(open_repository(clone), "HEAD~1", clone)
    assert "shallow" in caught.value.findings[0].hint
