"""``llmctl gc`` on the real example: what serves and what may be rolled back to stays, also when it is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llmctl.core.digests import Json
from tests.e2e.project import MODEL, REPOSITORY, Project

pytestmark = pytest.mark.e2e
SMALL = True
OTHER = "models/other.gguf"
JOURNAL = ("intend", "commit", "done", "close")


@pytest.fixture
def grown(project: Project) -> Iterator[Project]:
    """Applied twice; the model of the first apply has another file, which is gone by now."""
    data = (project.root / "models/support-tiny.gguf").read_bytes()
    (project.root / OTHER).write_bytes(data + bytes(32))  # another digest, and the same tensors
    project.edit(MODEL, f"source: {OTHER}")
    project.apply()
    project.edit(f"source: {OTHER}", MODEL)
    (project.root / OTHER).unlink()
    project.apply()
    yield project
    project.destroy()


def stored(project: Project) -> list[str]:
    return sorted(path.name for path in (project.state() / "artifacts").glob("??/*"))


def test_what_only_the_first_apply_needed_goes_and_a_rollback_to_it_says_so(grown: Project) -> None:
    census, revision, before = grown.census(), grown.answers().revision, stored(grown)
    old = grown.ok("audit", "show", "1").out

    assert "Nothing to clear away in dev" in grown.ok("gc").out
    assert grown.serial() == 2  # nothing was done, so nothing is recorded
    looked = grown.ok("gc", "--keep", "1", "--dry-run", "--json").json()
    assert {item["what"] for item in looked["leftovers"]} == {"artifact", "manifest"}
    assert (len(looked["evidence"]), looked["serial"]) == (1, 0)
    asked = grown.llmctl("gc", "--keep", "1")
    assert (asked.code, "nobody is there to confirm" in asked.err) == (1, True)
    assert (stored(grown), grown.serial()) == (before, 2)

    done = grown.ok("gc", "--keep", "1", "--yes")
    assert "1 piece of evidence; the history of the record keeps it" in done.out
    assert "Freed " in done.out
    freed = {item["name"].removeprefix("sha256:") for item in looked["leftovers"] if item["what"] == "artifact"}
    gone = set(before) - set(stored(grown))
    assert {name.partition(".")[0] for name in gone} == freed
    assert sum(int(name.partition(".")[2]) for name in gone) == sum(
        item["bytes"] for item in looked["leftovers"] if item["what"] == "artifact"
    )
    assert (grown.plan_code(), grown.census(), grown.answers().revision) == (0, census, revision)
    grown.ok("local", "stop")
    grown.ok("local", "start")
    assert grown.answers().revision == revision

    assert grown.ok("audit", "show", "1").out == old  # with its evidence: the history has it
    back = grown.llmctl("rollback", "--to", "1", "--yes")
    assert back.code == 1, back.text
    assert "this rollback needs artifacts that are no longer there; nothing was changed" in back.err
    assert OTHER in back.err
    assert "`llmctl gc` cleared away content of these, as serial 3." in back.err
    assert grown.answers().revision == revision
    shown = grown.ok("audit", "show", "3")
    assert "gc: cleared away" in shown.out
    assert grown.ok("audit", "verify").code == 0


def test_what_may_be_rolled_back_to_stays(grown: Project) -> None:
    grown.ok("gc", "--keep", "2", "--yes")
    grown.ok("rollback", "--to", "1", "--yes")
    assert grown.answers().text
    grown.restore_file()


def test_killed_at_any_line_of_its_journal_it_loses_nothing_and_the_next_one_finishes(grown: Project) -> None:
    needed = stored(grown)
    grown.ok("gc", "--keep", "1", "--yes")
    needed = stored(grown)
    spare = "a" * 64
    folder = grown.state() / "artifacts" / spare[:2]
    with _zygote(grown) as run:
        for point in range(1, 5):
            for moment in ("before", "after"):
                folder.mkdir(exist_ok=True)
                (folder / f"{spare}.4").write_bytes(b"junk")
                where = f"{moment} call {point}"
                killed = run(["gc", "--keep", "1", "--yes"], point, moment)
                calls = 3  # no evidence is left to take out, so there is no commit
                assert killed["code"] == (-9 if point <= calls else 0), (where, killed)
                assert set(needed) <= set(stored(grown)), where
                again = run(["gc", "--keep", "1", "--yes"], 0, "")
                assert again["code"] == 0, (where, again)
                assert stored(grown) == needed, where
    assert (grown.plan_code(), grown.answers().status) == (0, 200)
    outcomes = [e["outcome"] for e in grown.ok("audit", "log", "--json").json()["entries"]]
    assert "interrupted" in outcomes


@contextmanager
def _zygote(project: Project) -> Iterator[_Run]:
    """Commands in forks of one process, killed at a call of their journal; see ``zygote.py``."""
    environment = project.environment()
    environment["PYTHONPATH"] += f":{REPOSITORY}"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.zygote"],
        cwd=project.root,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    project.children.append(process)
    try:
        yield _Run(process)
    finally:
        process.communicate()
        project.children.remove(process)


class _Run:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, arguments: list[str], point: int, moment: str) -> Json:
        assert self._process.stdin
        assert self._process.stdout
        asked = {"arguments": arguments, "calls": JOURNAL, "point": point, "moment": moment}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())
