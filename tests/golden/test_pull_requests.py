"""The plans of ten typical pull requests, as a reviewer reads them.

``LLMCTL_ACCEPT=1 pytest tests/golden`` rewrites the expected texts; read them before you commit them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from llmctl.cli.views.gist import LINES
from llmctl.cli.views.markdown import render_markdown
from llmctl.cli.views.plan import render_plan
from tests.golden.pull_request import described, plan_of

CASES = sorted(path.parent for path in (Path(__file__).parent / "prs").glob("*/pr.toml"))
COLOR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_a_pull_request_is_told_in_ten_lines(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    description = described(case)
    plan = plan_of(description, tmp_path)
    shown = {"plan.txt": COLOR.sub("", render_plan(plan)) + "\n", "plan.md": render_markdown(plan) + "\n"}
    first = "\n".join(shown["plan.txt"].split("\n")[:LINES])
    comment = shown["plan.md"].partition("<details>")[0]
    for name, text in shown.items():
        expected = case / name
        if os.environ.get("LLMCTL_ACCEPT"):
            expected.write_text(text, encoding="utf-8")
        assert text == expected.read_text(encoding="utf-8")
    for text in description["says"]:
        assert text in first
        assert text in comment


def test_there_are_ten() -> None:
    assert len(CASES) == 10
