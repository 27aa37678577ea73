"""``kill -9`` of apply before and after every call of its journal: the next one tells, and converges.

Between two neighbouring calls there is an effect or nothing. Killed after each call, and before each ``done``, apply
leaves every state that it can leave: an effect announced and not made, made and not noted, noted and not committed.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from llmctl.core.digests import Json
from tests.e2e.project import MODEL, REPOSITORY, Project
from tests.results import Result

pytestmark = pytest.mark.e2e
SMALL = True
OTHER_MODEL = f"{MODEL}\n    adapters: [{{source: models/tone-lora.gguf, scale: 0.01}}]"
KILLED = -signal.SIGKILL
MOMENTS = [("after", ("intend", "done", "commit", "close")), ("before", ("done", "close"))]
LEAST = {"after": 20, "before": 8}  # calls; a count below would mean that nothing is counted any more


@dataclass
class Zygote:
    """Runs commands in forks; see ``zygote.py``."""

    process: subprocess.Popen[str]
    points: int = 0

    def run(self, *arguments: str, calls: Sequence[str] = (), point: int = 0, moment: str = "") -> Result:
        assert self.process.stdin
        assert self.process.stdout
        asked = {"arguments": arguments, "calls": calls, "point": point, "moment": moment}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the zygote ended"
        answer = json.loads(line)
        self.points = answer["points"]
        assert "Traceback" not in answer["out"] + answer["err"], answer["err"]
        return Result(answer["code"], answer["out"], answer["err"])

    def ok(self, *arguments: str) -> None:
        assert self.count(*arguments, calls=()) == 0

    def count(self, *arguments: str, calls: Sequence[str]) -> int:
        """Run it to its good end; returns how often it called them."""
        result = self.run(*arguments, calls=calls)
        assert result.code == 0, result.text
        return self.points


@pytest.fixture
def two(project: Project) -> Iterator[tuple[Project, Project]]:
    """Two projects, for both halves of a sweep at once."""
    other = Project.make(small=True)
    try:
        yield project, other
    finally:
        other.end()


@contextmanager
def _zygote(project: Project) -> Iterator[Zygote]:
    code = "import sys; from tests.e2e.zygote import serve; serve()"
    environment = project.environment()
    environment["PYTHONPATH"] += f":{REPOSITORY}"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=project.root,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    project.children.append(process)
    try:
        yield Zygote(process)
    finally:
        process.communicate()
        project.children.remove(process)


def _journal(project: Project) -> list[Json]:
    """What the attempt that was killed had noted."""
    files = list((project.root / ".git/llmctl/dev").glob("attempt-*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def _converges(zygote: Zygote, project: Project, where: str) -> str:
    """What must hold after any crash; returns the revision that serves in the end."""
    interrupted = bool(_journal(project))
    plan = zygote.run("plan")
    assert plan.code == 0, (where, plan.text)
    assert ("was interrupted" in plan.text) == interrupted, where
    again = zygote.run("apply", "--yes")
    assert again.code == 0, (where, again.text)
    assert ("was interrupted" in again.err) == interrupted, where
    settled = zygote.run("plan", "--detailed-exitcode")
    assert settled.code == 0, (where, settled.text)
    assert "Nothing changes" in settled.out
    assert zygote.run("audit", "verify").code == 0, where
    assert not _journal(project), where
    project.one_of_each()
    refs = project.refs()
    assert refs.keys() == {"refs/heads/main", "refs/heads/llmctl/dev"}, (where, refs)
    return project.answers().revision


@pytest.mark.parametrize(("moment", "calls"), MOMENTS)
def test_a_model_change_that_is_killed_anywhere_converges(
    two: tuple[Project, Project], moment: str, calls: tuple[str, ...]
) -> None:
    def sweep(half: int) -> None:
        project = two[half]
        with _zygote(project) as zygote:
            zygote.ok("apply", "--yes")
            old, wanted, back = project.answers().revision, OTHER_MODEL, MODEL
            project.edit(back, wanted)
            points = zygote.count("apply", "--yes", calls=calls)
            new = project.answers().revision
            assert points >= LEAST[moment]
            for point in range(1 + half, points + 1, 2):
                wanted, back, old, new = back, wanted, new, old
                project.file.write_text(project.file.read_text().replace(back, wanted))
                where = f"killed {moment} call {point} of {points}"
                killed = zygote.run("apply", "--yes", calls=calls, point=point, moment=moment)
                assert killed.code == KILLED, (where, killed.text)
                _kept_serving(project, old, new, where)
                assert _converges(zygote, project, where) == new, where

    _both(sweep)


def _kept_serving(project: Project, old: str, new: str, where: str) -> None:
    serving = project.answers().revision
    steps = {line.get("step", "").partition(":")[0] for line in _journal(project)}
    if steps and "shift" not in steps:
        assert serving == old, where
    assert serving in (old, new), where


@pytest.mark.parametrize(("moment", "calls"), MOMENTS)
def test_a_first_apply_that_is_killed_anywhere_converges(
    two: tuple[Project, Project], moment: str, calls: tuple[str, ...]
) -> None:
    def sweep(half: int) -> None:
        project = two[half]
        with _zygote(project) as zygote:
            points = zygote.count("apply", "--yes", calls=calls)
            new = project.answers().revision
            assert points >= LEAST[moment]
            for point in range(1 + half, points + 1, 2):
                _forget(zygote, project)
                where = f"killed {moment} call {point} of {points}"
                killed = zygote.run("apply", "--yes", calls=calls, point=point, moment=moment)
                assert killed.code == KILLED, (where, killed.text)
                assert _converges(zygote, project, where) == new, where

    _both(sweep)


def _both(sweep: Callable[[int], None]) -> None:
    """Every other point in a project of its own, at the same time: most of a crash is waiting for the disk."""
    with ThreadPoolExecutor(2) as pool:
        for half in [pool.submit(sweep, number) for number in (0, 1)]:
            half.result()


def _forget(zygote: Zygote, project: Project) -> None:
    """As it was before the first apply: nothing runs, nothing is recorded."""
    zygote.ok("destroy", "--yes")
    assert project.processes() == []
    project.git("update-ref", "-d", "refs/heads/llmctl/dev")


@pytest.mark.parametrize(
    "line", ["… provision:endpoint.", "… gate:", "… shift:", "… retire:route", "… retire:endpoint"]
)
def test_the_real_command_is_killed_at_a_line_of_its_log(applied: Project, line: str) -> None:
    old = applied.answers().revision
    applied.edit(MODEL, OTHER_MODEL)
    process = applied.start("apply", "--yes")
    assert process.stderr
    for said in process.stderr:
        if line in said:
            process.kill()
    process.communicate()
    assert process.returncode == KILLED
    assert applied.answers().status == 200
    status = applied.status()
    assert "was interrupted" in status["interrupted"]
    assert status["lock"] == ""
    plan = applied.llmctl("plan")
    assert "was interrupted" in plan.text
    again = applied.apply()
    assert "was interrupted" in again.err
    assert applied.plan_code() == 0
    assert applied.answers().revision != old
    applied.one_of_each()
    outcomes = [e["outcome"] for e in applied.ok("audit", "log", "--json", "-n", "2").json()["entries"]]
    assert outcomes == ["applied", "interrupted"]
    assert applied.ok("audit", "verify").code == 0
