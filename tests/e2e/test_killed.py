"""``kill -9`` of everything that runs: it comes back, ``status`` tells the truth, nothing is there twice."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from llmctl.core.digests import Json
from tests.e2e.project import DEADLINE_S, Project, wait_until

pytestmark = pytest.mark.e2e
SMALL = True


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid) or _is_zombie(pid), f"the end of {pid}", 5)


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _is_true(project: Project) -> Json:
    """What status says, after checking that nothing in it is said to run that does not."""
    status = project.status()
    for process in status["processes"]:
        if process["state"] == "running":
            assert process["pid"], process
            assert psutil.pid_exists(process["pid"]) or not _still(project, process["name"]), process
    if status["gateway"] == "serving":
        assert project.ask().status != 0 or not _still(project, "gateway")
    return status


def _still(project: Project, name: str) -> bool:
    """Whether status, asked again, still says of a process what it said: it may have died or come back meanwhile."""
    return any(p["name"] == name and p["state"] == "running" for p in project.status()["processes"])


def _watch_until_back(project: Project, program: str, dead: int) -> None:
    until = time.monotonic() + DEADLINE_S
    while True:
        status = _is_true(project)
        assert dead not in [p["pid"] for p in status["processes"]], "a dead process is listed"
        census = project.census()
        assert all(len(pids) == 1 for pids in census.values()), census
        running = {p["name"].partition(".")[0]: p["state"] for p in status["processes"]}
        if running.get(program) == "running" and status["drift"] == [] and len(census) == 3:
            return
        assert time.monotonic() < until, status


def test_an_engine_that_is_killed_comes_back(applied: Project) -> None:
    before = applied.one_of_each()
    _kill(before["engine"])
    _watch_until_back(applied, "endpoint", before["engine"])
    after = applied.one_of_each()
    assert after["engine"] != before["engine"]
    assert {k: v for k, v in after.items() if k != "engine"} == {k: v for k, v in before.items() if k != "engine"}
    applied.answers()
    assert applied.plan_code() == 0


def test_a_gateway_that_is_killed_comes_back_with_its_configuration(applied: Project) -> None:
    before, served = applied.one_of_each(), applied.answers().revision
    address = applied.base_url()
    _kill(before["gateway"])
    _watch_until_back(applied, "gateway", before["gateway"])
    after = applied.one_of_each()
    assert after["gateway"] != before["gateway"]
    assert after["engine"] == before["engine"]
    assert applied.base_url() == address
    assert applied.answers().revision == served
    assert applied.plan_code() == 0


def test_after_supervisord_was_killed_the_next_apply_restores(applied: Project) -> None:
    before, served = applied.one_of_each(), applied.answers().revision
    _kill(before["supervisord"])
    wait_until(lambda: applied.census() == {}, "the end of its children", 10)
    status = _is_true(applied)
    assert status["gateway"] == "down"
    assert {p["state"] for p in status["processes"]} == {"stopped"}
    assert not any(e["healthy"] for e in status["endpoints"])
    assert {d["address"] for d in status["drift"]} == {"endpoint.support", "route.support"}
    assert applied.llmctl("drift").code == 2
    chat = applied.llmctl("chat", "support", "Hello?")
    assert chat.code == 1
    assert "the gateway does not run" in chat.err

    applied.apply()
    after = applied.one_of_each()
    assert set(after.values()).isdisjoint(before.values())
    assert applied.answers().revision == served
    assert applied.plan_code() == 0
    assert applied.ok("drift").code == 0


def test_all_three_at_once(applied: Project) -> None:
    for pid in applied.one_of_each().values():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: applied.census() == {}, "the end of all", 10)
    assert _is_true(applied)["gateway"] == "down"
    applied.apply()
    applied.one_of_each()
    applied.answers()
    assert applied.plan_code() == 0


def test_stop_and_start_keep_everything(applied: Project) -> None:
    served, serial = applied.answers().revision, applied.serial()
    applied.ok("local", "stop")
    assert applied.processes() == []
    assert _is_true(applied)["gateway"] == "down"
    applied.ok("local", "start")
    applied.one_of_each()
    assert applied.answers().revision == served
    assert (applied.plan_code(), applied.serial()) == (0, serial)
