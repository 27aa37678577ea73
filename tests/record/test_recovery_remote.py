"""A machine that vanished in the middle of an apply: another clone finds what it did, and finishes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmctl.core.errors import Locked, RecordError
from llmctl.record import Lock, Reader, Repository, find_interrupted, open_repository
from tests.record.helpers import BRANCH, ENV, git, put, recorded
from tests.record.helpers import apply as apply_here
from tests.record.remotes import (
    LOCK,
    apply,
    attempt_ref,
    clone,
    finish,
    head,
    journal,
    make_remote,
    on_remote,
    remote_refs,
    sound,
    sync,
)

# Applies for real and is killed with SIGKILL at the place that argv names; "here" is without a remote.
KILLED = """
import os, signal, sys
from pathlib import Path
from llmctl.record import Lock, attempt as module, journal, open_repository
from llmctl.record.git import GitCommand
from tests.record.helpers import *
from tests.record.helpers import begin as begin_here
from tests.record.remotes import begin

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

place, remote = sys.argv[2], "" if sys.argv[3] == "here" else "origin"
repository = open_repository(Path(sys.argv[1]), remote=remote)
held = Lock(repository, ENV, renew_s=60).acquire("llmctl apply")
attempt = begin(repository, held) if remote else begin_here(repository, fence=held.fence)
attempt.commit(put(recorded("prompt.a")))
intent = attempt.intend("provision:prompt.b", "create", {"name": "b"})
attempt.done(intent, "ok", {})
attempt.commit(put(recorded("prompt.b")))
intent = attempt.intend("provision:prompt.c", "create", {"name": "c"})
if place == "intended":
    die()
if place == "closing":
    attempt._enter = die
if place == "entered":
    if remote:
        module.Shipping.close = die
    else:
        GitCommand.edit_refs = die
if place == "pushed":
    close = module.Shipping.close
    module.Shipping.close = lambda *arguments: (close(*arguments), die())
if place == "swapped":
    journal.JournalFile.remove = die
attempt.close("failed", subject="Gate said no", decisions={"why": "gate"}, rejections=())
"""
CHANGES = ["Create prompt.a v1", "Create prompt.b v1"]


def killed_at(repository: Repository, place: str, where: str = "remote") -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    command = [sys.executable, "-c", KILLED, str(repository.work_tree), place, where]
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def vanished(bare: Path) -> None:
    """The lock is of a machine that is not this one."""
    said = json.loads(git(bare, "cat-file", "blob", LOCK)) | {"host": "a-runner-that-is-gone"}
    git(bare, "update-ref", LOCK, git(bare, "hash-object", "-w", "--stdin", stdin=json.dumps(said).encode()))


def lapse(bare: Path) -> None:
    said = json.loads(git(bare, "cat-file", "blob", LOCK)) | {"lease_until": time.time() - 3600}
    git(bare, "update-ref", LOCK, git(bare, "hash-object", "-w", "--stdin", stdin=json.dumps(said).encode()))


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    return make_remote(tmp_path)


@pytest.fixture
def ann(bare: Path) -> Repository:
    return clone(bare, "ann")


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("options", [(), ("--depth", "1", "--no-single-branch")])
def test_another_clone_finishes_what_a_vanished_runner_began(
    ann: Repository, bare: Path, earlier: bool, options: tuple[str, ...]
) -> None:
    if earlier:
        apply(ann, put(recorded("prompt.before")))
    serial = 2 if earlier else 1
    killed_at(ann, "intended")
    vanished(bare)
    bob = clone(bare, "bob", *options)
    with pytest.raises(Locked, match="a-runner-that-is-gone"):
        finish(bob)
    found = find_interrupted(bob, ENV)
    assert found is not None
    assert (found.serial, found.actor, found.closing) == (serial, ann.actor(), None)
    assert [intent.step for intent in found.intents] == ["provision:prompt.c"]
    lapse(bare)
    assert f"apply {serial} of dev by Ann <ann@example.org>" in finish(bob)[0]
    detail = Reader(bob, ENV).entry(serial)
    assert (detail.entry.outcome, detail.entry.actor) == ("interrupted", ann.actor())
    assert [c.subject for c in detail.changes] == CHANGES
    assert {"prompt.a", "prompt.b"} <= set(map(str, Reader(bob, ENV).state().resources))
    if not options:
        sound(bare, bob)
    # The first machine comes back: what it has of that serial is in the record already.
    sync(ann)
    assert find_interrupted(ann, ENV) is None
    assert journal(ann, serial).exists()  # until somebody can be told
    assert finish(ann) == [
        f"attempt {serial} of dev, which was interrupted in this clone, was closed by another machine meanwhile: what "
        "this clone still had of it is dropped"
    ]
    sound(bare, ann)
    apply(ann, put(recorded("prompt.d")))
    apply(bob, put(recorded("prompt.e")))


@pytest.mark.parametrize("place", ["closing", "entered"])
@pytest.mark.parametrize("where", ["here", "remote"])
def test_killed_between_its_end_and_its_entry_it_is_recorded_as_what_it_was(
    ann: Repository, bare: Path, place: str, where: str
) -> None:
    if where == "here":
        ann = open_repository(ann.work_tree)
    killed_at(ann, place, where)
    if where == "remote":
        sync(ann)
    assert Reader(ann, ENV).head() == ""
    said = finish(ann)
    assert "is over (failed), and was interrupted before it could be recorded" in said[0]
    detail = Reader(ann, ENV).entry(1)
    assert (detail.entry.outcome, detail.entry.subject, detail.decisions) == ("failed", "Gate said no", {"why": "gate"})
    assert [c.subject for c in detail.changes] == CHANGES
    assert find_interrupted(ann, ENV) is None
    if where == "remote":
        sound(bare, ann)


def test_another_clone_does_not_know_an_end_that_was_not_pushed(ann: Repository, bare: Path) -> None:
    killed_at(ann, "closing")
    bob = clone(bare, "bob")
    finish(bob)
    assert Reader(bob, ENV).entry(1).entry.outcome == "interrupted"
    finish(ann)
    sound(bare, ann, bob)


@pytest.mark.parametrize("place", ["pushed", "swapped"])
def test_killed_after_the_remote_took_it(ann: Repository, bare: Path, place: str) -> None:
    killed_at(ann, place)
    assert set(remote_refs(bare)) == {BRANCH, LOCK}
    assert (head(ann.work_tree) == head(bare)) == (place == "swapped")
    assert finish(ann) == []
    assert [(e.serial, e.outcome) for e in Reader(ann, ENV).entries()] == [(1, "failed")]
    sound(bare, ann)


def test_a_plan_clears_away_what_the_record_has(ann: Repository) -> None:
    killed_at(ann, "pushed")
    sync(ann)
    assert find_interrupted(ann, ENV) is None
    assert not journal(ann, 1).exists()


def test_the_one_that_recovers_vanishes_too(ann: Repository, bare: Path) -> None:
    killed_at(ann, "intended")
    bob, carol = clone(bare, "bob"), clone(bare, "carol")
    with Lock(bob, ENV, renew_s=60).acquire("b") as held:
        found = find_interrupted(bob, ENV)
        assert found is not None
        attempt = found.recover(held.fence, held)
        attempt.commit(put(recorded("prompt.taken-over")))
        attempt.intend("s", "e", {})  # takes the lines before it along
        assert [line["type"] for line in on_remote(bare, 1)][-3:] == ["recovered", "change", "intent"]
        vanished(bare)
        lapse(bare)
    finish(carol)
    assert [c.subject for c in Reader(carol, ENV).entry(1).changes] == [*CHANGES, "Create prompt.taken-over v1"]
    assert Reader(carol, ENV).state().fence == 3
    for repository in (ann, bob):
        assert "was closed by another machine" in finish(repository)[0]
    sound(bare, ann, bob, carol)


def test_the_first_machine_goes_on_from_what_another_one_added(ann: Repository, bare: Path) -> None:
    """What it still had and the remote has not is of a time before it was overtaken."""
    killed_at(ann, "intended")
    bob = clone(bare, "bob")
    with Lock(bob, ENV, renew_s=60).acquire("b") as held:
        found = find_interrupted(bob, ENV)
        assert found is not None
        attempt = found.recover(held.fence, held)
        attempt.commit(put(recorded("prompt.taken-over")))
        attempt.intend("s", "e", {})
    with journal(ann, 1).open("ab") as file:
        file.write(b'{"data":{},"id":"x","outcome":"ok","type":"done"}\n')
    finish(ann)
    assert [c.subject for c in Reader(ann, ENV).entry(1).changes] == [*CHANGES, "Create prompt.taken-over v1"]
    finish(bob)
    sound(bare, ann, bob)


def test_a_journal_that_was_only_here_is_brought_to_the_remote(ann: Repository, bare: Path) -> None:
    """An attempt from before the record was on a remote."""
    alone = open_repository(ann.work_tree)
    apply_here(alone, put(recorded("prompt.before")))
    killed_at(alone, "intended", "here")
    said = finish(ann)
    assert "apply 2 of dev" in said[0]
    assert [e.serial for e in Reader(ann, ENV).entries()] == [2, 1]
    sound(bare, ann)


def test_a_ref_on_the_remote_that_is_no_attempt(ann: Repository, bare: Path) -> None:
    git(bare, "update-ref", attempt_ref(1), "main")
    sync(ann)
    with pytest.raises(RecordError, match="on origin holds no attempt") as caught:
        find_interrupted(ann, ENV)
    assert f"git push origin :{attempt_ref(1)}" in caught.value.hint


def test_a_journal_on_the_remote_that_is_damaged(ann: Repository, bare: Path) -> None:
    killed_at(ann, "intended")
    blob = git(ann.work_tree, "hash-object", "-w", "--stdin", stdin=b"nonsense\n")
    tree = git(ann.work_tree, "mktree", stdin=f"100644 blob {blob}\t000001.jsonl\n".encode())
    root = git(ann.work_tree, "mktree", stdin=f"040000 tree {tree}\tjournal\n".encode())
    commit = git(ann.work_tree, "commit-tree", root, "-m", "x")
    git(ann.work_tree, "push", "-q", str(bare), f"+{commit}:{attempt_ref(1)}")
    bob = clone(bare, "bob")
    sync(bob)
    with pytest.raises(RecordError, match="is damaged"):
        find_interrupted(bob, ENV)
