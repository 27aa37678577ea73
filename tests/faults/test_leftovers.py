"""What a command that was killed left half written is taken away, and what another one writes just now is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmctl.core.files import sweep, temporary, write_atomic
from tests.e2e.project import SOURCE
from tests.faults.trial import leftovers

_WRITES_AND_DIES = """
import os, signal, sys
from pathlib import Path
from llmctl.core.files import temporary
with temporary(Path(sys.argv[1])) as (file, name):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WRITES_AND_DIES, str(tmp_path)], env={"PYTHONPATH": str(SOURCE)}, check=False
    )
    assert done.returncode == -9
    left = list(tmp_path.iterdir())
    assert [path.read_bytes() for path in left] == [b"half"]
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_being_written_is_not_swept(tmp_path: Path) -> None:
    with temporary(tmp_path) as (file, name):
        file.write(b"whole")
        file.flush()
        sweep(tmp_path)
        os.replace(name, tmp_path / "here")
    assert (tmp_path / "here").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), temporary(tmp_path):
        raise RuntimeError
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomic(tmp_path / "folder", b"it is a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_is_no_file_does_not_hold_it_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".tmp-pipe")
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    (tmp_path / ".tmp-link").symlink_to(outside)
    (tmp_path / ".tmp-folder").mkdir()
    sweep(tmp_path)
    sweep(tmp_path / "not there")
    assert outside.read_bytes() == b"mine"
    assert (tmp_path / ".tmp-folder").is_dir()


def test_leftovers_are_named(tmp_path: Path) -> None:
    assert list(leftovers(tmp_path)) == []
    for name in (".llmctl/dev/endpoints/.tmp-1", ".git/llmctl/dev/attempt-3.jsonl", ".git/refs/heads/main.lock"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert sorted(leftovers(tmp_path)) == [
        "left: .git/llmctl/dev/attempt-3.jsonl",
        "left: .git/refs/heads/main.lock",
        "left: .llmctl/dev/endpoints/.tmp-1",
    ]
