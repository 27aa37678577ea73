"""What a user reads for every kind of mistake, word for word.

``LLMCTL_ACCEPT=1 pytest tests/spec`` rewrites the expected texts.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.spec.project import make_project, rendered

BAD = Path(__file__).parent / "bad"
CASES = sorted(BAD.glob("*.yaml"), key=lambda path: path.name)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMCTL_TEST_UNSET", raising=False)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_every_mistake_is_explained(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = make_project(tmp_path, case.read_text())
    (tmp_path / "data" / "folder.jsonl").mkdir()
    text = rendered(path)
    expected = case.with_suffix(".txt")
    if os.environ.get("LLMCTL_ACCEPT"):
        expected.write_text(text)
    assert text == expected.read_text()


def test_there_are_cases_and_each_expects_something() -> None:
    assert len(CASES) > 50
    assert {path.stem for path in BAD.glob("*.txt")} == {path.stem for path in CASES}
    assert all(path.with_suffix(".txt").read_text().startswith(("error: ", "warning: ")) for path in CASES)


def test_no_secret_is_in_any_expected_text() -> None:
    written = [path for path in CASES if "CANARY" in path.read_text()]
    assert len(written) >= 4
    assert all("CANARY" not in path.with_suffix(".txt").read_text() for path in CASES)
