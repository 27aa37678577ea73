"""The record on a remote: fetched, followed, and refused where it is not what this clone has."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmctl.core.errors import RecordError
from llmctl.record import Reader, Remote, RemoteError, Repository, open_repository
from llmctl.record.git import RefEdit
from llmctl.record.remote import RemoteMoved
from tests.record.helpers import BRANCH, ENV, git, put, recorded, users_view
from tests.record.helpers import apply as apply_here
from tests.record.remotes import Line, apply, clone, head, lose_answers, refuse, remote_refs, sync

TRACKING = f"refs/remotes/origin/llmctl/{ENV}"
SIDE = f"refs/llmctl/{ENV}/note"
CANARY = "ghp-canary-9a8b7c6d"


def note(repository: Repository, text: str) -> str:
    return git(repository.work_tree, "hash-object", "-w", "--stdin", stdin=text.encode())


def test_two_clones_share_one_record(ann: Repository, bob: Repository, bare: Path) -> None:
    sync(ann)
    assert Reader(ann, ENV).head() == ""
    first = apply(ann, put(recorded("prompt.a")))
    assert Reader(bob, ENV).head() == ""
    sync(bob)
    assert Reader(bob, ENV).head() == first
    second = apply(bob, put(recorded("prompt.b")))
    sync(ann)
    state = Reader(ann, ENV).state()
    assert (state.serial, state.fence, state.head) == (2, 2, second)
    assert set(map(str, state.resources)) == {"prompt.a", "prompt.b"}
    assert remote_refs(bare) == {BRANCH: second}
    for folder in (ann.work_tree, bob.work_tree):
        assert head(folder) == second
        assert git(folder, "rev-parse", TRACKING) == second
        assert git(folder, "for-each-ref", "refs/llmctl", "refs/llmctl-remotes") == ""


@pytest.mark.parametrize(
    "options", [("--depth", "1"), ("--depth", "1", "--no-single-branch"), ("--single-branch",), ("--filter=blob:none",)]
)
def test_clones_as_ci_makes_them(ann: Repository, bare: Path, options: tuple[str, ...]) -> None:
    git(bare, "config", "uploadpack.allowFilter", "true")
    apply(ann, put(recorded("prompt.a")))
    apply(ann, put(recorded("prompt.a", "two", 2)))
    runner = clone(bare, "runner", *options)
    git(runner.work_tree, "checkout", "-q", "--detach")
    sync(runner)
    assert Reader(runner, ENV).state().serial == 2
    entry = apply(runner, put(recorded("prompt.c")))
    assert (head(bare), git(runner.work_tree, "rev-parse", TRACKING)) == (entry, entry)
    sync(ann)
    assert Reader(ann, ENV).state().serial == 3
    assert git(runner.work_tree, "fsck", "--no-dangling") == ""


def test_nothing_of_the_users_is_touched(ann: Repository, bob: Repository) -> None:
    apply(bob, put(recorded("prompt.a")))
    git(bob.work_tree, "tag", "v1")
    git(bob.work_tree, "push", "-q", "origin", "v1", "HEAD:refs/heads/other")
    for name in ("pre-push", "reference-transaction", "post-checkout"):
        hook = ann.common_dir / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {ann.work_tree}/a-hook-ran\nexit 1\n")
        hook.chmod(0o755)
    before, refs = users_view(ann.work_tree), git(ann.work_tree, "for-each-ref", "refs/remotes", "refs/tags")
    sync(ann)
    assert users_view(ann.work_tree) == before
    added = set(git(ann.work_tree, "for-each-ref", "refs/remotes", "refs/tags").splitlines()) - set(refs.splitlines())
    assert [line.split("\t")[1] for line in added] == [TRACKING]
    assert not (ann.common_dir / "FETCH_HEAD").exists()
    apply(ann, put(recorded("prompt.b")))
    assert users_view(ann.work_tree) == before


def test_two_commands_of_one_clone_sync_at_once(ann: Repository, bob: Repository) -> None:
    entry = apply(bob, put(recorded("prompt.a")))
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(sync, open_repository(ann.work_tree, remote="origin")) for _ in range(3)]:
            done.result()
    assert Reader(ann, ENV).head() == entry


def test_a_rewritten_record_is_told_with_both_heads(ann: Repository, bob: Repository, bare: Path) -> None:
    apply(ann, put(recorded("prompt.a")))
    ours = apply(ann, put(recorded("prompt.b")))
    theirs = git(ann.work_tree, "commit-tree", f"{BRANCH}^{{tree}}", "-p", f"{BRANCH}^", "-m", "as if it had been so")
    git(ann.work_tree, "push", "-q", str(bare), f"+{theirs}:{BRANCH}")
    with pytest.raises(RecordError, match="history was rewritten") as caught:
        sync(ann)
    assert ours[:12] in caught.value.detail
    assert theirs[:12] in caught.value.detail
    assert f"git update-ref {BRANCH} {theirs}" in caught.value.hint
    assert head(ann.work_tree) == ours
    sync(bob)  # a clone that knows nothing else has no means to tell
    git(ann.work_tree, "push", "-q", f"--force-with-lease={BRANCH}:{theirs}", "origin", BRANCH)  # as the hint has it
    sync(ann)
    assert head(bare) == ours
    with pytest.raises(RecordError, match="history was rewritten"):
        sync(bob)


def test_a_record_that_was_cut_short(ann: Repository, bare: Path) -> None:
    first = apply(ann, put(recorded("prompt.a")))
    second = apply(ann, put(recorded("prompt.b")))
    git(bare, "update-ref", BRANCH, first)
    with pytest.raises(RecordError, match="ends before the one of this clone") as caught:
        sync(ann)
    assert first[:12] in caught.value.detail
    assert second[:12] in caught.value.detail
    git(ann.work_tree, "push", "-q", "origin", BRANCH)
    sync(ann)


def test_a_remote_that_lost_the_record_is_not_one_that_never_had_it(ann: Repository, bare: Path) -> None:
    entry = apply(ann, put(recorded("prompt.a")))
    git(bare, "update-ref", "-d", BRANCH)
    with pytest.raises(RecordError, match="has no record of dev any more") as caught:
        sync(ann)
    assert entry[:12] in caught.value.detail
    assert f"git push origin {BRANCH}" in caught.value.hint
    with pytest.raises(RecordError, match="any more"):  # and still
        apply(ann, put(recorded("prompt.b")))
    assert remote_refs(bare) == {}
    git(ann.work_tree, "push", "-q", "origin", BRANCH)
    sync(ann)


@pytest.mark.parametrize("how", ["pushed", "fetched"])
def test_nor_is_it_after_the_users_own_prune(ann: Repository, bob: Repository, bare: Path, how: str) -> None:
    """A stale clone would else publish what it has as the whole record, and the entries after that were lost."""
    apply(ann, put(recorded("prompt.a")))
    entry = apply(ann, put(recorded("prompt.b")))
    stale = ann if how == "pushed" else bob
    sync(stale)
    git(bare, "update-ref", "-d", BRANCH)
    git(stale.work_tree, "fetch", "-q", "--prune")
    assert git(stale.work_tree, "for-each-ref", TRACKING) == ""
    with pytest.raises(RecordError, match="has no record of dev any more") as caught:
        apply(stale, put(recorded("prompt.c")))
    assert entry[:12] in caught.value.detail
    assert remote_refs(bare) == {}
    # What the hint says makes it one that never had it.
    for command in re.findall(r"`git (update-ref -d [^`]*)`", caught.value.hint):
        git(stale.work_tree, *command.split())
    apply(stale, put(recorded("prompt.c")))
    assert Reader(stale, ENV).state().serial == 3


def test_a_record_of_this_clone_is_published_by_its_next_apply(ann: Repository, bob: Repository, bare: Path) -> None:
    alone = open_repository(ann.work_tree)
    apply_here(alone, put(recorded("prompt.a")))
    apply_here(alone, put(recorded("prompt.b")), fence=2)
    sync(ann)
    assert remote_refs(bare) == {}
    entry = apply(ann, put(recorded("prompt.c")))
    assert remote_refs(bare) == {BRANCH: entry}
    sync(bob)
    assert Reader(bob, ENV).state().serial == 3
    assert [e.serial for e in Reader(bob, ENV).entries()] == [3, 2, 1]


def test_a_remote_that_is_gone(ann: Repository, bare: Path) -> None:
    apply(ann, put(recorded("prompt.a")))
    bare.rename(bare.with_name("elsewhere"))
    with pytest.raises(RemoteError, match="cannot be fetched from the git remote origin") as caught:
        sync(ann)
    assert "--offline" in caught.value.hint
    assert "git remote -v" in caught.value.hint
    assert not caught.value.passing
    assert Reader(ann, ENV).state().serial == 1


def test_a_remote_that_was_never_named(ann: Repository) -> None:
    with pytest.raises(RemoteError) as caught:
        sync(open_repository(ann.work_tree, remote="upstream"))
    assert "There is no git remote upstream" in caught.value.hint


def test_another_remote_than_origin(ann: Repository, bare: Path) -> None:
    git(ann.work_tree, "remote", "rename", "origin", "hub")
    renamed = open_repository(ann.work_tree, remote="hub")
    entry = apply(renamed, put(recorded("prompt.a")))
    assert head(bare) == entry
    git(ann.work_tree, "update-ref", "-d", BRANCH)
    assert Reader(renamed, ENV).head() == entry  # what was fetched of the remote is read where there is no branch
    assert Reader(ann, ENV).head() == ""


def test_no_credential_is_said(ann: Repository) -> None:
    with socket.socket() as taken:  # a port on which nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"http://robot:{CANARY}@127.0.0.1:{taken.getsockname()[1]}/{CANARY}.git?token={CANARY}"
        git(ann.work_tree, "remote", "set-url", "origin", address)
        remote = Remote(ann, ENV)
        for act in (remote.sync, lambda: remote.push([RefEdit(SIDE, "", note(ann, "x"))], ())):
            with pytest.raises(RemoteError) as caught:
                act()
            said = f"{caught.value.summary} {caught.value.detail} {caught.value.hint}"
            assert "127.0.0.1" in said  # of the connection, which git names too
            assert CANARY not in said
            assert "robot" not in said


def test_a_record_that_somebody_stands_on_is_not_moved(ann: Repository, bob: Repository) -> None:
    first = apply(ann, put(recorded("prompt.a")))
    git(ann.work_tree, "switch", "-q", f"llmctl/{ENV}")
    apply(bob, put(recorded("prompt.b")))
    with pytest.raises(RecordError, match="is checked out"):
        sync(ann)
    assert head(ann.work_tree) == first


def test_a_push_is_all_or_nothing(ann: Repository, bob: Repository) -> None:
    remote, one, two = Remote(ann, ENV), note(ann, "one"), note(ann, "two")
    remote.push([RefEdit(SIDE, "", one), RefEdit(f"{SIDE}-2", "", one)])
    with pytest.raises(RemoteMoved) as caught:
        remote.push([RefEdit(SIDE, one, two), RefEdit(f"{SIDE}-2", two, note(ann, "three"))])
    assert caught.value.found == {SIDE: one, f"{SIDE}-2": one}
    with pytest.raises(RemoteMoved):
        Remote(bob, ENV).push([RefEdit(SIDE, "", note(bob, "three"))])
    remote.push([RefEdit(SIDE, one, two), RefEdit(f"{SIDE}-2", one, "")])
    assert remote.values([SIDE, f"{SIDE}-2"]) == {SIDE: two, f"{SIDE}-2": ""}


def test_what_a_hook_says_is_told(ann: Repository, bare: Path) -> None:
    refuse(bare, SIDE)
    with pytest.raises(RemoteError) as caught:
        Remote(ann, ENV).push([RefEdit(SIDE, "", note(ann, "one"))])
    assert "ask the owners" in caught.value.detail
    assert "pre-receive hook declined" in caught.value.detail
    assert "allow whoever applies to push" in caught.value.hint
    assert not caught.value.passing


def test_a_connection_that_comes_back(ann: Repository, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(bare, monkeypatch)
    line.attach(ann)
    line.cut(3)  # the push, the question what became of it, and the push once more
    Remote(ann, ENV).push([RefEdit(SIDE, "", note(ann, "one"))], (0.0, 0.0))
    line.cut(1)
    sync(ann)
    line.cut()
    with pytest.raises(RemoteError, match="did not take what was pushed") as caught:
        Remote(ann, ENV).push([RefEdit(SIDE, "", note(ann, "two"))], (0.0,))
    assert caught.value.passing
    assert "Can origin be reached?" in caught.value.hint


def test_an_answer_that_was_lost(ann: Repository, bare: Path) -> None:
    one = note(ann, "one")
    lose_answers(bare)
    Remote(ann, ENV).push([RefEdit(SIDE, "", one)], ())
    assert Remote(ann, ENV).values([SIDE]) == {SIDE: one}


def test_a_packed_branch_that_names_nothing_is_no_empty_record(ann: Repository) -> None:
    apply(ann, put(recorded("prompt.a")))
    git(ann.work_tree, "pack-refs", "--all")
    packed = ann.common_dir / "packed-refs"
    packed.write_text(packed.read_text().replace(head(ann.work_tree), "1" * 40))
    with pytest.raises(RecordError, match="names no commit that is"):
        Reader(open_repository(ann.work_tree), ENV).head()
    assert Reader(open_repository(ann.work_tree), "prod").head() == ""
