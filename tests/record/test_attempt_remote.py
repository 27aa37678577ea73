"""Attempts on a remote: the journal is there before an effect is made, and what the remote refuses is not lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.errors import LeaseLost, LlmctlError, RecordError
from llmctl.record import Lock, Reader, RemoteError, Repository, find_interrupted
from llmctl.record.shipping import shipped
from tests.record.helpers import BRANCH, ENV, git, put, recorded
from tests.record.helpers import begin as begin_here
from tests.record.remotes import (
    LOCK,
    Line,
    apply,
    attempt_ref,
    begin,
    finish,
    head,
    journal,
    lose_answers,
    on_remote,
    refuse,
    remote_refs,
    sound,
    sync,
)
from tests.record.test_lock import eventually


def test_an_intent_is_on_the_remote_before_its_effect(ann: Repository, bare: Path) -> None:
    with Lock(ann, ENV, renew_s=60).acquire("a") as held:
        attempt = begin(ann, held)
        assert [line["type"] for line in on_remote(bare, 1)] == ["attempt"]
        intent = attempt.intend("stage:route.a", "publish", {"n": 1})
        assert on_remote(bare, 1)[-1]["id"] == intent.id
        attempt.done(intent, "ok", {})
        attempt.commit(put(recorded("prompt.a")))
        assert [line["type"] for line in on_remote(bare, 1)] == ["attempt", "intent"]  # these wait for nobody
        attempt.intend("stage:route.b", "publish", {})
        assert [line["type"] for line in on_remote(bare, 1)] == ["attempt", "intent", "done", "change", "intent"]
        sync(ann)
        tip = git(ann.work_tree, "rev-parse", f"refs/llmctl-remotes/origin/{ENV}/attempt/1")
        assert shipped(ann, tip) == journal(ann, 1).read_bytes()
        attempt.close("applied", subject="x", decisions={}, rejections=())
    sound(bare, ann)


def test_what_waits_goes_along_with_a_renewal(ann: Repository, bare: Path) -> None:
    with Lock(ann, ENV, renew_s=0.2).acquire("a") as held:
        attempt = begin(ann, held)
        attempt.commit(put(recorded("prompt.a")))
        eventually(lambda: on_remote(bare, 1)[-1]["type"] == "change")
        attempt.close("applied", subject="x", decisions={}, rejections=())
        nonce = git(bare, "rev-parse", LOCK)
        eventually(lambda: git(bare, "rev-parse", LOCK) != nonce)  # and after the close the lock alone is renewed
        assert set(remote_refs(bare)) == {BRANCH, LOCK}
    sound(bare, ann)


def test_the_users_own_gc_takes_nothing_from_an_attempt_that_runs(ann: Repository, bare: Path) -> None:
    with Lock(ann, ENV, renew_s=60).acquire("llmctl apply") as held:
        attempt = begin(ann, held)
        for number in range(2):
            git(ann.work_tree, "gc", "-q", "--prune=now")
            attempt.intend(f"step {number}", "effect", {})
            attempt.commit(put(recorded(f"prompt.p{number}")))
        git(ann.work_tree, "gc", "-q", "--prune=now")
        attempt.close("applied", subject="Apply", decisions={}, rejections=())
    sound(bare, ann)


def test_intents_that_wait_at_once_share_a_push(ann: Repository, bare: Path) -> None:
    with Lock(ann, ENV, renew_s=60).acquire("a") as held:
        attempt = begin(ann, held)
        pushes: list[int] = []
        push = held.push

        def counted(*arguments: Any) -> None:
            pushes.append(1)
            push(*arguments)

        held.push = counted  # type: ignore[method-assign, assignment]
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(lambda number: attempt.intend(f"step-{number}", "create", {}), range(64)))
        assert len(pushes) < 20
        assert sum(line["type"] == "intent" for line in on_remote(bare, 1)) == 64
        attempt.close("applied", subject="x", decisions={}, rejections=())
    sound(bare, ann)


def test_without_the_lock_nothing_begins(ann: Repository) -> None:
    with pytest.raises(ValueError, match="needs the lock"):
        begin_here(ann)
    assert not journal(ann, 1).exists()


def test_one_that_lost_the_lock_adds_nothing(ann: Repository, bob: Repository, bare: Path) -> None:
    with Lock(ann, ENV, renew_s=60).acquire("a") as held:
        attempt = begin(ann, held)
        attempt.commit(put(recorded("prompt.a")))
        Lock(bob, ENV).force_expire()
        sync(bob)
        Lock(bob, ENV).force_expire()
        before = remote_refs(bare)
        acts: list[Callable[[], object]] = [
            lambda: attempt.intend("s", "e", {}),
            held.check,
            lambda: attempt.close("applied", subject="x", decisions={}, rejections=()),
        ]
        for act in acts:
            with pytest.raises(LeaseLost, match="another command took it over"):
                act()
        assert remote_refs(bare) == before
    assert finish(bob)[0].startswith("apply 1 of dev by Ann <ann@example.org>")
    assert [e.outcome for e in Reader(bob, ENV).entries()] == ["interrupted"]
    assert "what this clone still had of it is dropped" in finish(ann)[0]
    sound(bare, ann, bob)


def test_an_intent_that_cannot_reach_the_remote_is_refused(
    ann: Repository, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmctl.record.shipping.PATIENCE", (0.0,))
    line = Line(bare, monkeypatch)
    line.attach(ann)
    with Lock(ann, ENV, renew_s=60).acquire("a") as held:
        attempt = begin(ann, held)
        line.cut()
        with pytest.raises(RemoteError):
            attempt.intend("s", "e", {})
        line.mend()
        attempt.intend("s2", "e", {})
        assert [line.get("step") for line in on_remote(bare, 1)] == [None, "s", "s2"]
        attempt.close("failed", subject="x", decisions={}, rejections=())
    sound(bare, ann)


@pytest.mark.parametrize("then_cut", [0, 1])
def test_a_lost_answer_to_an_intent(
    ann: Repository, bare: Path, monkeypatch: pytest.MonkeyPatch, then_cut: int
) -> None:
    monkeypatch.setattr("llmctl.record.shipping.PATIENCE", (0.0,))
    Line(bare, monkeypatch).attach(ann)
    with Lock(ann, ENV, renew_s=60).acquire("a") as held:
        attempt = begin(ann, held)
        lose_answers(bare, then_cut=then_cut)
        attempt.intend("s", "e", {})
        attempt.intend("s2", "e", {})
        assert [line.get("step") for line in on_remote(bare, 1)] == [None, "s", "s2"]
        attempt.close("applied", subject="x", decisions={}, rejections=())
    sound(bare, ann)


def attempted(repository: Repository) -> LlmctlError:
    """An attempt with one change whose close fails; returns why."""
    with Lock(repository, ENV, renew_s=60).acquire("a") as held:
        attempt = begin(repository, held)
        attempt.commit(put(recorded("prompt.a")))
        with pytest.raises((RecordError, LeaseLost)) as caught:
            attempt.close("rolled back", subject="Back", decisions={"reason": "slow"}, rejections=())
    return caught.value


def assert_kept_and_finished(bare: Path, ann: Repository, error: LlmctlError) -> None:
    """What the remote did not take is all here, is told, and gets into the record as what it was."""
    assert str(journal(ann, 1)) in error.detail
    assert attempt_ref(1) in error.detail
    assert head(bare) == head(ann.work_tree) == ""
    said = finish(ann)
    assert "is over (rolled back), and was interrupted before it could be recorded" in said[0]
    detail = Reader(ann, ENV).entry(1)
    assert (detail.entry.outcome, detail.entry.subject) == ("rolled back", "Back")
    assert detail.decisions == {"reason": "slow"}
    assert [c.subject for c in detail.changes] == ["Create prompt.a v1"]
    sound(bare, ann)


def test_a_close_that_a_hook_declines(ann: Repository, bob: Repository, bare: Path) -> None:
    hook = refuse(bare, BRANCH)
    error = attempted(ann)
    assert "apply 1 of dev is over, and could not be recorded" in error.summary
    assert "ask the owners" in error.detail
    assert "allow whoever applies to push" in error.hint
    assert "llmctl apply -e dev" in error.hint
    assert set(remote_refs(bare)) == {attempt_ref(1)}  # the lock was given back
    assert on_remote(bare, 1)[-1]["type"] == "closing"  # for others to find
    hook.unlink()
    sync(bob)
    found = find_interrupted(bob, ENV)
    assert found is not None
    assert found.closing is not None
    assert found.closing.outcome == "rolled back"
    assert_kept_and_finished(bare, ann, error)


def test_a_close_that_finds_no_remote(ann: Repository, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmctl.record.shipping.PATIENCE", (0.0,))
    line = Line(bare, monkeypatch)
    line.attach(ann)
    with Lock(ann, ENV, renew_s=60).acquire("a") as held:
        attempt = begin(ann, held)
        attempt.commit(put(recorded("prompt.a")))
        line.cut()
        with pytest.raises(RecordError, match="could not be recorded") as caught:
            attempt.close("rolled back", subject="Back", decisions={"reason": "slow"}, rejections=())
    assert "Can origin be reached?" in caught.value.hint
    line.mend()
    assert set(remote_refs(bare)) == {LOCK, attempt_ref(1)}  # held by a process that is this one
    Lock(ann, ENV).force_expire()
    assert_kept_and_finished(bare, ann, caught.value)


def test_a_close_whose_remote_was_moved_away(ann: Repository, bare: Path) -> None:
    with Lock(ann, ENV, renew_s=60).acquire("a") as held:
        attempt = begin(ann, held)
        attempt.commit(put(recorded("prompt.a")))
        away = bare.rename(bare.with_name("away.git"))
        with pytest.raises(RecordError, match="could not be recorded") as caught:
            attempt.close("rolled back", subject="Back", decisions={"reason": "slow"}, rejections=())
        away.rename(bare)
    assert "There is no repository where origin points to" in caught.value.hint
    assert_kept_and_finished(bare, ann, caught.value)


def test_a_close_over_a_record_that_somebody_pushed(ann: Repository, bob: Repository, bare: Path) -> None:
    first = apply(ann, put(recorded("prompt.a")))
    with Lock(ann, ENV, renew_s=60).acquire("a") as held:
        attempt = begin(ann, held)
        attempt.commit(put(recorded("prompt.b")))
        sync(bob)
        other = git(bob.work_tree, "commit-tree", f"{BRANCH}^{{tree}}", "-p", BRANCH, "-m", "by hand")
        git(bob.work_tree, "push", "-q", "origin", f"{other}:{BRANCH}")
        with pytest.raises(LeaseLost, match="changed by somebody else") as caught:
            attempt.close("applied", subject="x", decisions={}, rejections=())
    assert str(journal(ann, 2)) in caught.value.detail
    assert head(ann.work_tree) == first
    assert head(bare) == other
    assert journal(ann, 2).exists()


def test_a_close_whose_answer_was_lost(ann: Repository, bare: Path) -> None:
    with Lock(ann, ENV, renew_s=60).acquire("a") as held:
        attempt = begin(ann, held)
        attempt.commit(put(recorded("prompt.a")))
        lose_answers(bare)
        entry = attempt.close("applied", subject="x", decisions={}, rejections=())
    assert head(bare) == entry
    sound(bare, ann)


def test_a_close_whose_answer_was_lost_and_that_could_not_ask(
    ann: Repository, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was made and is told as failed; the next command finds it in the record."""
    monkeypatch.setattr("llmctl.record.shipping.PATIENCE", ())
    line = Line(bare, monkeypatch)
    line.attach(ann)
    with Lock(ann, ENV, renew_s=60).acquire("a") as held:
        attempt = begin(ann, held)
        attempt.commit(put(recorded("prompt.a")))
        lose_answers(bare, then_cut=1)
        with pytest.raises(RecordError, match="could not be recorded"):
            attempt.close("applied", subject="x", decisions={}, rejections=())
        assert journal(ann, 1).exists()
    assert finish(ann) == []
    assert [(e.serial, e.outcome) for e in Reader(ann, ENV).entries()] == [(1, "applied")]
    sound(bare, ann)


def test_a_local_branch_that_another_command_brought_forward_meanwhile(ann: Repository, bare: Path) -> None:
    """A plan of this clone fetches between the push of a close and the moment at which this clone follows."""
    with Lock(ann, ENV, renew_s=60).acquire("a") as held:
        attempt = begin(ann, held)
        attempt.commit(put(recorded("prompt.a")))
        push = held.push

        def and_fetched(*arguments: Any) -> None:
            push(*arguments)
            sync(ann)

        held.push = and_fetched  # type: ignore[method-assign, assignment]
        entry = attempt.close("applied", subject="x", decisions={}, rejections=())
    assert head(ann.work_tree) == entry
    assert finish(ann) == []
    sound(bare, ann)


def test_a_first_attempt_that_cannot_begin_leaves_nothing(ann: Repository, bare: Path) -> None:
    hook = refuse(bare, "attempt")
    with Lock(ann, ENV, renew_s=60).acquire("a") as held:
        with pytest.raises(RemoteError):
            begin(ann, held)
        assert not journal(ann, 1).exists()
        held.push()
        hook.unlink()
        begin(ann, held).close("applied", subject="x", decisions={}, rejections=())
    sound(bare, ann)


def test_an_abandoned_attempt_leaves_the_remote(ann: Repository, bare: Path) -> None:
    with Lock(ann, ENV, renew_s=60).acquire("a") as held:
        begin(ann, held).abandon()
        assert set(remote_refs(bare)) == {LOCK}
        attempt = begin(ann, held)
        attempt.intend("s", "e", {})
        with pytest.raises(RecordError, match="must be closed"):
            attempt.abandon()
    finish(ann)
    sound(bare, ann)


def test_threads_work_and_close_through_a_remote(ann: Repository, bare: Path) -> None:
    with Lock(ann, ENV, renew_s=0.1).acquire("a") as held:
        attempt = begin(ann, held)
        barrier = threading.Barrier(8)

        def work(number: int) -> None:
            barrier.wait()
            for step in range(4):
                intent = attempt.intend(f"step-{number}-{step}", "create", {})
                attempt.commit(put(recorded(f"prompt.p{number}-{step}")))
                attempt.done(intent, "ok", {})

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        attempt.close("applied", subject="x", decisions={}, rejections=())
    sound(bare, ann)
    assert len(Reader(ann, ENV).entry(1).changes) == 32
