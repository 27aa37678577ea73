"""Forks ``llmctl`` commands from one process that has imported everything, and kills them at a given effect.

Reads a line of JSON a command: ``{"arguments", "calls", "point", "moment"}``, and answers with one: ``{"code",
"out", "err", "points"}``. ``calls`` names methods of the attempt, which is the journal; point N is the N-th time that
the command calls one of them, and ``moment`` says whether it kills itself before or after that. Point 0 kills
nothing; ``points`` is then how many there were.
A fork saves the 0.4 s of imports that every command begins with, which a hundred crashes would pay three times.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp  # noqa: F401 - like the next ones: to have it imported before the forks
import psutil  # noqa: F401
import scipy.stats  # noqa: F401

import llmctl.app.audit
import llmctl.app.planning
import llmctl.cli
import llmctl.cli.commands.apply
import llmctl.cli.commands.audit
import llmctl.cli.commands.plan
import llmctl.cli.running
from llmctl.record import Attempt


class _Points:
    """Counts the calls of the journal, and kills this process at one of them."""

    def __init__(self, point: int, moment: str, counted: Path) -> None:
        self._point, self._moment, self._counted = point, moment, counted
        self._count = 0
        self._mutex = threading.Lock()

    def watch(self, name: str) -> None:
        call: Callable[..., Any] = getattr(Attempt, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            with self._mutex:
                self._count += 1
                mine = self._count == self._point
                self._counted.write_text(str(self._count))
            if mine and self._moment == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments, **named)
            if mine and self._moment == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(Attempt, name, counted)


def _child(arguments: list[str], out: Path, err: Path) -> None:
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["llmctl", *arguments]
    llmctl.cli.main()


def serve() -> None:
    """Answer commands until standard input ends."""
    with tempfile.TemporaryDirectory() as folder:
        _serve(Path(folder))


def _serve(folder: Path) -> None:
    out, err, counted = folder / "out", folder / "err", folder / "count"
    for line in sys.stdin:
        asked = json.loads(line)
        counted.write_text("0")
        pid = os.fork()
        if not pid:
            try:
                points = _Points(asked["point"], asked["moment"], counted)
                for name in asked["calls"]:
                    points.watch(name)
                _child(asked["arguments"], out, err)
            except SystemExit as end:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(int(end.code or 0))
            os._exit(70)
        _, status = os.waitpid(pid, 0)
        answer = {
            "code": os.waitstatus_to_exitcode(status),
            "out": out.read_text(),
            "err": err.read_text(),
            "points": int(counted.read_text() or 0),  # empty when it was killed while another thread wrote
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
