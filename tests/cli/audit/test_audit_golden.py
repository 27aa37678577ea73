"""What an auditor reads, word for word.

``LLMCTL_ACCEPT=1 pytest tests/cli/audit`` rewrites the expected texts; read them before you commit them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.cli.audit.conftest import Ask

ACCEPT = bool(os.environ.get("LLMCTL_ACCEPT"))  # `ask` takes the variable away
GOLDEN = Path(__file__).parents[2] / "golden" / "audit"
LINES = {
    "log": "log --all",
    "show-first": "show 1",
    "show-failed": "show 5",
    "show-inconclusive": "show 6",
    "show-rollback": "show 8",
    "show-unreject": "show 9",
    "show-interrupted": "show 11",
    "show-rename": "show 14",
    "show-break-glass": "show 17",
    "show-reconciling": "show 19",
    "show-promoted": "show 21",
    "show-restored": "show 23",
    "show-hostile": "show 25",
    "show-open": "show 28",
    "diff": "diff 7 16",
    "diff-back": "diff 16 12",
    "diff-same": "diff 22 23",
    "blame": "blame prompt.answer",
    "blame-renamed": "blame dataset.price-list",
    "blame-old-name": "blame dataset.prices",
}


@pytest.mark.parametrize("name", LINES)
def test_what_is_said(ask: Ask, name: str) -> None:
    done = ask(*LINES[name].split())
    assert (done.code, done.err) == (0, "")
    # Keys are made anew each time, so commits differ; digests may with the version of scipy.
    said = re.sub(r"\b[0-9a-f]{40}\b", "<commit>", done.out)
    said = re.sub(r"^  [0-9a-f]{10}  ", "  <commit>  ", said, flags=re.MULTILINE)
    said = re.sub(r"evidence sha256:[0-9a-f]{64}", "evidence <digest>", said)
    said = re.sub(r"SHA256:[\w+/]{43}", "<key>", said)
    expected = GOLDEN / f"{name}.txt"
    if ACCEPT:
        GOLDEN.mkdir(exist_ok=True)
        expected.write_text(said, encoding="utf-8")
    assert said == expected.read_text(encoding="utf-8")


def test_there_is_no_other_text() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(LINES)
