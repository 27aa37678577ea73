"""Files that the file refers to: where they may lie, and what GGUF headers say."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from llmctl.spec import gguf as our_gguf
from llmctl.spec.files import FileRefused, Files
from llmctl.spec.gguf import GgufError, read_header
from tests.spec.tiny_gguf import tiny_gguf

EXAMPLES = Path(__file__).parents[2] / "examples" / "models"


def test_a_link_may_stay_inside_but_not_leave(tmp_path: Path) -> None:
    root, outside = tmp_path / "project", tmp_path / "secret"
    root.mkdir()
    outside.mkdir()
    (outside / "file").write_text("x")
    (root / "file").write_text("y")
    (root / "inside").symlink_to("file")
    (root / "leaves").symlink_to(outside / "file")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    files = Files(root)
    assert files.find("inside") == (root / "file").resolve()
    assert files.facts("file").bytes == 1
    for wrong, what in (
        ("leaves", "is a link that leaves"),
        ("folder/file", "is a link that leaves"),
        ("a/../../secret/file", "leaves the project's folder"),
        ("..", "leaves the project's folder"),
        ("loop", "cannot be read"),
        ("pipe", "is not a regular file"),
        (".", "is a folder"),
        ("~/x", "is not a relative path"),
        ("a\0b", "is not a relative path"),
        ("C:\\x", "is not a relative path"),
        ("x" * 5000, "cannot be read"),
        ("file/below", "cannot be read"),
    ):
        with pytest.raises(FileRefused, match=what):
            files.find(wrong)


def test_a_project_folder_that_is_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "link").symlink_to("real")
    assert Files(tmp_path / "link").find("file").read_text() == "x"


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_header_says_what_the_file_is(tmp_path: Path) -> None:
    model = read_header(_write(tmp_path / "m", tiny_gguf(context=512)))
    assert (model.architecture, model.is_adapter, model.context, model.tensors) == ("llama", False, 512, 2)
    assert read_header(_write(tmp_path / "v2", tiny_gguf(version=2))) == read_header(
        _write(tmp_path / "v3", tiny_gguf())
    )
    assert read_header(_write(tmp_path / "a", tiny_gguf(adapter=True))).is_adapter
    assert read_header(_write(tmp_path / "s", tiny_gguf(extra={"split.count": 2}))).splits == 2


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    whole = tiny_gguf()
    needed = len(whole)
    assert read_header(_write(tmp_path / "m", whole))
    for length in range(needed):
        with pytest.raises(GgufError):
            read_header(_write(tmp_path / "m", whole[:length]))


def test_corrupt_bytes_never_do_worse_than_an_error(tmp_path: Path) -> None:
    whole = tiny_gguf()
    refused = 0
    for at in range(4, 300):
        for value in (0, 0x7F, 0xFF):
            path = _write(tmp_path / "m", whole[:at] + bytes([value]) + whole[at + 1 :])
            try:
                read_header(path)
            except GgufError:
                refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "it is empty"),
        (b"GGUF", "cut off"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "holds no tensors"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1), "byte order of another machine"),
        (tiny_gguf(architecture=None), "does not say the architecture"),
        (tiny_gguf(extra={"general.alignment": 0}), "general.alignment"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, data: bytes, what: str) -> None:
    with pytest.raises(GgufError, match=what):
        read_header(_write(tmp_path / "m", data))


def test_real_files_are_whole() -> None:
    assert not read_header(EXAMPLES / "support-tiny.gguf").is_adapter
    assert read_header(EXAMPLES / "tone-lora.gguf").is_adapter


def test_the_last_missing_byte_of_a_real_file_is_noticed(tmp_path: Path) -> None:
    data = (EXAMPLES / "support-tiny.gguf").read_bytes()
    with pytest.raises(GgufError, match="cut off"):
        read_header(_write(tmp_path / "m", data[: -(32 + 1)]))


def test_the_sizes_of_tensors_are_those_of_ggml() -> None:
    constants = pytest.importorskip("gguf.constants")
    known = {int(kind): size for kind, size in constants.GGML_QUANT_SIZES.items()}
    assert len(our_gguf._BLOCKS) > 25
    assert {kind: known[kind] for kind in our_gguf._BLOCKS if kind in known} == {
        kind: size for kind, size in our_gguf._BLOCKS.items() if kind in known
    }
