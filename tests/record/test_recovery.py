from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmctl.core.address import Address
from llmctl.core.errors import LeaseLost, RecordError
from llmctl.record import Lock, Reader, Repository, find_interrupted, verify
from tests.record.helpers import (
    BRANCH,
    ENV,
    apply,
    begin,
    evidence,
    git,
    judge,
    llmctl_refs,
    prove,
    put,
    recorded,
)

# Applies for real and is killed with SIGKILL at the place that argv names.
KILLED = """
import os, signal, sys
from pathlib import Path
from llmctl.record import Lock, Reader, attempt as module, journal, open_repository
from tests.record.helpers import *

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

repository = open_repository(Path(sys.argv[1]))
lock = Lock(repository, ENV).acquire("llmctl apply")
attempt = begin(repository, fence=lock.fence, lag_s=3600.0 if sys.argv[2] == "behind" else 0.0)
if sys.argv[2] == "begun":
    die()
attempt.commit(put(recorded("prompt.a")))
intent = attempt.intend("provision:prompt.b", "create", {"name": "b"})
if sys.argv[2] == "intended":
    die()
if sys.argv[2] == "journaled":
    module.store = die
if sys.argv[2] == "stored":
    repository.git.edit_refs = die
attempt.commit(prove(evidence()))
attempt.done(intent, "done", {})
if sys.argv[2] == "behind":
    die()
if sys.argv[2] == "merging":
    repository.git.edit_refs = die
if sys.argv[2] == "merged":
    journal.JournalFile.remove = die
attempt.close("applied", subject="Whole", decisions={}, rejections=())
"""


def killed_at(folder: Path, place: str) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), place], env=env, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def close(repository: Repository, *, fence: int = 9) -> str:
    found = find_interrupted(repository, ENV)
    assert found is not None
    attempt = found.recover(fence)
    return attempt.close("interrupted", subject="Interrupted", decisions={}, rejections=())


def assert_sound(repository: Repository, folder: Path) -> None:
    assert find_interrupted(repository, ENV) is None
    assert verify(repository, ENV, expect_head=None, judge=judge).findings == ()
    assert set(llmctl_refs(folder)) <= {BRANCH, f"refs/llmctl/{ENV}/lock"}
    assert not repository.private_dir(ENV).exists()


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize(
    ("place", "intents", "changes"),
    [
        ("begun", 0, []),
        ("intended", 1, ["Create prompt.a v1"]),
        ("journaled", 1, ["Create prompt.a v1", "Gate faq: PASS"]),
        ("stored", 1, ["Create prompt.a v1", "Gate faq: PASS"]),
        ("behind", 0, ["Create prompt.a v1", "Gate faq: PASS"]),
        ("merging", 0, ["Create prompt.a v1", "Gate faq: PASS"]),
    ],
)
def test_killed_at_any_place_nothing_is_lost(
    repository: Repository, folder: Path, place: str, intents: int, changes: list[str], earlier: bool
) -> None:
    if earlier:
        apply(repository, put(recorded("prompt.before")))
    serial = 2 if earlier else 1
    killed_at(folder, place)
    found = find_interrupted(repository, ENV)
    assert found is not None
    assert (found.serial, found.action, found.actor) == (serial, "apply", repository.actor())
    assert (found.commits, len(found.intents), found.is_empty) == (len(changes), intents, place == "begun")
    if intents:
        assert (found.intents[0].step, found.intents[0].data) == ("provision:prompt.b", {"name": "b"})
    assert f"apply {serial} of dev by Ann Example" in found.describe()
    with Lock(repository, ENV).acquire("llmctl apply") as lock:  # the dead holder is taken over
        assert lock.fence > found.fence
        entry = close(repository, fence=lock.fence)
    detail = Reader(repository, ENV).entry(serial)
    assert [c.subject for c in detail.changes] == changes
    assert (detail.entry.commit, detail.entry.outcome) == (entry, "interrupted")
    assert len(detail.evidence) == changes.count("Gate faq: PASS")
    state = Reader(repository, ENV).state()
    assert (Address("prompt", "a") in state.resources) == bool(changes)
    assert state.fence == lock.fence
    assert_sound(repository, folder)


def test_killed_between_merge_and_cleaning_up(repository: Repository, folder: Path) -> None:
    killed_at(folder, "merged")
    assert [p.name for p in repository.private_dir(ENV).iterdir()] == ["attempt-1.jsonl"]
    assert find_interrupted(repository, ENV) is None
    assert Reader(repository, ENV).state().serial == 1
    assert_sound(repository, folder)
    apply(repository, put(recorded("prompt.next")), fence=2)


def test_recovering_is_itself_killed(repository: Repository, folder: Path) -> None:
    killed_at(folder, "journaled")
    found = find_interrupted(repository, ENV)
    assert found is not None
    found.recover(5)  # replays the change, and dies before it closes
    again = find_interrupted(repository, ENV)
    assert again is not None
    assert (again.fence, again.commits, again.serial) == (5, 2, 1)
    close(repository, fence=6)
    assert [c.subject for c in Reader(repository, ENV).entry(1).changes] == ["Create prompt.a v1", "Gate faq: PASS"]
    assert_sound(repository, folder)


@pytest.mark.parametrize("torn", [b'{"type":"change","files":{', b"\x00\x00\x00", b'{"type":"done"}'])
def test_a_torn_last_line(repository: Repository, folder: Path, torn: bytes) -> None:
    attempt = begin(repository)
    attempt.commit(put(recorded("prompt.a")))
    attempt.intend("s", "e", {})
    path = repository.private_dir(ENV) / "attempt-1.jsonl"
    with path.open("ab") as file:
        file.write(torn)
    found = find_interrupted(repository, ENV)
    assert found is not None
    assert (found.commits, len(found.intents)) == (1, 1)
    recovered = found.recover(2)
    recovered.intend("s2", "e2", {})
    assert b"\x00" not in path.read_bytes()
    assert torn not in path.read_bytes() or torn == b'{"type":"done"}'
    recovered.close("interrupted", subject="x", decisions={}, rejections=())
    assert_sound(repository, folder)


def test_a_journal_torn_in_its_first_line(repository: Repository) -> None:
    begin(repository)
    path = repository.private_dir(ENV) / "attempt-1.jsonl"
    path.write_bytes(path.read_bytes()[:30])
    assert find_interrupted(repository, ENV) is None
    assert path.exists(), "without the lock it may be of one that begins at this moment"
    assert find_interrupted(repository, ENV, dropped=print) is None
    assert not path.exists()
    apply(repository, put(recorded("prompt.a")))


def test_a_damaged_journal_is_not_thrown_away(repository: Repository) -> None:
    begin(repository).intend("s", "e", {})
    path = repository.private_dir(ENV) / "attempt-1.jsonl"
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(RecordError, match="is damaged") as caught:
        find_interrupted(repository, ENV)
    assert "llmctl drift" in caught.value.hint
    assert path.exists()


def test_a_journal_of_another_version(repository: Repository) -> None:
    begin(repository).intend("s", "e", {})
    path = repository.private_dir(ENV) / "attempt-1.jsonl"
    path.write_text(path.read_text().replace('"format":1', '"format":2'))
    with pytest.raises(RecordError, match="another version"):
        find_interrupted(repository, ENV)


@pytest.mark.parametrize("earlier", [False, True])
def test_the_machine_with_the_journal_is_gone(repository: Repository, folder: Path, earlier: bool) -> None:
    if earlier:
        apply(repository, put(recorded("prompt.before")))
    attempt = begin(repository, action="rollback")
    attempt.commit(put(recorded("prompt.a")))
    attempt.commit(prove(evidence()))
    serial = attempt.serial
    (repository.private_dir(ENV) / f"attempt-{serial}.jsonl").unlink()
    found = find_interrupted(repository, ENV)
    assert found is not None
    assert (found.serial, found.commits, found.intents, found.actor) == (serial, 2, (), repository.actor())
    recovered = found.recover(3)
    recovered.commit(put(recorded("prompt.b")))
    again = find_interrupted(repository, ENV)  # and once more, now with the new journal
    assert again is not None
    assert again.commits == 3
    again.recover(4).close("interrupted", subject="x", decisions={}, rejections=())
    assert len(Reader(repository, ENV).entry(serial).changes) == 3
    assert_sound(repository, folder)


def test_an_empty_attempt_can_be_abandoned(repository: Repository, folder: Path) -> None:
    begin(repository)
    found = find_interrupted(repository, ENV)
    assert found is not None
    assert found.is_empty
    found.recover(2)
    found = find_interrupted(repository, ENV)
    assert found is not None
    assert found.is_empty  # to have been found is no effect
    found.recover(3).abandon()
    assert llmctl_refs(folder) == []
    assert find_interrupted(repository, ENV) is None


def test_intents_alone_are_not_abandoned(repository: Repository) -> None:
    begin(repository).intend("s", "e", {})
    found = find_interrupted(repository, ENV)
    assert found is not None
    assert not found.is_empty
    with pytest.raises(RecordError, match="must be closed"):
        found.recover(2).abandon()


def test_an_attempt_that_the_record_went_past(repository: Repository, folder: Path) -> None:
    apply(repository, put(recorded("prompt.before")))
    attempt = begin(repository)
    attempt.commit(put(recorded("prompt.a")))
    path = repository.private_dir(ENV) / "attempt-2.jsonl"
    hidden = path.rename(path.with_suffix(".hidden"))
    tip = git(folder, "rev-parse", f"refs/llmctl/{ENV}/attempt/2")
    git(folder, "update-ref", "-d", f"refs/llmctl/{ENV}/attempt/2")
    apply(repository, put(recorded("prompt.other")), fence=8)  # somebody else's serial 2
    hidden.rename(path)
    git(folder, "update-ref", f"refs/llmctl/{ENV}/attempt/2", tip)
    found = find_interrupted(repository, ENV)
    assert found is not None
    with pytest.raises(LeaseLost, match="changed by somebody else"):
        found.recover(9)
    assert path.exists()
    assert git(folder, "rev-parse", f"refs/llmctl/{ENV}/attempt/2") == tip


def test_a_ref_that_is_no_attempt(repository: Repository, folder: Path) -> None:
    git(folder, "update-ref", f"refs/llmctl/{ENV}/attempt/1", "HEAD")
    with pytest.raises(RecordError, match="holds no attempt"):
        find_interrupted(repository, ENV)
    git(folder, "update-ref", f"refs/llmctl/{ENV}/attempt/notes", "HEAD")
    git(folder, "update-ref", "-d", f"refs/llmctl/{ENV}/attempt/1")
    assert find_interrupted(repository, ENV) is None


def test_a_line_that_found_no_room_leaves_nothing_before_the_next_one(repository: Repository) -> None:
    attempt = begin(repository)
    journal = repository.private_dir(ENV) / "attempt-1.jsonl"
    before, unlimited = journal.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, unlimited[1]))  # as a disk that is almost full
    try:
        with pytest.raises(RecordError, match="cannot be written"):
            attempt.intend("provision:prompt.a", "create", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert journal.read_bytes() == before
    attempt.commit(put(recorded("prompt.b")))
    found = find_interrupted(repository, ENV)
    assert found is not None
    found.recover(2).close("interrupted", subject="Interrupted", decisions={}, rejections=())
    assert set(map(str, Reader(repository, ENV).state().resources)) == {"prompt.b"}
