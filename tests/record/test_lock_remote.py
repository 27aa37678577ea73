"""The lock on a remote: clones race for it, machines disappear with it, connections break under it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.errors import LeaseLost, Locked, RecordError
from llmctl.record import Lock, RemoteError, Repository
from llmctl.record.git import Answer, GitCommand
from llmctl.record.lock import REMOTE_LEASE_S, REMOTE_RENEW_S, SKEW_S
from llmctl.record.objects import utc
from tests.record.helpers import ENV, git, put, recorded
from tests.record.remotes import LOCK, Line, apply, begin, lose_answers, refuse, remote_refs
from tests.record.test_lock import RACE, eventually

ROUNDS = int(os.environ.get("LLMCTL_RACES", "40"))
RACE_ON_REMOTE = RACE.replace("sys.argv[1])", 'sys.argv[1]), remote="origin"')


def said(bare: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(git(bare, "cat-file", "blob", LOCK))
    return found


def rewrite(bare: Path, **fields: object) -> None:
    """Change what the remote's lock says, as another machine or an old lease would have it."""
    blob = git(bare, "hash-object", "-w", "--stdin", stdin=json.dumps(said(bare) | fields).encode())
    git(bare, "update-ref", LOCK, blob)


def test_taken_on_the_remote_shown_and_released(ann: Repository, bob: Repository, bare: Path) -> None:
    before = time.time()
    with Lock(ann, ENV).acquire("llmctl apply") as held:
        found = said(bare)
        assert (found["holder"], found["fence"], found["pid"]) == (ann.actor(), 1, os.getpid())
        assert before + REMOTE_LEASE_S <= found["lease_until"] <= time.time() + REMOTE_LEASE_S
        assert found["grace_s"] == SKEW_S
        with pytest.raises(Locked) as caught:
            Lock(bob, ENV).acquire("llmctl apply")
        assert "Ann <ann@example.org>" in caught.value.summary
        assert "It is held for " in caught.value.detail
        assert "unlock --force" in caught.value.hint
        assert git(bob.work_tree, "for-each-ref", "refs/llmctl") == ""
        held.check()
    assert remote_refs(bare) == {}
    assert Lock(ann, ENV).peek() is None
    with Lock(bob, ENV).acquire("llmctl apply") as taken:
        assert taken.fence == 1  # nothing was recorded in between, so no fence was ever used


def test_two_clones_race_and_one_wins_each(ann: Repository, bob: Repository, bare: Path) -> None:
    with _racer(ann) as one, _racer(bob) as two:
        racers = (one, two)
        wins = [0, 0]
        for _ in range(ROUNDS):
            for process in racers:
                _say(process)
            results = [_hear(process) for process in racers]
            assert sorted(results) == ["locked", "won"]
            wins[results.index("won")] += 1
            winner = racers[results.index("won")]
            _say(winner)
            assert _hear(winner) == "released"
            assert remote_refs(bare) == {}
    print(f"{ROUNDS} races, won {wins}")


@contextmanager
def _racer(repository: Repository) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RACE_ON_REMOTE, str(repository.work_tree)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert _hear(process) == "ready"
            yield process
        finally:
            process.kill()


def _say(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def _hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize("elsewhere", [{"host": "other"}, {"boot": "other"}])
def test_a_vanished_machine_is_waited_for_until_its_lease_is_over_by_any_clock(
    ann: Repository, bob: Repository, bare: Path, elsewhere: dict[str, str]
) -> None:
    held = Lock(ann, ENV).acquire("a", at_least=6)
    rewrite(bare, pid=2**22 - 1, **elsewhere)
    for lease_until in (time.time() + 10, time.time() - SKEW_S + 5):
        rewrite(bare, lease_until=lease_until)
        with pytest.raises(Locked):
            Lock(bob, ENV).acquire("b")
    rewrite(bare, lease_until=time.time() - SKEW_S - 1)
    with Lock(bob, ENV).acquire("b") as taken:
        assert taken.fence == 8
        with pytest.raises(LeaseLost, match="another command took it over"):
            held.push()
        with pytest.raises(LeaseLost):
            held.check()
        held.release()
        taken.push()
        taken.check()  # the release of the old holder did not touch the new one's


def test_a_process_that_is_gone_from_this_machine_is_not_waited_for(
    ann: Repository, bob: Repository, bare: Path
) -> None:
    with _racer(ann) as racer:
        _say(racer)
        assert _hear(racer) == "won"
        racer.kill()
        racer.wait()
    assert said(bare)["pid"] == racer.pid
    with Lock(bob, ENV).acquire("b") as held:
        assert held.fence == 2
    with Lock(ann, ENV).acquire("b") as held:  # over what is left in its own clone
        assert held.fence == 2  # nothing was recorded under the other one's
    assert remote_refs(bare) == {}


def test_the_lease_is_renewed_on_the_remote(ann: Repository, bare: Path) -> None:
    with Lock(ann, ENV, lease_s=20, renew_s=0.05).acquire("a") as held:
        first = said(bare)
        eventually(lambda: said(bare)["lease_until"] > first["lease_until"] + 0.2)
        held.check()
        assert (said(bare)["fence"], said(bare)["nonce"] != first["nonce"]) == (first["fence"], True)


def test_the_renewing_thread_sees_that_it_was_overtaken(ann: Repository, bare: Path) -> None:
    held = Lock(ann, ENV, lease_s=60, renew_s=0.05).acquire("a")
    rewrite(bare, holder="somebody else")
    eventually(lambda: bool(held._lost))
    with pytest.raises(LeaseLost, match="another command took it over"):
        held.check()
    held.release()
    assert said(bare)["holder"] == "somebody else"


def test_a_connection_that_breaks_for_a_while(ann: Repository, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(bare, monkeypatch)
    line.attach(ann)
    with Lock(ann, ENV, lease_s=60, renew_s=60).acquire("a") as held:
        line.cut()
        with pytest.raises(RemoteError):
            held.push()
        held.check()  # the lease goes on
        line.mend()
        held.push()
        held.check()
    assert remote_refs(bare) == {}


def test_a_connection_that_does_not_come_back_ends_with_the_lease(
    ann: Repository, bob: Repository, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(bare, monkeypatch)
    line.attach(ann)
    held = Lock(ann, ENV, lease_s=1.5, renew_s=0.2).acquire("a")
    line.cut()
    time.sleep(max(0.0, held._lapses - time.monotonic()))
    eventually(lambda: _is_lost(held.check))
    held.release()  # which cannot reach the remote either
    assert LOCK in remote_refs(bare)
    with Lock(bob, ENV).acquire("b") as taken:  # same machine: no allowance for its clock
        assert taken.fence == 2


def _is_lost(check: Callable[[], None]) -> bool:
    try:
        check()
    except LeaseLost as error:
        return "its lease was over" in error.summary
    return False


@pytest.mark.parametrize("then_cut", [0, 1])
def test_a_renewal_whose_answer_was_lost_was_made_all_the_same(
    ann: Repository, bare: Path, monkeypatch: pytest.MonkeyPatch, then_cut: int
) -> None:
    """Then nobody could say at once whether it was: the next one asks first."""
    Line(bare, monkeypatch).attach(ann)
    with Lock(ann, ENV, renew_s=60).acquire("a") as held:
        first = said(bare)["nonce"]
        lose_answers(bare, then_cut=then_cut)
        if then_cut:
            with pytest.raises(RemoteError):
                held.push()
        else:
            held.push()
        assert said(bare)["nonce"] != first
        held.push()
        held.check()
    assert remote_refs(bare) == {}


def test_a_release_that_cannot_reach_the_remote_at_once(
    ann: Repository, bob: Repository, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other machines would else wait until the lease is over, for nobody."""
    line = Line(bare, monkeypatch)
    line.attach(ann)
    held = Lock(ann, ENV).acquire("a")
    line.cut(times=2)  # the push, and the question whether it was made
    held.release()
    assert remote_refs(bare) == {}
    Lock(bob, ENV).acquire("b").release()


def test_a_push_that_ctrl_c_interrupts_does_not_leave_the_lock(
    ann: Repository, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remote has made it all the same, and who releases the lock has to know."""
    real = GitCommand.ask

    def ask(command: GitCommand, *arguments: str, stdin: bytes = b"", foreground: bool = False) -> Answer:
        answer = real(command, *arguments, stdin=stdin, foreground=foreground)
        if arguments[0] == "push":
            monkeypatch.setattr(GitCommand, "ask", real)
            raise KeyboardInterrupt
        return answer

    held = Lock(ann, ENV, renew_s=60).acquire("a")
    monkeypatch.setattr(GitCommand, "ask", ask)
    with pytest.raises(KeyboardInterrupt):
        held.push()
    held.release()
    assert remote_refs(bare) == {}


def test_other_refs_go_with_the_lock_or_not_at_all(ann: Repository, bare: Path) -> None:
    note = f"refs/llmctl/{ENV}/note"
    one = git(ann.work_tree, "hash-object", "-w", "--stdin", stdin=b"one")
    with Lock(ann, ENV, renew_s=60).acquire("a") as held:
        held.push({note: one})
        assert remote_refs(bare)[note] == one
        rewrite(bare, holder="somebody else")
        with pytest.raises(LeaseLost):
            held.push({note: ""})
        assert remote_refs(bare)[note] == one


def test_a_lock_that_the_remote_refuses_leaves_nothing_here(ann: Repository, bare: Path) -> None:
    refuse(bare, "lock")
    with pytest.raises(RemoteError) as caught:
        Lock(ann, ENV).acquire("a")
    assert "ask the owners" in caught.value.detail
    assert git(ann.work_tree, "for-each-ref", "refs/llmctl") == ""


def test_unlocked_from_another_clone(ann: Repository, bob: Repository, bare: Path) -> None:
    held = Lock(ann, ENV, renew_s=60).acquire("a")
    lock = Lock(bob, ENV)
    assert lock.peek() is None  # nothing was fetched yet
    with pytest.raises(Locked):
        lock.acquire("b")
    info = lock.force_expire()
    assert info is not None
    assert (info.holder, info.fence) == (ann.actor(), 1)
    assert said(bare)["lease_until"] == 0
    with pytest.raises(LeaseLost):
        held.push()
    with lock.acquire("b") as taken:
        assert taken.fence == 2
    held.release()


def test_a_fence_is_higher_than_that_of_an_open_attempt(ann: Repository, bob: Repository, bare: Path) -> None:
    apply(ann, put(recorded("prompt.a")))
    with Lock(ann, ENV).acquire("a", at_least=10) as held:
        begin(ann, held).intend("s", "e", {})
    assert [ref for ref in remote_refs(bare) if ref.endswith(("lock", "attempt/2"))] == [f"refs/llmctl/{ENV}/attempt/2"]
    for repository in (ann, bob):
        with Lock(repository, ENV).acquire("b") as taken:
            assert taken.fence == 12


def test_a_record_that_came_from_elsewhere_under_the_lock(ann: Repository, bob: Repository) -> None:
    """What this clone knew of the record was old: the fence is chosen anew."""
    for number in range(3):
        apply(bob, put(recorded("prompt.a", str(number), number + 1)))
    with Lock(ann, ENV).acquire("a") as held:
        assert held.fence == 4


def test_a_lock_on_the_remote_that_cannot_be_read(ann: Repository, bare: Path) -> None:
    blob = git(bare, "hash-object", "-w", "--stdin", stdin=b"nonsense")
    git(bare, "update-ref", LOCK, blob)
    with pytest.raises(RecordError, match="cannot be read") as caught:
        Lock(ann, ENV).acquire("a")
    assert f"git push origin :{LOCK}" in caught.value.hint


@pytest.mark.parametrize(("held_s", "said"), [(30.0, "30 s"), (250.0, "4 min"), (7300.0, "2 h"), (200_000.0, "2 d")])
def test_how_long_it_is_held(ann: Repository, held_s: float, said: str) -> None:
    with Lock(ann, ENV).acquire("a"):
        info = Lock(ann, ENV).peek()
    assert info is not None
    assert info.is_ours
    begun = utc(datetime.now(UTC) - timedelta(seconds=held_s))  # to the second, so it may be one more
    assert replace(info, started_at=begun).age() in (f"held for {said}", f"held for {said[:-3]}1 s")
    assert replace(info, started_at="long ago").age() == "held for an unknown time"
    assert not replace(info, host="elsewhere").is_ours


def test_constants_leave_room_for_a_failed_renewal() -> None:
    assert 2 * REMOTE_RENEW_S < REMOTE_LEASE_S
