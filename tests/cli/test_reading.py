"""A large file that takes long to read is told on a terminal, and after the first apply it is not read again."""

from __future__ import annotations

import gc
import io
import json
import os
import sys
import time
from contextvars import copy_context

import pytest

from llmctl.cli import main
from llmctl.cli.views import reading
from llmctl.core.watch import WATCH
from tests.cli.project import DEADLINE_S, Project


class Terminal(io.StringIO):
    """What was written to a terminal."""

    def isatty(self) -> bool:
        return True


def test_it_is_said_after_a_moment_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(reading, "AFTER_S", 0.01)
    said = "reading data/big.jsonl (355 MB) …"
    until = time.monotonic() + DEADLINE_S
    with reading.told("data/big.jsonl", 355_123_456):
        while screen.getvalue() != said and time.monotonic() < until:
            time.sleep(0.01)
    assert screen.getvalue() == f"{said}\r{' ' * len(said)}\r"


def test_what_is_read_at_once_is_not_worth_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(reading, "AFTER_S", DEADLINE_S)
    with pytest.raises(OSError, match="no more"), reading.told("data/big.jsonl", 1):
        raise OSError("no more")
    assert screen.getvalue() == ""


@pytest.mark.parametrize("screen", [Terminal(), io.StringIO()])
def test_only_a_terminal_is_told(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "argv", ["llmctl", "--version"])
    context, threshold = copy_context(), gc.get_threshold()
    with pytest.raises(SystemExit):
        context.run(main)
    gc.set_threshold(*threshold)
    gc.unfreeze()
    assert (context.get(WATCH) is reading.told) == screen.isatty()


@pytest.mark.e2e
def test_the_plan_after_the_first_apply_reads_nothing_again(project: Project) -> None:
    big = project.root / "data" / "big.jsonl"
    big.write_bytes(b'{"text": "%s"}\n' % (b"x" * 1000) * 9000)
    project.replace("datasets:\n", "datasets:\n  big: {source: data/big.jsonl}\n")
    _wait_until_settled(big)
    assert project.run("apply", "--yes").code == 0
    cache = project.root / ".llmctl/.cache"
    kept = json.loads((cache / "large-files.json").read_text())
    assert list(kept["files"]) == [str(big)]
    assert (cache / "resolved.json").is_file()


def _wait_until_settled(big: os.PathLike[str]) -> None:
    """A file that was changed in the last two seconds is not remembered."""
    written = os.stat(big).st_ctime
    while time.time() < written + 2.5:
        time.sleep(0.1)
