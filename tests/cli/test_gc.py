"""``llmctl gc`` as a person and as a program use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.cli.views.gc import size
from tests.cli.project import Project
from tests.terminal import on_terminal

pytestmark = pytest.mark.e2e
JUNK = "b" * 64


@pytest.fixture
def littered(applied: Project) -> Iterator[tuple[Project, Path]]:
    """The applied project with content in its store that nothing names."""
    path = applied.root / ".llmctl" / "dev" / "artifacts" / JUNK[:2] / f"{JUNK}.4"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"junk")
    yield applied, path
    path.unlink(missing_ok=True)


def test_it_shows_first_then_asks_then_says_what_it_freed(littered: tuple[Project, Path]) -> None:
    project, path = littered
    before = project.git("rev-parse", "llmctl/dev")
    shown = project.run("gc", "--dry-run")
    assert shown.out.splitlines()[1:] == ["  1 artifact, 4 B", f"    sha256:{JUNK[:52]}…  4 B"]
    no = on_terminal(project.root, project.env, "gc", answer=b"n\n")
    assert (no[0], "Nothing was cleared away." in no[1], path.exists()) == (0, True, True), no[1]
    assert project.git("rev-parse", "llmctl/dev") == before
    yes = on_terminal(project.root, project.env, "gc", answer=b"y\n")
    assert (yes[0], "Freed 4 B; recorded as serial" in yes[1], path.exists()) == (0, True, False), yes[1]
    (entry,) = project.run("audit", "log", "--json", "-n", "1").json()["entries"]
    assert (entry["action"], entry["subject"]) == ("gc", "gc: cleared away 1 file")
    assert "Nothing to clear away in dev" in project.run("gc", "--yes").out
    assert project.run("audit", "verify").code == 0


def test_json(littered: tuple[Project, Path]) -> None:
    project, path = littered
    asked = project.run("gc", "--json")
    assert (asked.code, asked.json()["errors"][0]["summary"]) == (1, "--json does not ask")
    looked = project.run("gc", "--json", "--dry-run").json()
    assert looked == {
        "format": 1,
        "environment": "dev",
        "keep": 10,
        "serial": 0,
        "bytes": 4,
        "leftovers": [{"what": "artifact", "name": f"sha256:{JUNK}", "bytes": 4}],
        "evidence": [],
        "note": "",
    }
    done = project.run("gc", "--json", "--yes").json()
    assert {**done, "serial": 0} == looked
    assert done["serial"] > 0
    assert not path.exists()
    assert project.run("gc", "--json", "--yes").json()["serial"] == 0


def test_a_store_that_cannot_be_read_is_told(littered: tuple[Project, Path]) -> None:
    project, path = littered
    endpoint = project.root / ".llmctl" / "dev" / "endpoints" / "other@0000000000000000.json"
    endpoint.write_text("nonsense")
    try:
        refused = project.run("gc", "--yes")
        assert (refused.code, "nothing is cleared away" in refused.err) == (1, True), refused.text
        assert path.exists()
    finally:
        endpoint.unlink()


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_499, "999.5 kB"), (1_400_000, "1.4 MB"), (5 * 10**9, "5.0 GB")],
)
def test_sizes(number: int, said: str) -> None:
    assert size(number) == said
