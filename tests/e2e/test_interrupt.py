"""Ctrl-C in each phase of an apply: the step in hand is finished or undone, it is recorded, what served serves."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest

from tests.e2e.project import DEADLINE_S, MODEL, Project

pytestmark = pytest.mark.e2e
SMALL = True
OTHER_MODEL = f"{MODEL}\n    adapters: [{{source: models/tone-lora.gguf, scale: 0.01}}]"


def _interrupt_at(project: Project, line: str, number: signal.Signals) -> tuple[int, str]:
    """Run apply and send it a signal when its log says ``line``."""
    process = project.start(str(number.value), line, "apply", "--yes", module="tests.e2e.interrupted")
    out, err = process.communicate(timeout=DEADLINE_S)
    project.children.remove(process)
    assert line in err, err
    assert "Traceback" not in out + err
    return process.returncode, out + err


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("… provision:model.", signal.SIGINT),
        ("… provision:endpoint.", signal.SIGINT),
        ("… stage:", signal.SIGINT),
        ("… gate:", signal.SIGINT),
        ("… gate:", signal.SIGTERM),
        ("… shift:", signal.SIGINT),
        ("… promote:", signal.SIGINT),
        ("… retire:route", signal.SIGINT),
    ],
)
def test_an_interrupted_change_is_recorded_and_the_next_apply_converges(
    applied: Project, line: str, number: signal.Signals
) -> None:
    before, serial = applied.answers().revision, applied.serial()
    applied.edit(MODEL, OTHER_MODEL)
    wanted = applied.llmctl("plan", "--json").json()["gates"][0]["revision"]

    code, text = _interrupt_at(applied, line, number)

    assert code == 130, text
    assert "Interrupted: finishing or undoing the steps in hand" in text
    entry = applied.ok("audit", "log", "--json", "-n", "1").json()["entries"][0]
    assert (entry["serial"], entry["outcome"]) == (serial + 1, "interrupted")
    serving = applied.answers().revision
    assert (
        serving == before
        if line in ("… provision:model.", "… provision:endpoint.", "… stage:", "… gate:")
        else (serving in (before, wanted))
    )
    assert ("What served before still serves" in text) == (serving == before)
    status = applied.status()
    assert status["routes"][0]["weights"] == {serving: 100}
    assert (status["interrupted"], status["lock"]) == ("", "")

    applied.apply()
    assert applied.answers().revision == wanted
    assert applied.plan_code() == 0
    applied.one_of_each()
    assert applied.ok("audit", "verify").code == 0


@pytest.mark.parametrize("line", ["… provision:dataset", "… provision:endpoint.", "… gate:", "… promote:"])
def test_an_interrupted_first_apply_leaves_nothing_half(project: Project, line: str) -> None:
    code, text = _interrupt_at(project, line, signal.SIGINT)
    assert code == 130, text
    entry = project.ok("audit", "log", "--json", "-n", "1").json()["entries"][0]
    assert (entry["serial"], entry["outcome"]) == (1, "interrupted")
    if line != "… promote:":
        assert project.ask().status == 404, "nothing was promoted"
    project.apply()
    project.answers()
    assert project.plan_code() == 0
    project.one_of_each()
    assert project.ok("audit", "verify").code == 0


def test_an_interruption_after_the_last_step_ends_the_command_but_not_the_apply(project: Project) -> None:
    code, text = _interrupt_at(project, "✓ promote:", signal.SIGINT)
    assert code == 130, text
    assert "Apply done (11 done)" in text
    assert "nothing is left" in text
    assert project.ok("audit", "log", "--json", "-n", "1").json()["entries"][0]["outcome"] == "applied"
    assert project.plan_code() == 0
    project.answers()


def _at_the_question(project: Project) -> tuple[subprocess.Popen[bytes], int]:
    """Apply on a terminal of its own, up to the question whether to go on; the terminal's other end."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "llmctl", "apply"]
    process = subprocess.Popen(
        command,
        cwd=project.root,
        env=project.environment() | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    while b"[y/N]" not in said:
        said += os.read(ours, 65536)
    return process, ours


def _rest(terminal: int) -> str:
    said = b""
    try:
        while more := os.read(terminal, 65536):
            said += more
    except OSError:  # the other end was closed
        pass
    finally:
        os.close(terminal)
    return said.decode()


def _nothing_changed(project: Project) -> None:
    assert project.refs().keys() == {"refs/heads/main"}
    assert not (project.root / ".llmctl").exists()
    assert not list((project.root / ".git").glob("llmctl/**/attempt-*"))


def test_on_a_terminal_it_asks(project: Project) -> None:
    process, terminal = _at_the_question(project)
    os.write(terminal, b"n\n")
    text = _rest(terminal)
    assert process.wait(DEADLINE_S) == 0
    assert "Nothing was changed." in text
    _nothing_changed(project)

    process, terminal = _at_the_question(project)
    process.send_signal(signal.SIGINT)
    text = _rest(terminal)
    assert process.wait(DEADLINE_S) == 130
    assert "nothing was changed" in text
    assert "Traceback" not in text
    _nothing_changed(project)

    process, terminal = _at_the_question(project)
    os.write(terminal, b"y\n")
    text = _rest(terminal)
    assert process.wait(DEADLINE_S) == 0
    assert "\x1b[" in text, "colour and progress are for terminals"
    assert "Apply done" in text
    project.answers()


def test_without_a_terminal_it_does_not_guess(project: Project) -> None:
    refused = project.llmctl("apply", stdin="y\n")
    assert refused.code == 1
    assert "nobody is there to confirm" in refused.err
    _nothing_changed(project)
