"""Two applies at once: one environment has one holder, two environments do not meet."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.e2e.project import DEADLINE_S, ONE_SENTENCE, SYSTEM, Project

pytestmark = pytest.mark.e2e
SMALL = True


def test_exactly_one_of_several_applies_starts(applied: Project) -> None:
    serial = applied.serial()
    applied.edit(SYSTEM, ONE_SENTENCE)
    racers = [applied.start("apply", "--yes") for _ in range(3)]
    ended = [(*racer.communicate(timeout=DEADLINE_S), racer.returncode) for racer in racers]
    assert sorted(code for *_, code in ended) == [0, 5, 5], ended
    winner = next(racer.pid for racer in racers if racer.returncode == 0)
    for _, err, code in ended:
        if code == 5:
            holder = f"dev is locked by Tess Tester <tess@example.invalid> on {socket.gethostname()}, pid {winner}"
            assert holder in err
            assert "`llmctl apply`" in err
    assert applied.serial() == serial + 1
    assert applied.plan_code() == 0
    assert applied.ok("audit", "verify").code == 0


def test_who_works_is_shown_meanwhile(applied: Project) -> None:
    applied.edit(SYSTEM, ONE_SENTENCE)
    process = applied.start("apply", "--yes")
    assert process.stderr
    for line in process.stderr:
        if "… gate:" in line:
            break
    process.send_signal(signal.SIGSTOP)  # its lease of 30 s goes on
    status, plan = applied.status(), applied.llmctl("plan")
    refused = applied.llmctl("rollback", "--to", "1", "--yes")
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert refused.code == 5
    assert f"pid {process.pid}" in refused.err
    assert f"pid {process.pid}" in status["lock"]
    assert status["interrupted"] == ""
    assert f"pid {process.pid}" in plan.text
    assert "was interrupted" not in plan.text


def test_two_environments_at_once(project: Project) -> None:
    project.edit("  dev: {target: local}", "  dev: {target: local}\n  stage: {target: local}")
    without = project.llmctl("plan")
    assert without.code == 1
    assert "dev, stage" in without.err
    both = [project.start("apply", "--yes", "-e", name) for name in ("dev", "stage")]
    ended = [(*process.communicate(timeout=DEADLINE_S), process.returncode) for process in both]
    assert [code for *_, code in ended] == [0, 0], ended
    pids = {pid for name in ("dev", "stage") for pid in project.one_of_each(environment=name).values()}
    assert len(pids) == 6
    assert project.base_url("dev") != project.base_url("stage")
    assert project.answers("dev").revision == project.answers("stage").revision
    for name in ("dev", "stage"):
        assert project.plan_code("-e", name) == 0
        assert project.ok("audit", "verify", "-e", name).code == 0
    project.ok("destroy", "--yes", "-e", "dev")
    project.one_of_each(environment="stage")
    project.answers("stage")
    project.destroy()
