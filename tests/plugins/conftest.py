"""The example package, installed for a test; and a project of the test's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.core.plugins import installed
from llmctl.policy.check import understood
from tests.plugins.packages import EXAMPLE_SOURCE, install_example
from tests.plugins.project import PluginProject


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for packages, on the path of this process for one test; the example's code can be imported."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(EXAMPLE_SOURCE))
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    _forget()
    yield folder
    _forget()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


def _forget() -> None:
    installed.cache_clear()
    understood.cache_clear()


@pytest.fixture
def example(site: Path) -> Path:
    """The same with the example installed."""
    return install_example(site)


@pytest.fixture
def project() -> Iterator[PluginProject]:
    """For tests of the command line; what runs is ended with it."""
    made = PluginProject.make()
    try:
        yield made
    finally:
        made.end()
