"""Packs of our own, read back by git itself."""

from __future__ import annotations

import random
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.address import Address
from llmctl.core.errors import RecordError
from llmctl.core.protocols import Change
from llmctl.record import Reader, Repository, attempt
from llmctl.record.objects import read_objects
from llmctl.record.pack import delta
from llmctl.record.writing import Batch, store
from tests.record.helpers import ENV, begin, git, put, recorded


def applied(base: bytes, change: bytes) -> bytes:
    """What git's own rules for differences make of a base, written down once more from its documentation."""
    at, out = 0, b""

    def size() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = change[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    assert size() == len(base)
    length = size()
    while at < len(change):
        code, at = change[at], at + 1
        if code < 128:
            out, at = out + change[at : at + code], at + code
            continue
        numbers = [0] * 7
        for bit in range(7):
            if code & 1 << bit:
                numbers[bit], at = change[at], at + 1
        start, count = int.from_bytes(numbers[:4], "little"), int.from_bytes(numbers[4:], "little")
        out += base[start : start + (count or 0x10000)]
    assert len(out) == length
    return out


@given(st.binary(max_size=400), st.binary(max_size=300), st.binary(max_size=400), st.binary(max_size=300))
def test_a_difference_makes_the_target_of_the_base(start: bytes, old: bytes, end: bytes, new: bytes) -> None:
    base, target = start + old + end, start + new + end
    assert applied(base, delta(base, target)) == target


def test_git_reads_what_was_packed(repository: Repository) -> None:
    batch = Batch(repository.algorithm)
    texts = [b"a" * 70_000 + b"%d" % n + b"b" * 70_000 for n in range(300)]
    name, names = "", []
    for text in texts:
        name = batch.add("blob", text, base=name)
        names.append(name)
    store(repository, batch)
    found = list(read_objects(repository, names))
    assert [item.data for item in found] == texts
    assert all(item.intact for item in found)


def test_a_chain_of_large_objects_is_not_held_in_memory() -> None:
    whole = random.Random(1).randbytes(400_000)
    batch, name = Batch("sha1"), ""
    tracemalloc.start()
    try:
        for number in range(200):
            name = batch.add("tree", whole[: 100 * number] + b"%d" % number + whole[100 * number :], base=name)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(whole)
    finally:
        tracemalloc.stop()
    assert len(batch.pack.encoded()) < 10 * len(whole)


def test_many_changes_in_a_hurry_are_few_writes_and_little_on_disk(repository: Repository, folder: Path) -> None:
    many = 600
    journal = begin(repository, lag_s=3600.0)
    for number in range(many):
        journal.commit(put(recorded(f"prompt.p{number:04}")))
    journal.close("applied", subject="Many", decisions={}, rejections=())
    reader = Reader(repository, ENV)
    assert len(reader.state().resources) == many
    assert [c.resources[0].name for c in reader.entry(1).changes] == [f"p{n:04}" for n in range(many)]
    git(folder, "fsck", "--strict", "--no-dangling")
    size = sum(path.stat().st_size for path in (folder / ".git/objects").rglob("*") if path.is_file())
    assert size < many * 2_000  # whole trees alone would be 12 MB
    assert len(list((folder / ".git/objects/pack").glob("*.pack"))) <= 3


def test_what_git_could_not_take_is_in_no_later_commit_twice(
    repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = begin(repository, lag_s=3600.0)
    journal.commit(put(recorded("prompt.a")))

    def full(*_: object) -> None:
        raise RecordError("the disk with the git repository is full")

    journal.commit(put(recorded("prompt.b")))
    monkeypatch.setattr(attempt, "store", full)
    with pytest.raises(RecordError, match="full"):
        journal.close("applied", subject="Both", decisions={}, rejections=())
    monkeypatch.undo()
    entry = journal.close("applied", subject="Both", decisions={}, rejections=())
    made = git(folder, "rev-list", "--reverse", "--topo-order", f"{entry}^2").split()[-2:]
    held = [git(folder, "ls-tree", "-r", "--name-only", commit, "resources").split() for commit in made]
    assert held == [["resources/prompt/a.json"], ["resources/prompt/a.json", "resources/prompt/b.json"]]


def test_a_folder_of_this_repository_is_readable_without_our_code(repository: Repository, folder: Path) -> None:
    journal = begin(repository, lag_s=3600.0)
    for number in range(120):
        journal.commit(put(recorded(f"prompt.p{number}")))
    journal.close("applied", subject="Many", decisions={}, rejections=())
    clone = folder.parent / "clone"
    subprocess.run(["git", "clone", "-q", "--branch", f"llmctl/{ENV}", str(folder), str(clone)], check=True)
    assert len(list((clone / "resources/prompt").iterdir())) == 120


def test_a_first_apply_of_which_all_is_taken_back_is_recorded(repository: Repository, folder: Path) -> None:
    journal = begin(repository, lag_s=3600.0)
    for name in ("prompt.a", "prompt.b"):
        journal.commit(put(recorded(name)))
    for name in ("prompt.b", "prompt.a"):
        journal.commit(Change(f"take back {name}", {Address.parse(name): None}))
    journal.commit(Change("nothing is left"))
    journal.close("failed", subject="For nothing", decisions={}, rejections=())
    made = [c.subject for c in Reader(repository, ENV).entry(1).changes]
    assert made[-2:] == ["take back prompt.a", "nothing is left"]
    git(folder, "fsck", "--strict", "--no-dangling")
