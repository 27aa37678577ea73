"""The search for the planted secret finds it wherever it may have got to; else its silence would prove nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import canary
from tests.cli.project import Project

pytestmark = pytest.mark.usefixtures("gone_afterwards")
SECRET = canary.PLANTED["HF_TOKEN"]


@pytest.fixture
def gone_afterwards(project: Project) -> Iterator[None]:
    """The project is searched again when it ends, and would be found guilty."""
    yield
    shutil.rmtree(project.root)


def test_an_untouched_project_is_clean(project: Project) -> None:
    canary.after_command(project.root, "", "")
    canary.nowhere(project.root, project.env)


@pytest.mark.parametrize("stream", [0, 1])
def test_it_is_found_in_what_a_command_prints(project: Project, stream: int) -> None:
    said = ["", ""]
    said[stream] = f"error: 401 for {SECRET}"
    with pytest.raises(AssertionError, match="a secret is in what the command printed") as failed:
        canary.after_command(project.root, *said)
    assert SECRET not in str(failed.value)


def test_it_is_found_in_the_arguments_of_a_process(project: Project) -> None:
    wait = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", wait, SECRET], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(AssertionError, match=f"the arguments of process {process.pid}"):
            canary.after_command(project.root, "", "")
        process.communicate()


def test_it_is_found_in_a_journal_after_each_command(project: Project) -> None:
    journal = project.root / ".git/llmctl/dev/attempt-1.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text(SECRET)
    with pytest.raises(AssertionError, match=r"attempt-1\.jsonl"):
        canary.after_command(project.root, "", "")


@pytest.mark.parametrize("name", ["plan.json", ".llmctl/dev/logs/gateway.log", ".llmctl/.cache/resolved"])
def test_it_is_found_in_a_file(project: Project, name: str) -> None:
    path = project.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"…{SECRET}…")
    with pytest.raises(AssertionError, match=Path(name).name):
        canary.nowhere(project.root, project.env)


@pytest.mark.parametrize("packed", [False, True])
def test_it_is_found_in_an_object_that_no_ref_holds(project: Project, packed: bool) -> None:
    note = project.root / "note"
    note.write_text(SECRET)
    name = project.git("hash-object", "-w", "note").strip()
    if packed:
        project.git("update-ref", "refs/notes/secret", name)
        project.git("gc", "-q")
    note.unlink()
    with pytest.raises(AssertionError, match="an object of git"):
        canary.nowhere(project.root, project.env)


def test_the_file_that_a_restarted_gateway_reads_may_hold_it(project: Project) -> None:
    path = project.root / ".llmctl/dev/gateway/secrets.json"
    path.parent.mkdir(parents=True)
    path.write_text(SECRET)
    canary.nowhere(project.root, project.env)
