from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.core.address import Address
from llmctl.core.errors import RecordError
from llmctl.core.protocols import Change
from llmctl.core.resources import Rejection
from llmctl.record import History, Query, Reader, Repository, open_repository
from tests.record.helpers import BRANCH, ENV, apply, begin, evidence, git, prove, put, recorded

ANSWER, OTHER, NEW = Address("prompt", "answer"), Address("prompt", "other"), Address("prompt", "new")


@pytest.fixture
def history(repository: Repository) -> History:
    return History(repository, ENV)


def move(old: Address, new: Address, text: str, version: int = 1) -> Change:
    """A rename, as apply records it: both names in one commit."""
    return Change(f"rename {old} to {new}", {old: None, new: recorded(str(new), text, version)})


def gone(address: Address) -> Change:
    return Change(f"delete {address}", {address: None})


def told(history: History, address: Address) -> list[tuple[int, str, int | None]]:
    """Serial, name and version of each version."""
    found = history.versions(address)
    return [(v.entry.serial, str(v.address), v.recorded.version if v.recorded else None) for v in found]


# -- which entries ------------------------------------------------------------------------------


def test_of_no_record_nothing_is_known(history: History) -> None:
    assert history.entries(Query(resources=("prompt",), text="x")) == []
    assert (history.span(), history.known(), history.versions(ANSWER), history.reconciled()) == (None, [], [], {})


def test_a_serial_is_found_wherever_it_lies(repository: Repository, folder: Path) -> None:
    for number in range(1, 6):
        apply(repository, put(recorded("prompt.answer", str(number), number)), subject=f"Apply {number}", fence=number)
    reader = Reader(repository, ENV)
    assert [reader.find(n).message.split("\n")[0] for n in range(1, 6)] == [f"Apply {n}" for n in range(1, 6)]
    # Somebody put a commit between: serials and places no longer agree, and it is searched for.
    tree = git(folder, "rev-parse", f"{BRANCH}^{{tree}}")
    by_hand = git(folder, "commit-tree", tree, "-p", BRANCH, "-m", "by hand\n\nLlmctl-Serial: 9")
    git(folder, "update-ref", BRANCH, by_hand)
    assert reader.find(3).message.startswith("Apply 3")
    assert reader.find(9).id == by_hand
    with pytest.raises(RecordError, match="serial 7 is not in the record of dev; it has 1 to 9"):
        reader.find(7)


def test_an_entry_is_about_a_resource_that_it_tried_to_change(repository: Repository, history: History) -> None:
    apply(repository, put(recorded("prompt.answer")))
    attempt = begin(repository)
    attempt.commit(put(recorded("prompt.answer", "two", 2)))
    attempt.commit(Change("take back prompt.answer", {ANSWER: recorded("prompt.answer")}))
    attempt.close("failed", subject="apply: it failed", decisions={}, rejections=())
    apply(repository, put(recorded("prompt.answer2")))
    attempt = begin(repository)
    attempt.close("applied", subject="unreject prompt.answer@1234", decisions={}, rejections=())
    attempt = begin(repository)
    decided = {"changes": [{"address": "prompt.answer", "action": "update"}], "policies": [{"address": "prompt.other"}]}
    attempt.close("failed", subject="apply: nothing was begun", decisions=decided, rejections=())

    def about(*patterns: str) -> list[int]:
        return [e.serial for e in history.entries(Query(resources=patterns))]

    assert about("prompt.answer") == [5, 4, 2, 1]
    assert about("prompt.answer2") == [3]
    assert about("prompt.a*") == about("prompt") == [5, 4, 3, 2, 1]
    assert about("prompt.other") == []  # that a policy judged it is no change
    assert about("route", "prompt.answer2") == [3]


def test_a_change_without_a_trailer_is_found_by_the_trees(
    repository: Repository, history: History, folder: Path
) -> None:
    """What was put there by hand is in the record's trees, whatever its message says."""
    apply(repository, put(recorded("prompt.answer")))
    apply(repository, put(recorded("prompt.other")))
    tree = git(folder, "rev-parse", f"{BRANCH}^1^{{tree}}")  # without prompt.other
    by_hand = git(folder, "commit-tree", tree, "-p", BRANCH, "-m", "by hand\n\nLlmctl-Serial: 3")
    git(folder, "update-ref", BRANCH, by_hand)
    assert [e.serial for e in history.entries(Query(resources=("prompt.other",)))] == [3, 2]
    assert told(history, OTHER) == [(2, "prompt.other", 1), (3, "prompt.other", None)]


# -- all about one ------------------------------------------------------------------------------


def test_what_was_taken_back_is_told_with_what_was_tried(repository: Repository, history: History) -> None:
    apply(repository, put(recorded("prompt.answer")))
    attempt = begin(repository)
    attempt.commit(put(recorded("prompt.answer", "two", 2)))
    attempt.commit(put(recorded("prompt.answer", "three", 3)))
    attempt.commit(put(recorded("prompt.new")))
    attempt.commit(put(recorded("prompt.other")))
    attempt.commit(Change("take back", {ANSWER: recorded("prompt.answer"), NEW: None}))
    attempt.close("failed", subject="apply: it failed", decisions={"reason": "why"}, rejections=())
    found = history.detail(2)
    assert [(t.address, t.kept) for t in found.touched] == [(ANSWER, False), (NEW, False), (OTHER, True)]
    tried = found.touched[0]
    assert (tried.before, tried.after) == (recorded("prompt.answer"), recorded("prompt.answer", "three", 3))
    assert (found.touched[1].before, found.touched[1].after) == (None, recorded("prompt.new"))
    assert [c.subject[:9] for c in found.changes] == ["Create pr", "Create pr", "Create pr", "Create pr", "take back"]
    assert (found.decisions, found.entry.resources) == ({"reason": "why"}, (OTHER,))


def test_evidence_of_an_entry_before_is_known_as_such(repository: Repository, history: History) -> None:
    found = evidence()
    apply(repository, prove(found))
    apply(repository, prove(found))
    first, second = history.details(history.entries(Query())[::-1])
    assert [d.evidence for d in (first, second)] == [(found,), (found,)]
    assert [set(d.earlier) for d in (first, second)] == [set(), {found.digest}]


def test_many_are_read_as_one_is(repository: Repository, history: History) -> None:
    """Whichever of them are asked for, and in whatever order."""
    left = Rejection(ANSWER, "1" * 16, 3, "no good")
    for number in range(1, 7):
        apply(repository, *(put(recorded(f"prompt.p{n}", f"{n} {number}", number)) for n in range(number)))
    attempt = begin(repository)
    attempt.close("rolled back", subject="rollback", decisions={}, rejections=(left,))
    entries = history.entries(Query())
    assert history.details(entries) == [history.detail(e.serial) for e in entries]
    some = [entries[4], entries[0], entries[6]]
    assert history.details(some) == [history.detail(e.serial) for e in some]
    newest = history.detail(7)
    assert newest.before is not None
    assert newest.after is not None
    assert (newest.before.rejections, newest.after.rejections) == ((), (left,))
    assert history.decisions(entries[-2:]) == [{"policies": []}, {"policies": []}]


# -- how it came to be --------------------------------------------------------------------------


def test_versions_go_on_after_a_deletion(repository: Repository, history: History) -> None:
    apply(repository, put(recorded("prompt.answer", "one")))
    apply(repository, put(recorded("prompt.other")))
    apply(repository, gone(ANSWER))
    apply(repository, put(recorded("prompt.answer", "two", 2)))
    assert told(history, ANSWER) == [(1, "prompt.answer", 1), (3, "prompt.answer", None), (4, "prompt.answer", 2)]
    assert [v.moved for v in history.versions(ANSWER)] == [None, None, None]


@pytest.mark.parametrize("pattern", ["default", "fixed", "perl"])
def test_a_rename_is_followed_and_a_name_that_is_used_again_is_another(
    repository: Repository, history: History, folder: Path, pattern: str
) -> None:
    git(folder, "config", "grep.patternType", pattern)  # of the user, for searches of their own
    apply(repository, put(recorded("prompt.answer", "one")))
    apply(repository, move(ANSWER, OTHER, "one"), put(recorded("prompt.other", "two", 2)))
    apply(repository, put(recorded("prompt.answer", "somebody else's")))
    apply(repository, move(OTHER, NEW, "two", 2))
    assert told(history, NEW) == [(1, "prompt.answer", 1), (2, "prompt.other", 2), (4, "prompt.new", 2)]
    assert [v.moved for v in history.versions(NEW)] == [None, ANSWER, OTHER]
    assert told(history, ANSWER) == [(1, "prompt.answer", 1), (2, "prompt.answer", None), (3, "prompt.answer", 1)]
    assert history.versions(OTHER)[-1].moved == NEW
    assert history.detail(4).moves == {NEW: OTHER}


def test_names_that_are_swapped_back_and_forth_end(repository: Repository, history: History) -> None:
    apply(repository, put(recorded("prompt.answer", "one")))
    for old, new in ((ANSWER, OTHER), (OTHER, ANSWER)) * 2:
        apply(repository, move(old, new, "one"))
    assert [serial for serial, _, _ in told(history, ANSWER)] == [1, 2, 3, 4, 5]


def test_a_deletion_beside_a_creation_is_no_rename(repository: Repository, history: History) -> None:
    apply(repository, put(recorded("prompt.answer", "one")))
    apply(repository, gone(ANSWER), put(recorded("prompt.other", "one")))
    assert told(history, OTHER) == [(2, "prompt.other", 1)]
    assert history.versions(ANSWER)[-1].moved is None


def test_what_differs_names_the_entries_between(repository: Repository, history: History) -> None:
    apply(repository, put(recorded("prompt.answer", "one")))
    apply(repository, put(recorded("prompt.answer", "two", 2)), put(recorded("prompt.other")))
    apply(repository, put(recorded("prompt.new")))
    apply(repository, put(recorded("prompt.answer", "one")), gone(OTHER))
    forth, back = history.between(1, 3), history.between(3, 1)
    assert [(t.address, t.before is None, t.after is None) for t in forth.touched] == [
        (ANSWER, False, False),
        (NEW, True, False),
        (OTHER, True, False),
    ]
    assert forth.changed_by == back.changed_by == {ANSWER: (2,), OTHER: (2,), NEW: (3,)}
    assert [(t.after, t.before) for t in back.touched] == [(t.before, t.after) for t in forth.touched]
    same = history.between(1, 4)
    assert ([t.address for t in same.touched], same.changed_by[ANSWER]) == ([NEW], (2, 4))
    assert (history.between(2, 2).touched, history.between(0, 0).touched) == ((), ())
    assert len(history.between(0, 4).touched) == 2


def test_a_shallow_clone_says_so(repository: Repository, folder: Path, tmp_path: Path) -> None:
    for number in range(1, 4):
        apply(repository, put(recorded("prompt.answer", str(number), number)))
    git(tmp_path, "clone", "-q", "--depth", "1", "-b", f"llmctl/{ENV}", f"file://{folder}", "clone")
    history = History(open_repository(tmp_path / "clone"), ENV)
    with pytest.raises(RecordError, match="this clone is shallow") as caught:
        history.entries(Query(limit=20))
    assert "--unshallow" in caught.value.hint
