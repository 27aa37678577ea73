"""One git that answers all questions about objects, and what happens when it is old, killed or left behind."""

from __future__ import annotations

import gc
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from llmctl.core.errors import RecordError
from llmctl.record import Lock, Reader, Repository, find_interrupted, open_repository
from llmctl.record.catfile import CatFile
from llmctl.record.git import GitCommand
from llmctl.record.objects import list_files
from tests.record.helpers import BRANCH, ENV, apply, git, put, recorded

BEFORE: set[int] = set()


@pytest.fixture(autouse=True)
def _others_are_not_counted() -> None:
    """A repository of another module that something still refers to keeps its git."""
    BEFORE.clear()
    BEFORE.update(process.pid for process in psutil.Process().children())


def gits() -> list[psutil.Process]:
    """The gits that this test has started and that run."""
    return [p for p in psutil.Process().children() if p.name() == "git" and p.pid not in BEFORE]


def shim(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A ``git`` before the real one on the PATH, which ``script`` finds in ``$real``."""
    path = folder / "bin" / "git"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nreal="{shutil.which("git")}"\n{script}\nexec "$real" "$@"\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")


def test_what_a_plan_reads_takes_few_processes(
    repository: Repository, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(repository, *(put(recorded(f"prompt.p{number}")) for number in range(3)))
    started = tmp_path / "started"
    shim(tmp_path, monkeypatch, f'echo "$*" >> "{started}"')
    opened = open_repository(folder)
    reader = Reader(opened, ENV)
    assert len(reader.state().resources) == 3
    assert reader.summary()
    assert reader.evidence() == []
    assert opened.head_commit()
    assert Lock(opened, ENV).peek() is None
    assert find_interrupted(opened, ENV) is None
    assert len(started.read_text().splitlines()) == 4, "open, cat-file, the lock, attempts"


def test_it_sees_what_moved_and_what_was_added_since(repository: Repository, folder: Path) -> None:
    reader = Reader(repository, ENV)
    assert reader.head() == ""
    entries = []
    for number in range(1, 4):
        entries.append(apply(open_repository(folder), put(recorded("prompt.answer", str(number), number))))
        assert reader.head() == entries[-1]
        assert reader.state().serial == number
        git(folder, "gc", "-q", "--prune=now") if number == 1 else git(folder, "pack-refs", "--all")
        assert reader.state().serial == number
    git(folder, "update-ref", BRANCH, entries[0])
    assert reader.state().serial == 1
    git(folder, "update-ref", "-d", BRANCH)
    assert reader.head() == ""
    git(folder, "commit", "-q", "--allow-empty", "-m", "more")
    assert repository.head_commit() == git(folder, "rev-parse", "HEAD")


def test_one_that_was_killed_is_made_up_for(repository: Repository) -> None:
    apply(repository, put(recorded("prompt.answer")))
    reader = Reader(repository, ENV)
    before = reader.state()
    (process,) = gits()
    process.kill()
    assert reader.state() == before
    assert reader.state() == before
    assert len(gits()) == 1


def test_it_ends_with_the_repository(folder: Path) -> None:
    repository = open_repository(folder)
    assert gits() == [], "not before there is a question"
    assert repository.head_commit()
    assert len(gits()) == 1
    del repository
    gc.collect()
    assert gits() == []


def test_threads_get_their_own_answers(repository: Repository) -> None:
    apply(repository, *(put(recorded(f"prompt.p{number}", str(number) * 5000)) for number in range(20)))
    reader = Reader(repository, ENV)
    expected, head = reader.state(), reader.head()
    barrier = threading.Barrier(8)

    def read(_: int) -> bool:
        barrier.wait()
        return all(reader.state() == expected and reader.head() == head for _ in range(10))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))
    assert len(gits()) == 1


def test_an_interruption_between_question_and_answer(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    head = repository.head_commit()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("llmctl.record.catfile._read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            repository.objects.resolve("HEAD^{tree}")
    assert repository.head_commit() == head, "not the answer to the question before"


def test_a_git_that_is_too_old_for_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git 2.35 opens the repository; it is the first question that it does not understand."""
    script = """case "$*" in
        *--batch-command*) echo "error: unknown option \\`batch-command'" >&2; exit 129;;
        *version*) echo git version 2.35.8; exit;;
    esac"""
    shim(tmp_path, monkeypatch, script)
    repository = open_repository(folder)
    for use in (Reader(repository, ENV).state, repository.head_commit, lambda: Lock(repository, ENV).acquire("apply")):
        with pytest.raises(RecordError, match=r"git is too old: 2\.35\.8") as caught:
            use()
        assert "2.36" in caught.value.hint


@pytest.mark.parametrize("said", ["", "Welcome!", "a b c", "1 blob 99999"])
def test_a_git_that_talks_nonsense(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    shim(tmp_path, monkeypatch, f'case "$*" in *cat-file*) echo "{said}"; exit;; esac')
    with pytest.raises(RecordError, match="gave an answer that is none") as caught:
        repository.objects.contents(["HEAD"])
    assert "PATH" in caught.value.hint


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "name", [f"{BRANCH}:resources/prompt/answer.json", f"{BRANCH}:resources", f"{BRANCH}^{{tree}}"]
)
def test_a_damaged_object_is_never_read_as_an_empty_record(
    repository: Repository, folder: Path, name: str, packed: bool
) -> None:
    apply(repository, put(recorded("prompt.answer")))
    target = git(folder, "rev-parse", name)
    if packed:
        git(folder, "repack", "-adq")
        (path,) = (folder / ".git" / "objects" / "pack").glob("*.pack")
        line = next(x for x in git(folder, "verify-pack", "-v", str(path)).splitlines() if x.startswith(target))
        start, size = int(line.split()[4]) + 4, int(line.split()[3]) - 8
    else:
        path = folder / ".git" / "objects" / target[:2] / target[2:]
        start, size = 12, 8
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[start : start + size] = bytes(byte ^ 0xFF for byte in data[start : start + size])
    path.write_bytes(data)
    reader = Reader(open_repository(folder), ENV)
    for read in (reader.state, reader.state):
        with pytest.raises(RecordError, match=r"missing|damaged|cannot be read|not a tree") as caught:
            read()
        assert caught.value.hint


@pytest.mark.parametrize("damage", ["", "garbage\n", "0" * 40 + "\n", "no commit", "a commit that is gone"])
def test_a_damaged_branch_is_never_read_as_an_empty_record(repository: Repository, folder: Path, damage: str) -> None:
    apply(repository, put(recorded("prompt.answer")))
    if damage == "a commit that is gone":
        head = git(folder, "rev-parse", BRANCH)
        (folder / ".git" / "objects" / head[:2] / head[2:]).unlink()
    else:
        other = git(folder, "rev-parse", "HEAD^{tree}")
        (folder / ".git" / BRANCH).write_text(other if damage == "no commit" else damage)
    reader = Reader(open_repository(folder), ENV)
    for read in (reader.state, reader.summary, reader.evidence, reader.entries):
        with pytest.raises(RecordError, match="llmctl/dev is there, and names no commit that is") as caught:
            read()
        assert "git fsck" in caught.value.hint
    with pytest.raises(RecordError):
        Lock(open_repository(folder), ENV).acquire("llmctl apply")


def test_a_folder_that_is_gone_is_no_missing_git(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="git could not be started") as caught:
        CatFile(GitCommand(tmp_path / "gone")).resolve("HEAD")
    assert str(tmp_path / "gone") in caught.value.detail


def test_files_of_a_tree_are_those_that_git_lists(repository: Repository, folder: Path) -> None:
    for path in ("a/b/c.txt", "a/b.txt", "a/ü家.txt", "ab/x", "a b/tab\there", "line\nbreak/y", "z"):
        (folder / path).parent.mkdir(exist_ok=True, parents=True)
        (folder / path).write_text(path)
    (folder / "z").chmod(0o755)
    (folder / "link").symlink_to("a")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "shapes")
    for folders in ((), ("a/",), ("a/b/", "z"), ("a/b.txt",), ("ab/", "link"), ("none/", "lin")):
        said = git(folder, "ls-tree", "-r", "-z", "HEAD", "--", *folders).split("\0")
        wanted = {line.partition("\t")[2]: line.split()[2] for line in said if line}
        assert list_files(repository, repository.head_commit(), *folders) == wanted
