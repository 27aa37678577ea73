"""``llmctl gate`` where nothing runs: what it says of a wrong command line, and before anything is applied."""

from __future__ import annotations

import pytest

from tests.cli.conftest import InProcess
from tests.cli.project import Project


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("gate history", "`llmctl gate history` is not served yet"),
        ("gate diff", "`llmctl gate diff` is not served yet"),
        ("gate rnu", "no such command 'rnu'"),
        ("gate run faq extra", "got unexpected extra argument (extra)"),
        ("gate run fqa", "there is no gate 'fqa'"),
        ("gate run --route support", "'support' is no route revision"),
        ("gate run --route help@3fa9", "no gate judges route 'help'"),
        ("gate run faq --route help@3fa9", "gate faq does not judge route 'help'"),
        ("gate run", "the gateway does not run"),
    ],
)
def test_a_wrong_command_line_exits_1_and_makes_nothing(
    project: Project, here: InProcess, line: str, said: str
) -> None:
    done = here(*line.split())
    assert done.code == 1
    assert done.err.startswith(f"error: {said}")
    assert "= help: " in done.err
    assert done.out == ""
    assert not (project.root / ".llmctl").exists()


def test_without_a_subcommand_the_help_is_shown(here: InProcess) -> None:
    done = here("gate")
    assert done.code == 1
    assert "Measure a gate" in done.err


def test_a_file_without_gates_says_so(project: Project, here: InProcess) -> None:
    text = (project.root / "llmops.yaml").read_text()
    start = text.index("\ngates:")
    (project.root / "llmops.yaml").write_text(text[:start] + text[text.index("\npolicies:") :])
    done = here("gate", "run")
    assert done.code == 1
    assert "there is no gate in this environment" in done.err
