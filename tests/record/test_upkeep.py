"""What upkeep does to real repositories: the same objects in fewer files, whatever else goes on there."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.record import Lock, Repository, attempt, open_repository, upkeep
from llmctl.record.holder import this_process
from llmctl.record.lock import LEASE_S
from tests.record.helpers import BRANCH, ENV, begin, git, make_repository, put, recorded, users_view

OFTEN = 4


@pytest.fixture(autouse=True)
def _sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Due at every 4th entry, twice as much at every 8th, and when a test says so."""
    monkeypatch.setattr(upkeep, "OFTEN", OFTEN)
    monkeypatch.setattr(upkeep, "_GROWTH", 2)
    monkeypatch.setattr(attempt, "upkeep", lambda *_: None)


def applies(repository: Repository, first: int, last: int, changes: int = 1, *, lag_s: float = 3600.0) -> None:
    """The entries ``first`` to ``last``, without the upkeep that follows them."""
    for serial in range(first, last + 1):
        made = begin(repository, lag_s=lag_s)
        assert made.serial == serial
        for number in range(changes):
            made.commit(put(recorded(f"prompt.p{number:03}", text=f"text {serial}", version=serial)))
        made.close("applied", subject=f"Apply {serial}", decisions={}, rejections=())


def keep_up(repository: Repository, serial: int, changes: int = 1) -> None:
    upkeep.upkeep(repository, ENV, serial, changes)


def objects(folder: Path) -> set[str]:
    """All objects that are there, reachable or not, with their sizes."""
    return set(git(folder, "cat-file", "--batch-all-objects", "--batch-check").splitlines())


def files(folder: Path) -> set[str]:
    found = (folder / ".git/objects").rglob("*")
    return {str(path.relative_to(folder / ".git/objects")) for path in found if path.is_file()}


def packs(folder: Path) -> set[str]:
    return {path.stem for path in (folder / ".git/objects/pack").glob("*.pack")}


def loose(folder: Path) -> set[str]:
    return {path.replace("/", "") for path in files(folder) if len(path) == 41}


def ours(folder: Path) -> set[str]:
    return set(git(folder, "rev-list", "--objects", "--no-object-names", BRANCH).split())


def assert_whole(folder: Path) -> None:
    git(folder, "fsck", "--strict", "--no-dangling")
    if (folder / ".git/objects/info/commit-graphs").exists():
        git(folder, "commit-graph", "verify")


def test_loose_objects_become_one_pack_and_nothing_is_lost(repository: Repository, folder: Path) -> None:
    git(folder, "commit", "-q", "--allow-empty", "-m", "The user's own")
    applies(repository, 1, OFTEN)
    before, view, users = objects(folder), users_view(folder), loose(folder) - ours(folder)
    keep_up(repository, OFTEN)
    assert objects(folder) == before
    assert users_view(folder) == view
    assert users <= loose(folder)
    assert len(packs(folder)) == 1
    # What the record began with is older than its fourth last entry.
    assert loose(folder) & ours(folder) == set(
        git(folder, "rev-list", "--objects", "--no-object-names", f"{BRANCH}~{OFTEN}").split()
    )
    assert_whole(folder)


def test_an_attempt_does_it_when_it_closes(
    repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "upkeep", upkeep.upkeep)
    applies(repository, 1, OFTEN - 1)
    assert packs(folder) == set()
    applies(repository, OFTEN, OFTEN)
    assert len(packs(folder)) == 1
    applies(repository, OFTEN + 1, OFTEN + 1, changes=OFTEN, lag_s=0.0)  # each was stored by itself
    assert len(packs(folder)) == 2
    monkeypatch.setattr(upkeep, "_LIMIT_S", 0.0)  # git is ended at once
    applies(repository, OFTEN + 2, 2 * OFTEN)
    assert len(packs(folder)) == 2
    assert_whole(folder)


def test_packs_grow_and_stay_few(repository: Repository, folder: Path) -> None:
    for serial in range(1, 33):
        applies(repository, serial, serial, changes=2)
        keep_up(repository, serial, 2)
    assert len(packs(folder)) == 1  # 32 is 4 doubled three times
    assert len(loose(folder) & ours(folder)) < 10
    before = objects(folder)
    applies(repository, 33, 36)
    keep_up(repository, 36)
    assert len(packs(folder)) == 2
    assert before < objects(folder)
    assert_whole(folder)


def test_nothing_is_done_when_nothing_is_due(repository: Repository, folder: Path) -> None:
    applies(repository, 1, 3)
    before = files(folder)
    for serial in range(1, 4):
        keep_up(repository, serial, OFTEN - 1)
    assert files(folder) == before


def test_a_pack_of_a_large_apply_goes_into_the_next_one(repository: Repository, folder: Path) -> None:
    applies(repository, 1, OFTEN, changes=60)
    assert len(packs(folder)) == OFTEN
    before = objects(folder)
    keep_up(repository, OFTEN, 60)
    assert len(packs(folder)) == 1
    assert objects(folder) == before
    assert_whole(folder)


@pytest.mark.parametrize("suffix", [".keep", ".promisor", ".bitmap", ".mtimes"])
def test_a_pack_that_means_more_is_left(repository: Repository, folder: Path, suffix: str) -> None:
    applies(repository, 1, OFTEN, changes=60)
    kept = sorted(packs(folder))[0]
    mark = folder / ".git/objects/pack" / f"{kept}{suffix}"
    mark.write_bytes(b"")
    keep_up(repository, OFTEN, 60)
    assert kept in packs(folder)
    assert len(packs(folder)) == 2
    mark.unlink()
    assert_whole(folder)


def test_packs_that_a_multi_pack_index_names_are_left(repository: Repository, folder: Path) -> None:
    applies(repository, 1, OFTEN, changes=60)
    git(folder, "multi-pack-index", "write")
    before, names = objects(folder), packs(folder)
    keep_up(repository, OFTEN, 60)
    assert names < packs(folder)
    assert objects(folder) == before
    git(folder, "multi-pack-index", "verify")
    assert_whole(folder)


def test_changes_that_were_stored_one_by_one_are_packed_at_once(repository: Repository, folder: Path) -> None:
    applies(repository, 1, 1, changes=10, lag_s=0.0)
    before = objects(folder)
    keep_up(repository, 1, 10)
    assert len(packs(folder)) == 1
    assert len(loose(folder) & ours(folder)) < 3
    assert objects(folder) == before
    assert_whole(folder)


def test_git_knows_which_commit_changed_which_path(repository: Repository, folder: Path) -> None:
    applies(repository, 1, 1, changes=70)  # as in one apply that is a pack already
    keep_up(repository, 1, 70)
    graphs = list((folder / ".git/objects/info/commit-graphs").glob("*.graph"))
    assert len(graphs) == 1
    assert b"BIDX" in graphs[0].read_bytes()[:200]
    assert len(git(folder, "log", "--format=%h", BRANCH, "--", "resources/prompt/p007.json").split()) == 1
    applies(repository, 2, OFTEN)
    keep_up(repository, OFTEN)
    assert_whole(folder)


@pytest.mark.parametrize("how", ["gc.auto", "core.logAllRefUpdates", "partial", "shallow"])
def test_where_it_is_not_wanted_it_is_not_done(repository: Repository, folder: Path, how: str) -> None:
    applies(repository, 1, OFTEN)
    if how == "gc.auto":
        git(folder, "config", "gc.auto", "0")
    elif how == "core.logAllRefUpdates":
        git(folder, "config", how, "always")
    elif how == "partial":
        git(folder, "config", "remote.origin.promisor", "true")
    else:
        (folder / ".git/shallow").write_text(git(folder, "rev-parse", f"{BRANCH}~1") + "\n")
    before = files(folder)
    keep_up(repository, OFTEN)
    assert files(folder) == before


def test_what_locks_were_goes_and_what_locks_are_stays(
    repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applies(repository, 1, OFTEN)
    like = git(folder, "hash-object", "-w", "--stdin", stdin=b'{"boot": "a file of the user\'s"}')
    before = loose(folder)
    lock = Lock(repository, ENV, lease_s=30.0)
    for _ in range(3):
        lock.acquire("apply").release()
    other = Lock(repository, "prod").acquire("apply")
    held = lock.acquire("apply")
    present = {git(folder, "rev-parse", f"refs/llmctl/{name}/lock") for name in (ENV, "prod")}
    assert len(loose(folder) - before) == 5
    keep_up(repository, OFTEN)
    assert len(loose(folder) - before) == 5, "their leases are not yet over"
    monkeypatch.setattr(upkeep, "_OVER_S", -1e6)  # as if they were long over
    keep_up(repository, OFTEN)
    assert loose(folder) - before == present
    assert like in loose(folder)
    held.check()
    held.release()
    other.release()
    assert_whole(folder)


@pytest.mark.parametrize("kept", ["committed", "staged"])
def test_a_lock_that_the_user_kept_stays(
    repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    """Somebody files what the lock said of an apply that hung: that file is the same object as the lock."""
    applies(repository, 1, OFTEN)
    texts = [_lock_of(seconds_ago=20) for _ in range(2)]
    names = [git(folder, "hash-object", "-w", "--stdin", stdin=text) for text in texts]
    for name in names:
        os.utime(folder / ".git/objects" / name[:2] / name[2:], (time.time() - 20, time.time() - 20))
    (folder / "incident.json").write_bytes(texts[0])
    git(folder, "add", "incident.json")
    if kept == "committed":
        git(folder, "commit", "-q", "-m", "Report what hung")
    monkeypatch.setattr(upkeep, "_OVER_S", -1e6)
    keep_up(repository, OFTEN)
    assert set(names) & loose(folder) == {names[0]}
    assert_whole(folder)


def _lock_of(*, seconds_ago: int) -> bytes:
    info = this_process("Ann", "llmctl apply", 1, LEASE_S, 0.0)
    return replace(info, lease_until=info.lease_until - seconds_ago).encoded()


# -- what goes wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["exit 1", "kill -9 $$", '"$real" "$@" >/dev/null; kill -9 $$'])
@pytest.mark.parametrize("command", ["pack-objects", "commit-graph", "config", "rev-list"])
def test_a_git_that_fails_loses_nothing(
    repository: Repository, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, fate: str
) -> None:
    applies(repository, 1, 2 * OFTEN)
    before = objects(folder)
    real = subprocess.run(["which", "git"], check=True, capture_output=True, text=True).stdout.strip()
    fake = tmp_path / "bin/git"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nreal={real}\ncase " $* " in *" {command} "*) {fate};; esac\nexec $real "$@"\n')
    fake.chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{fake.parent}:{path}")
    keep_up(repository, 2 * OFTEN)
    monkeypatch.setenv("PATH", path)
    assert objects(folder) == before
    assert_whole(folder)
    keep_up(repository, 2 * OFTEN)
    assert len(packs(folder)) == 1
    assert objects(folder) == before
    assert_whole(folder)


def test_a_process_that_ends_among_the_deletions_loses_nothing(
    repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applies(repository, 1, OFTEN, changes=60)
    before, real, left = objects(folder), Path.unlink, [0]

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        real(path, missing_ok)

    for deletions in range(0, 400, 37):
        left[0] = deletions
        monkeypatch.setattr(Path, "unlink", unlink)
        try:
            keep_up(repository, OFTEN, 60)
        except KeyboardInterrupt:
            pass
        finally:
            monkeypatch.setattr(Path, "unlink", real)
        assert objects(folder) == before
        assert_whole(folder)


def test_an_index_that_is_none_is_left(repository: Repository, folder: Path) -> None:
    applies(repository, 1, OFTEN)
    odd = folder / ".git/objects/pack"
    odd.mkdir(exist_ok=True)
    for name, data in {"pack-a.idx": b"", "pack-b.idx": b"\377tOc\0\0\0\2short", "pack-c.idx": b"x" * 5000}.items():
        (odd / name).write_bytes(data)
    (odd / "pack-d.idx").mkdir()
    keep_up(repository, OFTEN)
    assert {path.name for path in odd.glob("pack-[abcd].idx")} == {f"pack-{n}.idx" for n in "abcd"}
    assert len(packs(folder)) == 1


def test_a_folder_of_packs_that_cannot_be_written(repository: Repository, folder: Path) -> None:
    applies(repository, 1, OFTEN)
    before = objects(folder)
    (folder / ".git/objects/pack").rmdir()
    (folder / ".git/objects/pack").write_text("in the way")
    keep_up(repository, OFTEN)
    assert objects(folder) == before
    assert_whole(folder)


def test_a_record_that_lost_its_beginning(repository: Repository, folder: Path) -> None:
    applies(repository, 1, 2)
    before = files(folder)
    keep_up(repository, 1_000_000 * OFTEN)  # there are not so many entries
    assert objects(folder)
    assert before <= files(folder)


# -- beside others --------------------------------------------------------------------------------------------


def test_beside_readers_and_a_repack(repository: Repository, folder: Path) -> None:
    applies(repository, 1, 3 * OFTEN, changes=8)
    before, wrong, stop = objects(folder), list[str](), threading.Event()

    def read(*command: str) -> None:
        while not stop.is_set():
            done = subprocess.run(["git", *command], cwd=folder, capture_output=True, check=False)
            if done.returncode:
                wrong.append(done.stderr.decode())

    commands = (("rev-list", "--objects", BRANCH), ("repack", "-q", "-d"), ("log", "-p", BRANCH))
    threads = [threading.Thread(target=read, args=command) for command in commands]
    for thread in threads:
        thread.start()
    for _ in range(3):
        for serial in (OFTEN, 2 * OFTEN):
            keep_up(repository, serial)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert objects(folder) == before
    assert_whole(folder)


def test_a_clone_that_borrows_objects(repository: Repository, folder: Path, tmp_path: Path) -> None:
    applies(repository, 1, OFTEN)
    borrower = tmp_path / "borrower"
    subprocess.run(["git", "clone", "-q", "--shared", str(folder), str(borrower)], check=True)
    git(borrower, "config", "user.name", "Ann Example")
    git(borrower, "config", "user.email", "ann@example.org")
    git(borrower, "branch", "-q", f"llmctl/{ENV}", f"origin/llmctl/{ENV}")
    second = open_repository(borrower)
    applies(second, OFTEN + 1, 2 * OFTEN)
    own = len(loose(borrower))
    keep_up(repository, OFTEN)
    keep_up(second, 2 * OFTEN)
    packed = git(borrower, "show-index", stdin=next((borrower / ".git/objects/pack").glob("*.idx")).read_bytes())
    assert len(packed.splitlines()) == own
    assert_whole(folder)
    assert_whole(borrower)


def test_in_a_linked_work_tree_and_with_sha256(tmp_path: Path) -> None:
    folder = tmp_path / "sha256"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main", "--object-format=sha256")
    make_repository(folder)
    git(folder, "worktree", "add", "-q", str(tmp_path / "linked"))
    repository = open_repository(tmp_path / "linked")
    applies(repository, 1, OFTEN)
    before = objects(folder)
    keep_up(repository, OFTEN)
    assert len(packs(folder)) == 1
    began = set(git(folder, "rev-list", "--objects", "--no-object-names", f"{BRANCH}~{OFTEN}").split())
    assert {path.replace("/", "") for path in files(folder) if len(path) == 65} & ours(folder) == began
    assert objects(folder) == before
    assert_whole(folder)
