from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from llmctl.core.errors import LeaseLost, Locked, RecordError
from llmctl.core.exits import ExitCode
from llmctl.record import HeldLock, Lock, Reader, Repository
from tests.record.helpers import ENV, apply, git, llmctl_refs, put, recorded

REF = f"refs/llmctl/{ENV}/lock"

HOLD = """
import sys, time
from pathlib import Path
from llmctl.record import Lock, open_repository
lock = Lock(open_repository(Path(sys.argv[1])), "dev").acquire("llmctl apply")
print("held", flush=True)
sys.stdin.read()
"""

RACE = """
import sys
from pathlib import Path
from llmctl.core.errors import Locked
from llmctl.record import Lock, open_repository
lock = Lock(open_repository(Path(sys.argv[1])), "dev")
import psutil
print("ready", flush=True)
for line in sys.stdin:
    try:
        held = lock.acquire("race")
    except Locked as error:
        print("locked", flush=True)
    else:
        print("won", flush=True)
        sys.stdin.readline()
        held.release()
        print("released", flush=True)
"""


def python(code: str, folder: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )


@contextmanager
def running(code: str, folder: Path, first_line: str) -> Iterator[subprocess.Popen[str]]:
    with python(code, folder) as process:
        assert process.stdout
        try:
            assert process.stdout.readline().strip() == first_line
            yield process
        finally:
            process.kill()


def rewrite(folder: Path, **fields: object) -> None:
    """Change what the lock says, as another machine or an old lease would have it."""
    said = json.loads(git(folder, "cat-file", "blob", REF)) | fields
    blob = git(folder, "hash-object", "-w", "--stdin", stdin=json.dumps(said).encode())
    git(folder, "update-ref", REF, blob)


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_taken_shown_and_released(repository: Repository, folder: Path) -> None:
    lock = Lock(repository, ENV)
    assert lock.peek() is None
    before = time.time()
    with lock.acquire("llmctl apply") as held:
        info = lock.peek()
        assert info is not None
        assert (info.holder, info.pid, info.command, info.fence) == (repository.actor(), os.getpid(), "llmctl apply", 1)
        assert before + 30 <= info.lease_until <= time.time() + 30
        held.check()
    assert lock.peek() is None
    assert llmctl_refs(folder) == []
    held.release()  # twice does no harm
    with pytest.raises(LeaseLost):
        held.check()


def test_held_by_a_live_process(repository: Repository, folder: Path) -> None:
    with running(HOLD, folder, "held") as process:
        with pytest.raises(Locked) as caught:
            Lock(repository, ENV).acquire("llmctl destroy")
        text = caught.value.summary
        for part in ("Ann Example <ann@example.org>", f"pid {process.pid}", "llmctl apply", os.uname().nodename):
            assert part in text
        assert "unlock --force" in caught.value.hint
        assert caught.value.exit_code is ExitCode.LOCKED
        Lock(repository, "prod").acquire("x").release()  # another environment is another lock


def test_a_killed_holder_is_taken_over_at_once(repository: Repository, folder: Path) -> None:
    with running(HOLD, folder, "held") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = Lock(repository, ENV).peek()
        assert before is not None
        assert before.pid == process.pid
        assert not before.lapsed
        with Lock(repository, ENV).acquire("llmctl apply") as held:
            assert held.fence == before.fence + 1


def test_a_pid_that_another_process_has_now(repository: Repository, folder: Path) -> None:
    held = Lock(repository, ENV).acquire("a")
    rewrite(folder, pid_started=held._info.pid_started - 3600)
    with Lock(repository, ENV).acquire("b") as taken:
        assert taken.fence == held.fence + 1
    held.release()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere another boot is seen, and the lease alone counts")
@pytest.mark.parametrize("jump_s", [-86400, 10])
def test_a_clock_that_is_set_does_not_make_the_holder_another_process(
    repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    with running(HOLD, folder, "held"):
        boot, clock = psutil.boot_time(), time.time
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot + jump_s)
        monkeypatch.setattr(time, "time", lambda: clock() + jump_s)
        with pytest.raises(Locked):
            Lock(repository, ENV).acquire("b")


@pytest.mark.parametrize("elsewhere", [{"host": "other"}, {"boot": "other"}])
def test_another_machine_counts_only_by_its_lease(
    repository: Repository, folder: Path, elsewhere: dict[str, str]
) -> None:
    held = Lock(repository, ENV).acquire("a")
    rewrite(folder, pid=2**22 - 1, **elsewhere)  # no such process here, which says nothing about there
    with pytest.raises(Locked):
        Lock(repository, ENV).acquire("b")
    rewrite(folder, lease_until=time.time() - 1)
    with Lock(repository, ENV).acquire("b") as taken:
        assert taken.fence == 2
        held._read_again = 0
        with pytest.raises(LeaseLost, match="another command took it over"):
            held.check()
        held.release()
        taken._read_again = 0
        taken.check()  # the release of the old holder did not touch the new one's


def test_fences_only_rise(repository: Repository, folder: Path) -> None:
    lock = Lock(repository, ENV)
    with lock.acquire("a") as held:
        assert held.fence == 1
        apply(repository, put(recorded("prompt.answer")), fence=held.fence)
    with lock.acquire("a") as held:
        assert held.fence == 2
    with lock.acquire("a", at_least=40) as held:
        assert held.fence == 41
        apply(repository, put(recorded("prompt.answer", "2", 2)), fence=held.fence)
    with lock.acquire("a") as held:
        assert held.fence == 42
        rewrite(folder, fence=99, lease_until=0)
        with lock.acquire("b") as taken:
            assert taken.fence == 100
    assert Reader(repository, ENV).state().fence == 41


def test_a_forced_unlock_ends_the_lease_and_keeps_the_fence(repository: Repository) -> None:
    lock = Lock(repository, ENV)
    assert lock.force_expire() is None
    held = lock.acquire("a", at_least=6)
    info = lock.force_expire()
    assert info is not None
    assert info.fence == 7
    held._read_again = 0
    with pytest.raises(LeaseLost):
        held.check()
    with lock.acquire("b") as taken:
        assert taken.fence == 8
    held.release()


def test_the_lease_is_renewed_in_the_background(repository: Repository) -> None:
    lock = Lock(repository, ENV, lease_s=0.6, renew_s=0.05)
    with lock.acquire("a") as held:
        first = lock.peek()
        assert first is not None

        def renewed() -> bool:
            now = lock.peek()
            return now is not None and now.lease_until > first.lease_until + 0.7

        eventually(renewed)
        held.check()
        later = lock.peek()
        assert later is not None
        assert (later.fence, later.nonce != first.nonce) == (first.fence, True)


def test_a_lease_that_lapsed_is_lost_for_good(repository: Repository) -> None:
    lock = Lock(repository, ENV, lease_s=0.05, renew_s=60)
    held = lock.acquire("a")
    time.sleep(0.06)
    for _ in range(2):
        with pytest.raises(LeaseLost, match="its lease was over"):
            held.check()
    with lock.acquire("b") as taken:
        assert taken.fence == 2
    held.release()


def test_renewal_notices_that_the_lock_is_gone(repository: Repository, folder: Path) -> None:
    held = Lock(repository, ENV, lease_s=30, renew_s=0.02).acquire("a")
    git(folder, "update-ref", "-d", REF)
    eventually(lambda: bool(held._lost))
    with pytest.raises(LeaseLost):
        held.check()
    held.release()
    assert Lock(repository, ENV).peek() is None


def test_renewal_survives_a_failure_that_passes(repository: Repository, folder: Path) -> None:
    held = Lock(repository, ENV, lease_s=30, renew_s=0.02).acquire("a")
    until = held._info.lease_until
    objects = folder / ".git" / "objects"
    objects.rename(objects.with_name("elsewhere"))
    time.sleep(0.1)
    objects.with_name("elsewhere").rename(objects)
    eventually(lambda: held._info.lease_until > until + 0.2)
    held._read_again = 0
    held.check()
    held.release()


def test_check_is_cheap(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lock(repository, ENV).acquire("a") as held:
        calls: list[str] = []
        git = held._limited.git
        resolve = git.resolve

        def counting(name: str) -> str:
            calls.append(name)
            return resolve(name)

        monkeypatch.setattr(git, "resolve", counting)
        held._read_again = 0
        for _ in range(100):
            held.check()
        assert len(calls) == 1


@pytest.mark.parametrize("renew_s", [0.3, 60])
def test_a_git_that_hangs_does_not_outlast_the_lease(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renew_s: float
) -> None:
    """In the renewal (the first case) or in the check itself."""
    held = Lock(repository, ENV, lease_s=2, renew_s=renew_s).acquire("a")
    held._limited = repository.limited(1)
    called = tmp_path / "called"
    with monkeypatch.context() as patched:
        shim = tmp_path / "bin" / "git"
        shim.parent.mkdir()
        shim.write_text(f'#!/bin/sh\ntouch "{called}"\nexec sleep 1000\n')
        shim.chmod(0o755)
        patched.setenv("PATH", f"{shim.parent}{os.pathsep}{os.environ['PATH']}")
        if renew_s < 1:
            eventually(called.exists)
        held._read_again = 0
        with pytest.raises((RecordError, LeaseLost), match=r"git rev-parse did not end within 1 s|lease was over"):
            held.check()
        assert called.exists()
        time.sleep(max(0, held._lapses - time.monotonic()))
        with pytest.raises(LeaseLost, match="its lease was over"):
            held.check()
        eventually(lambda: not any("sleep" in p.name() for p in psutil.Process().children()))  # what hung is ended
    held.release()


def test_a_lock_that_cannot_be_read(repository: Repository, folder: Path) -> None:
    blob = git(folder, "hash-object", "-w", "--stdin", stdin=b"nonsense")
    git(folder, "update-ref", REF, blob)
    with pytest.raises(RecordError, match="cannot be read") as caught:
        Lock(repository, ENV).acquire("a")
    assert f"git update-ref -d {REF}" in caught.value.hint
    blob = git(folder, "hash-object", "-w", "--stdin", stdin=b'{"holder": "x"}')
    git(folder, "update-ref", REF, blob)
    with pytest.raises(RecordError, match="cannot be read"):
        Lock(repository, ENV).peek()


def test_two_processes_race_twenty_times_and_one_wins_each(repository: Repository, folder: Path) -> None:
    with running(RACE, folder, "ready") as one, running(RACE, folder, "ready") as two:
        racers = (one, two)

        def say(process: subprocess.Popen[str]) -> None:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()

        def hear(process: subprocess.Popen[str]) -> str:
            assert process.stdout
            return process.stdout.readline().strip()

        for _ in range(20):
            for process in racers:
                say(process)
            results = [hear(process) for process in racers]
            assert sorted(results) == ["locked", "won"]
            assert Lock(repository, ENV).peek() is not None
            winner = racers[results.index("won")]
            say(winner)
            assert hear(winner) == "released"


def test_threads_race_for_a_dead_holders_lock(repository: Repository, folder: Path) -> None:
    for _ in range(5):
        dead = Lock(repository, ENV, renew_s=60).acquire("a")
        rewrite(folder, lease_until=0)
        won: list[HeldLock] = []
        barrier = threading.Barrier(4)

        def take(won: list[HeldLock] = won, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            try:
                won.append(Lock(repository, ENV).acquire("b"))
            except Locked:
                return

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        won[0].release()
        dead.release()
