"""The documents say what happens: their commands are run as they are written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.session import Command, Outcome, Shell, commands_of, play, rewritten

ROOT = Path(__file__).parents[2]
TOUR = (
    *commands_of(ROOT / "docs/tour.md"),
    *commands_of(ROOT / "docs/concepts.md"),
)  # the latter goes on in its folder
README = commands_of(ROOT / "README.md")
SECONDS = 900  # a session that hangs is ended; on an idle machine they take about 30 and 10

pytestmark = pytest.mark.e2e


def _environment(home: Path) -> dict[str, str]:
    """Of the caller's git settings none counts, and the only name is one of our own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "LLMCTL_"))}
    bin = Path(sys.executable).parent
    name, email = "Ada", "ada@acme.example"
    return {
        **kept,
        "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "COLUMNS": "120",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_PAGER": "cat",
        **{
            f"GIT_{role}_{key}": value
            for role in ("AUTHOR", "COMMITTER")
            for key, value in (("NAME", name), ("EMAIL", email))
        },
    }


def _session(commands: tuple[Command, ...], folder: Path) -> Iterator[dict[str, Outcome]]:
    """The outcomes by command, from a shell in a folder that looks like a checkout."""
    checkout = folder / "llmctl"
    shutil.copytree(ROOT / "examples", checkout / "examples")
    environment = _environment(folder)
    try:
        with Shell(checkout, environment, SECONDS) as shell:
            outcomes = list(play(commands, shell))
        if os.environ.get("LLMCTL_ACCEPT"):
            _accept(commands, outcomes)
        yield {str(command): outcome for command, outcome in zip(commands, outcomes, strict=True)}
    finally:
        for state in folder.rglob(".llmctl"):
            subprocess.run(["llmctl", "destroy", "--yes"], cwd=state.parent, env=environment, check=True)


def _accept(commands: tuple[Command, ...], outcomes: list[Outcome]) -> None:
    for document in {command.document for command in commands}:
        here = [(c, o) for c, o in zip(commands, outcomes, strict=True) if c.document == document]
        text = rewritten(document.read_text(), [c for c, _ in here], [o for _, o in here])
        document.write_text(text)


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    yield from _session(TOUR, tmp_path_factory.mktemp("tour"))


@pytest.fixture(scope="module")
def readme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    yield from _session(README, tmp_path_factory.mktemp("readme"))


@pytest.mark.parametrize("command", TOUR, ids=str)
def test_the_tour_is_true(tour: dict[str, Outcome], command: Command) -> None:
    _holds(command, tour[str(command)])


@pytest.mark.parametrize("command", README, ids=str)
def test_the_readme_is_true(readme: dict[str, Outcome], command: Command) -> None:
    _holds(command, readme[str(command)])


def _holds(command: Command, outcome: Outcome) -> None:
    if os.environ.get("LLMCTL_ACCEPT") and outcome.complaints:
        pytest.skip("rewritten; read the difference")
    told = "\n".join([f"$ {command.text}", *outcome.output])
    assert not outcome.complaints, f"{command}: {'; '.join(outcome.complaints)}\n\nWhat it did:\n{told}"
