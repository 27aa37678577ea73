"""One record with everything in it, and the commands that ask it."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmctl.cli import main
from tests.record.story import populate
from tests.results import Result

ENTRIES = 28
Ask = Callable[..., Result]


@pytest.fixture(scope="session")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose record no test changes."""
    folder = tmp_path_factory.mktemp("population") / "acme"
    assert populate(folder, ENTRIES).serial == ENTRIES
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Ask]:
    """``llmctl audit …`` in this process, in a folder."""
    for name in [n for n in os.environ if n.startswith(("LLMCTL_", "GIT_")) or n == "NO_COLOR"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    threshold = gc.get_threshold()

    def asked(folder: Path, *arguments: str) -> Result:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["llmctl", "audit", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        sys.stdout.flush()
        out, err = (part.decode() for part in capfdbinary.readouterr())
        assert "Traceback" not in out + err, err
        assert "internal error" not in out + err, err
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, out, err)

    yield asked
    gc.set_threshold(*threshold)
    gc.unfreeze()


@pytest.fixture
def ask(acme: Path, run: Ask) -> Ask:
    """``llmctl audit …`` of the record with everything in it."""
    return lambda *arguments: run(acme, *arguments)
