"""Whatever a file holds: a result, or ``InvalidInput`` with a place and an explanation. Never anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmctl.core.diagnostics import Diagnostic, SourceRange, render_plain
from llmctl.core.digests import Json
from llmctl.core.errors import InvalidInput
from llmctl.spec import dataset_rows, load, resolve
from tests.spec.project import GOOD, make_project

FAST = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
LINES = GOOD.splitlines()
PIECES = st.sampled_from(
    [
        *("", "null", "~", "[]", "{}", "{", "]", "'", '"', "-", "- x", ": x", "\t", "&a", "*a", "!!int x", "<<: {}"),
        *("{{ x }}", '"{% for %}"', "${", "${env:HOME}", "${env:NOPE}", "${file:x}", "1e999", "-1", "0", ".nan"),
        *("true", "x: y", "|", ">", "---", "...", "é", "\x00", "\x85", "\ufeff", "../..", "/", "s3:x", "a" * 300),
        *('"\\0"', "openai:", "openai:x", "[[]]", "{a: {b: c}}", "# x", "%YAML 1.1", "? x", "vllm", "aws"),
    ]
)


def _only_explains(path: Path) -> None:
    findings = _findings(path)
    assert findings != []
    for finding in findings or ():
        assert finding.summary
        assert finding.where is not None
        assert finding.where.line >= 1
        assert finding.where.column >= 1
        assert render_plain(finding).startswith(("error: ", "warning: "))


def _findings(path: Path) -> list[Diagnostic] | None:
    """What is wrong with the file, or ``None``."""
    try:
        document = load(path)
        for environment in document.environments:
            resolve(document, environment)
    except InvalidInput as error:
        return error.diagnostics()
    return None


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("fuzz"))


@FAST
@given(data=st.binary(max_size=200))
def test_random_bytes(project: Path, data: bytes) -> None:
    project.write_bytes(data)
    _only_explains(project)


@FAST
@given(text=st.text(alphabet="abk: -[]{},&*!|>'\"%@`#?\n\t\\0159.~<${}é\x85", max_size=80))
def test_random_yaml(project: Path, text: str) -> None:
    project.write_text(text)
    _only_explains(project)


@FAST
@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(LINES) - 1), st.sampled_from(["value", "key", "line", "drop", "twice"]), PIECES),
        min_size=1,
        max_size=4,
    )
)
def test_edited_files(project: Path, edits: list[tuple[int, str, str]]) -> None:
    lines = list(LINES)
    for index, how, piece in edits:
        indent = lines[index][: len(lines[index]) - len(lines[index].lstrip())]
        key, colon, value = lines[index].partition(": ")
        if how == "value":
            lines[index] = f"{key}: {piece}" if colon else lines[index] + piece
        elif how == "key":
            lines[index] = f"{indent}{piece}: {value}"
        elif how == "line":
            lines[index] = indent + piece
        elif how == "drop":
            lines[index] = ""
        else:
            lines[index] = lines[index] + "\n" + lines[index]
    project.write_bytes("\n".join(lines).encode())
    _only_explains(project)


@FAST
@given(index=st.integers(0, len(GOOD) - 1), length=st.integers(0, 30), piece=PIECES)
def test_files_with_a_piece_replaced(project: Path, index: int, length: int, piece: str) -> None:
    project.write_bytes((GOOD[:index] + piece + GOOD[index + length :]).encode())
    _only_explains(project)


@FAST
@given(content=st.text(alphabet="{}%#| xq.()[]'\"=+*1,-:if~", max_size=40))
def test_random_templates(project: Path, content: str) -> None:
    quoted = '"' + content.replace("\\", "\\\\").replace('"', '\\"') + '"'
    project.write_text(GOOD.replace('"{{ question }}"', quoted))
    _only_explains(project)


@FAST
@given(data=st.binary(max_size=120), format=st.sampled_from(["jsonl", "csv"]))
def test_random_rows(project: Path, data: bytes, format: str) -> None:
    path = project.parent / "data" / "random"
    path.write_bytes(data)
    rows: list[tuple[int, dict[str, Json]]] = []
    places: list[SourceRange | None] = []
    try:
        rows += dataset_rows(path, format)
    except InvalidInput as error:
        places = [finding.where for finding in error.findings]
    assert all(line >= 1 and isinstance(row, dict) for line, row in rows)
    assert all(place is not None and place.line >= 1 for place in places)
