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
from tests.spec.project import FULL, GOOD, make_project

FAST = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
LINES = FULL.splitlines()
PART = """\
prompts:
  short:
    protect: true
    messages:
      - {role: system, content: Be brief.}
policies:
  more:
    applies_to: route
    require: resource.rollout.hold_s > 1.0
    waivers:
      - {resource: route.support, until: 2999-01-01, reason: later, approved_by: me}
moved:
  - {from: prompt.brief, to: prompt.short}
""".splitlines()
PIECES = st.sampled_from(
    [
        *("", "null", "~", "[]", "{}", "{", "]", "'", '"', "-", "- x", ": x", "\t", "&a", "*a", "!!int x", "<<: {}"),
        *("{{ x }}", '"{% for %}"', "${", "${env:HOME}", "${env:NOPE}", "${file:x}", "1e999", "-1", "0", ".nan"),
        *("true", "x: y", "|", ">", "---", "...", "é", "\x00", "\x85", "\ufeff", "../..", "/", "s3:x", "a" * 300),
        *('"\\0"', "openai:", "openai:x", "[[]]", "{a: {b: c}}", "# x", "%YAML 1.1", "? x", "vllm", "aws"),
        *("${file:texts/help.txt}", "${file:texts/binary.txt}", "${file:../x}", "30s", "1.5h", "9999h", "2020-02-30"),
        *("route.help", "prompt.answer", "plan", "schemas/remote.json", "parts/*.yaml", "parts/typo.yaml", "[100, 10]"),
        *("(", "{$ref: '#/x'}", "{$schema: 'http://[', type: x}", "{enum: [null]}", "prod", "{min: 3, max: 3}"),
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
    return make_project(tmp_path_factory.mktemp("fuzz"), FULL)


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


def _edits(count: int) -> st.SearchStrategy[list[tuple[int, str, str]]]:
    hows = st.sampled_from(["value", "key", "line", "drop", "twice"])
    return st.lists(st.tuples(st.integers(0, count - 1), hows, PIECES), min_size=1, max_size=4)


def _edited(lines: list[str], edits: list[tuple[int, str, str]]) -> list[str]:
    lines = list(lines)
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
    return lines


@FAST
@given(edits=_edits(len(LINES)))
def test_edited_files(project: Path, edits: list[tuple[int, str, str]]) -> None:
    project.write_bytes("\n".join(_edited(LINES, edits)).encode())
    _only_explains(project)


@FAST
@given(edits=_edits(len(PART)))
def test_edited_included_files(project: Path, edits: list[tuple[int, str, str]]) -> None:
    project.write_text(FULL)
    part = project.parent / "parts" / "prompts.yaml"
    before = part.read_text()
    part.write_bytes("\n".join(_edited(PART, edits)).encode())
    try:
        _only_explains(project)
    finally:
        part.write_text(before)


@FAST
@given(index=st.integers(0, len(FULL) - 1), length=st.integers(0, 30), piece=PIECES)
def test_files_with_a_piece_replaced(project: Path, index: int, length: int, piece: str) -> None:
    project.write_bytes((FULL[:index] + piece + FULL[index + length :]).encode())
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
