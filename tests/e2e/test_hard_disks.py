"""Disks that are full or cannot be written: a clear error, nothing lost, and the next apply goes on."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.project import REPOSITORY, SOURCE, Project

pytestmark = pytest.mark.e2e

LITTLE = """\
apiVersion: llmctl/v1
project: disks
environments: {dev: {target: local}}
datasets:
  rows: {source: rows.jsonl}
prompts:
  answer: {messages: [{role: system, content: Be brief.}]}
"""
DISK_KB = 8192
ROWS_KB = 256


class OnItsOwnDisk(Project):
    """A project whose folder is a disk of its own, mounted where only its own commands see it."""

    def mount(self) -> None:
        script = f'mount -t tmpfs -o size={DISK_KB}k,mode=700 disk "$1" && echo mounted && exec sleep 3600'
        self.root.mkdir()
        self.holder = subprocess.Popen(
            ["unshare", "-r", "-m", "sh", "-c", script, "sh", str(self.root)], stdout=subprocess.PIPE, text=True
        )
        assert self.holder.stdout
        assert self.holder.stdout.readline() == "mounted\n"
        enter = ["nsenter", "--preserve-credentials", "-U", "-m", "-t", str(self.holder.pid)]
        self.inside = [*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(self.root)]

    def start(self, *arguments: str, module: str = "llmctl") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*self.inside, sys.executable, "-m", module, *arguments],
            env=self.environment() | {"PYTHONPATH": f"{SOURCE}:{REPOSITORY}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.children.append(process)
        return process

    def shell(self, command: str) -> str:
        """Run a command of the shell on the disk."""
        done = subprocess.run(
            [*self.inside, "sh", "-ec", command], env=self.environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done}"
        return done.stdout

    def write_rows(self, number: int) -> None:
        """Other rows, of the same size each time."""
        row = f'{{"row": "{number:05}"}}'
        self.shell(f"yes '{row}' | head -n {ROWS_KB * 1024 // (len(row) + 1)} > rows.jsonl")

    def leave(self, kilobytes: int) -> None:
        """Fill the disk until so much is free."""
        self.shell(
            f"free=$(df -k --output=avail . | tail -1); head -c $(( (free - {kilobytes}) * 1024 )) /dev/zero > filler"
        )

    def make_room(self) -> None:
        self.shell("rm -f filler")

    def read_only(self) -> None:
        self.shell('mount --bind "$PWD" "$PWD" && mount -o remount,bind,ro "$PWD"')

    def writable(self) -> None:
        self.shell('cd / && umount "$OLDPWD"')

    def end(self) -> None:
        super().end()
        self.holder.kill()
        self.holder.communicate()


@pytest.fixture
def project() -> Iterator[OnItsOwnDisk]:
    """A committed project on a disk of its own, with nothing applied."""
    if subprocess.run(["unshare", "-r", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a disk of its own needs `unshare -r -m`, which is not allowed here")
    project = OnItsOwnDisk(Path(tempfile.mkdtemp(prefix="e2e-", dir="/tmp")))
    for folder in (project.home, project.run):
        folder.mkdir(mode=0o700)
    project.mount()
    try:
        project.shell(f"cat > llmops.yaml <<'END'\n{LITTLE}END\nprintf 'filler\\n' > .gitignore")
        project.write_rows(0)
        project.shell("git init -q -b main; git add -A; git commit -q -m disks")
        yield project
    finally:
        project.end()


def _goes_on(project: OnItsOwnDisk) -> None:
    project.apply()
    assert project.plan_code() == 0
    project.ok("audit", "verify")
    assert project.shell("git for-each-ref refs/llmctl") == "", "neither a lock nor an attempt is left"
    assert project.shell("find .llmctl -name '.tmp-*'") == ""


@pytest.mark.parametrize("kilobytes", [0, 48, 160], ids=["nothing", "a little", "all but the data"])
def test_a_disk_that_is_full_at_the_first_apply(project: OnItsOwnDisk, kilobytes: int) -> None:
    project.leave(kilobytes)
    failed = project.llmctl("apply", "--yes")
    assert failed.code == 1
    assert "No space left on device" in failed.err
    project.make_room()
    _goes_on(project)


def test_a_disk_that_is_full_at_any_point_loses_nothing(project: OnItsOwnDisk) -> None:
    project.apply()
    failed = []
    for number, kilobytes in enumerate([0, 8, 64, ROWS_KB + 32], 1):
        project.write_rows(number)
        project.leave(kilobytes)
        result = project.llmctl("apply", "--yes")
        failed.append("No space left on device" in result.err and result.code == 1)
        assert "serving" in project.ok("status").out
        project.make_room()
        assert project.plan_code() == (2 if failed[-1] else 0)
        _goes_on(project)
    assert failed[:3] == [True] * 3, "for the first write, for the journal, for the data"


def test_a_folder_that_cannot_be_written(project: OnItsOwnDisk) -> None:
    project.read_only()
    assert project.plan_code() == 2
    assert project.plan_code("--offline") == 2
    assert "out.json" in _refused(project, "plan", "--out", "out.json")
    assert "the git repository cannot be written" in _refused(project, "apply", "--yes")
    assert project.processes() == []
    project.writable()
    project.apply()

    project.write_rows(1)
    project.read_only()
    assert project.plan_code() == 2
    project.ok("status")
    project.ok("audit", "verify")
    _refused(project, "apply", "--yes")
    _refused(project, "destroy", "--yes")
    project.one_of_each(engines=0)
    project.writable()
    _goes_on(project)


def _refused(project: OnItsOwnDisk, *words: str) -> str:
    result = project.llmctl(*words)
    assert result.code == 1, result.text
    assert "Read-only file system" in result.err or "cannot be written" in result.err
    return result.err
