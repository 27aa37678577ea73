"""Forks ``llmctl`` commands from one process that has imported everything, with a fault at one of their points.

Reads a line of JSON a command, ``{"arguments", "watch", "point", "mode", "lag", "plant"}``, and answers with one,
``{"code", "out", "err", "met", "points", "uncovered"}``. With ``watch`` the points that the command passes are told
when it ends by itself. ``plant`` names a defect of ``plants.py`` that llmctl is to have.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import aiohttp  # noqa: F401 - like the next ones: to have it imported before the forks
import psutil
import scipy.stats  # noqa: F401

import llmctl.app.audit
import llmctl.app.planning
import llmctl.app.status
import llmctl.app.validate
import llmctl.cli
import llmctl.cli.commands.apply
import llmctl.cli.commands.audit
import llmctl.cli.commands.destroy
import llmctl.cli.commands.plan
import llmctl.cli.commands.rollback
import llmctl.cli.commands.status
import llmctl.cli.running
import llmctl.cli.views.audit
import llmctl.cli.views.status
import llmctl.cli.views.verification
import llmctl.spec.document
from llmctl.core.digests import Json
from llmctl.spec.models import Shape
from tests.faults import plants
from tests.faults.audited import cross_check
from tests.faults.boundaries import put_points
from tests.faults.points import Fault, Watch

LIMIT_S = 120.0
_POLL_S = 0.005


def serve() -> None:
    """Answer commands until standard input ends."""
    _build(Shape)
    gc.freeze()  # what is imported never goes: no fork has to look at it, or copy it
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            print(json.dumps(_answer(Path(folder), json.loads(line))), flush=True)


def _build(shape: type[Shape]) -> None:
    """What pydantic would build in each fork."""
    shape.model_rebuild()
    for narrower in shape.__subclasses__():
        _build(narrower)


def _answer(folder: Path, asked: Json) -> Json:
    for path in folder.iterdir():
        path.unlink()
    pid = os.fork()
    if not pid:
        try:
            _child(folder, asked)
        finally:
            os._exit(70)
    code = _wait(pid)
    if code < 0:
        _await_gits()
    seen = folder / "seen"
    return {
        "code": code,
        "out": (folder / "out").read_text(),
        "err": (folder / "err").read_text(),
        "met": (folder / "met").exists() and (folder / "met").stat().st_size > 0,
        **(json.loads(seen.read_text()) if seen.exists() else {"points": [], "uncovered": []}),
    }


def _wait(pid: int) -> int:
    """Its exit code; one that hangs is killed, and its code is 124."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_POLL_S)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 124


def _await_gits() -> None:
    """Return when no git goes on that a killed command has left: what is found out then stays so."""
    project, until = Path.cwd().parent, time.monotonic() + LIMIT_S
    while any(_is_git_in(process, project) for process in psutil.process_iter()) and time.monotonic() < until:
        time.sleep(_POLL_S)


def _is_git_in(process: psutil.Process, project: Path) -> bool:
    try:
        return process.name().startswith("git") and Path(process.cwd()).is_relative_to(project)
    except psutil.Error:
        return False  # it has just ended


def _child(folder: Path, asked: Json) -> None:
    os.setsid()
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    watch: Watch | None = None
    if asked["watch"]:
        met, write = os.open(folder / "met", os.O_WRONLY | os.O_CREAT, 0o600), os.write  # before these are points

        def was_met() -> None:
            write(met, b"1")

        watch = Watch(Fault(asked["point"], asked["mode"]) if asked["point"] else None)
        watch.met = was_met
        put_points(watch, git_lag_s=asked["lag"])
        cross_check(watch)
    if asked["plant"]:
        getattr(plants, asked["plant"])()
    sys.argv = ["llmctl", *asked["arguments"]]
    code = 70
    try:
        llmctl.cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    if watch is not None:
        seen = json.dumps(watch.to_json())
        with watch.inside("", in_leaf=True):
            (folder / "seen").write_text(seen)
    os._exit(code)


if __name__ == "__main__":
    serve()
