"""Rows are streamed, and each row that is wrong is named by file and line."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from llmctl.core.errors import InvalidInput
from llmctl.spec import dataset_rows


def _file(tmp_path: Path, data: str | bytes) -> Path:
    path = tmp_path / "rows"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_json_lines_are_read_with_their_line_numbers(tmp_path: Path) -> None:
    path = _file(tmp_path, '\ufeff{"a": 1}\r\n\n{"a": null, "b": ["é"]}')
    assert list(dataset_rows(path, "jsonl")) == [(1, {"a": 1}), (3, {"a": None, "b": ["é"]})]


def test_csv_is_read_with_the_line_a_row_starts_on(tmp_path: Path) -> None:
    path = _file(tmp_path, 'a,b\n"x\ny",1\n\n"say ""hi""",é\n')
    assert list(dataset_rows(path, "csv")) == [(2, {"a": "x\ny", "b": "1"}), (5, {"a": 'say "hi"', "b": "é"})]


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    path = _file(tmp_path, '{"a": 1}\nnot json\n')
    rows = dataset_rows(path, "jsonl")
    assert next(rows) == (1, {"a": 1})
    with pytest.raises(InvalidInput):
        next(rows)


@pytest.mark.parametrize(
    ("format", "data", "line", "what"),
    [
        ("jsonl", b'{"a": 1}\n[1]\n', 2, "not a JSON object"),
        ("jsonl", b'{"a": 1}\n\n"x"\n', 3, "not a JSON object"),
        ("jsonl", b'{"a": CANARY}\n', 1, "not JSON"),
        ("jsonl", b'{"a": NaN}\n', 1, "not finite"),
        ("jsonl", b'{"a": "\xff"}\n', 1, "not UTF-8"),
        ("jsonl", b'{"a": ' + b"[" * 100_000 + b"\n", 1, "nests too deep"),
        ("csv", b"", 1, "no header"),
        ("csv", b"a,a\n", 1, "twice"),
        ("csv", b"a,\n", 1, "without a name"),
        ("csv", b"a,b\n1,2\n1,2,CANARY\n", 3, "3 of 2 values"),
        ("csv", b'a,b\n1,"x"y\n', 2, "not CSV"),
        ("csv", b"a,b\n1,\xff\n", 1, "not UTF-8"),
    ],
)
def test_a_wrong_row_is_named_and_not_repeated(tmp_path: Path, format: str, data: bytes, line: int, what: str) -> None:
    path = _file(tmp_path, data)
    with pytest.raises(InvalidInput, match=what) as caught:
        list(dataset_rows(path, format))
    (finding,) = caught.value.findings
    assert finding.where is not None
    assert (finding.where.file, finding.where.line) == (str(path), line)
    assert "CANARY" not in repr(finding)


def test_a_missing_file_is_invalid_input(tmp_path: Path) -> None:
    for format in ("jsonl", "csv"):
        with pytest.raises(InvalidInput, match="cannot be read"):
            list(dataset_rows(tmp_path / "none", format))


def test_another_format_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="parquet"):
        dataset_rows(tmp_path / "x", "parquet")


def test_a_file_is_closed_when_reading_stops_early(tmp_path: Path) -> None:
    path = _file(tmp_path, '{"a": 1}\n' * 1000)
    rows = dataset_rows(path, "jsonl")
    assert len(list(islice(rows, 3))) == 3
    del rows  # a file left open would warn, and warnings are errors
