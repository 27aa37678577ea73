"""A clock that jumps by a day, between applies and during one: nothing hangs, nothing is lost, the record is whole.

A real clock is the machine's, so each process of Python asks a file instead, which says by how much it is wrong.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.project import DEADLINE_S, ONE_SENTENCE, REPOSITORY, SOURCE, SYSTEM, Project

pytestmark = pytest.mark.e2e
DAY_S = 86400
ROLLOUT = "    rollout: {canary: [50, 100], hold: 1s}"

# Python imports it by its name at every start, that of the daemons too.
SITE_CUSTOMIZE = """\
import datetime, time
import psutil._pslinux as linux

def wrong_s():
    with open(FILE) as file:
        return int(file.read())

class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime_now(tz) + datetime.timedelta(seconds=wrong_s())

datetime_now, time_ns, boot_time = datetime.datetime.now, time.time_ns, linux.boot_time
datetime.datetime = Jumping
time.time_ns = lambda: time_ns() + wrong_s() * 10**9
time.time = lambda: time.time_ns() / 1e9
linux.boot_time = lambda: boot_time() + wrong_s()
"""


class Clocked(Project):
    """A project with a clock of its own."""

    def set_clock(self, wrong_s: int) -> None:
        new = self.base / "clock.new"
        new.write_text(str(wrong_s))
        new.replace(self.base / "clock")

    def start(self, *arguments: str, module: str = "llmctl") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.root,
            env=self.environment() | {"PYTHONPATH": f"{self.base / 'site'}:{SOURCE}:{REPOSITORY}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.children.append(process)
        return process

    def interrupted_by(self, line: str, wrong_s: int) -> tuple[int, str]:
        """Apply, and set the clock when it says ``line``."""
        process = self.start("apply", "--yes")
        assert process.stderr
        said = ""
        for text in process.stderr:
            said += text
            if line in text:
                self.set_clock(wrong_s)
                break
        out, rest = process.communicate(timeout=DEADLINE_S)
        assert "Traceback" not in said + rest, said + rest
        return process.returncode, out + said + rest


@pytest.fixture(scope="module")
def clocked() -> Iterator[Clocked]:
    """A project that is applied and serves."""
    project = Clocked(Project.make(small=True).base)
    (project.base / "site").mkdir()
    customize = SITE_CUSTOMIZE.replace("FILE", repr(str(project.base / "clock")))
    (project.base / "site/sitecustomize.py").write_text(customize)
    project.set_clock(0)
    project.edit("    endpoint: support", f"    endpoint: support\n{ROLLOUT}")
    try:
        project.apply()
        yield project
        project.destroy()
    finally:
        project.end()


def _change(project: Clocked) -> None:
    text = project.file.read_text()
    old, new = (SYSTEM, ONE_SENTENCE) if ONE_SENTENCE not in text else (ONE_SENTENCE, SYSTEM)
    project.edit(old, new)


def _is_whole(project: Clocked) -> None:
    assert project.plan_code() == 0
    project.answers()
    project.ok("audit", "verify")
    entries = project.ok("audit", "log", "--json").json()["entries"]
    assert [entry["serial"] for entry in entries] == list(range(len(entries), 0, -1))
    assert project.git("for-each-ref", "refs/llmctl") == "", "neither a lock nor an attempt is left"
    project.one_of_each()


@pytest.mark.parametrize("wrong_s", [DAY_S, -DAY_S], ids=["forward", "back"])
def test_a_clock_that_jumps_between_applies(clocked: Clocked, wrong_s: int) -> None:
    before = clocked.one_of_each()
    clocked.set_clock(wrong_s)
    _is_whole(clocked)
    _change(clocked)
    clocked.apply()
    _is_whole(clocked)
    after = clocked.one_of_each()
    assert (after["supervisord"], after["gateway"]) == (before["supervisord"], before["gateway"])


@pytest.mark.parametrize("step", ["… gate:", "… shift:"])
@pytest.mark.parametrize("wrong_s", [DAY_S, -DAY_S], ids=["forward", "back"])
def test_a_clock_that_jumps_during_an_apply(clocked: Clocked, step: str, wrong_s: int) -> None:
    """Forward the lock's lease is over, because nobody can tell that from a machine that slept: it stops safely."""
    clocked.set_clock(0)
    _change(clocked)
    code, said = clocked.interrupted_by(step, wrong_s)
    if wrong_s < 0:
        assert code == 0, said
    else:
        assert code == 5, said
        assert "the lock was lost: its lease was over" in said
        assert clocked.answers().status == 200
        assert clocked.llmctl("apply", "--yes").code == 0
    _is_whole(clocked)
