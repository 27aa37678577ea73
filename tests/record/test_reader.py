from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmctl.core.address import Address
from llmctl.core.errors import RecordError
from llmctl.core.resources import RecordState
from llmctl.record import Reader, Repository
from tests.record.helpers import BRANCH, ENV, apply, begin, evidence, git, prove, put, recorded


def replace_file(folder: Path, path: str, content: str) -> None:
    """Put a commit on the record that changes one file, as somebody could by hand."""
    blob = git(folder, "hash-object", "-w", "--stdin", stdin=content.encode())
    index = folder / ".git" / "test-index"
    env = ["env", f"GIT_INDEX_FILE={index}"]
    import subprocess

    for command in (
        ["git", "read-tree", BRANCH],
        ["git", "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}"],
    ):
        subprocess.run([*env, *command], cwd=folder, check=True)
    tree = subprocess.run([*env, "git", "write-tree"], cwd=folder, check=True, capture_output=True, text=True).stdout
    commit = git(folder, "commit-tree", tree.strip(), "-p", BRANCH, "-m", "by hand")
    git(folder, "update-ref", BRANCH, commit)


def test_no_record_is_serial_nought(repository: Repository) -> None:
    reader = Reader(repository, ENV)
    assert reader.state() == RecordState(ENV)
    assert reader.entries(5) == []
    assert reader.evidence() == []
    with pytest.raises(RecordError, match="serial 1 is not in the record of dev; it is empty"):
        reader.state_at(1)


def test_states_of_earlier_entries(repository: Repository) -> None:
    apply(repository, put(recorded("prompt.answer", "one")))
    apply(repository, put(recorded("prompt.answer", "two", 2)), put(recorded("prompt.other")))
    reader = Reader(repository, ENV)
    assert reader.state_at(1).resources == {Address("prompt", "answer"): recorded("prompt.answer", "one")}
    assert reader.state_at(2) == reader.state()
    with pytest.raises(RecordError, match="it has 1 to 2"):
        reader.state_at(7)
    with pytest.raises(RecordError, match="it has 1 to 2"):
        reader.entry(0)


def test_entries_newest_first(repository: Repository) -> None:
    for number in range(1, 4):
        apply(repository, put(recorded("prompt.answer", str(number), number)), subject=f"Apply {number}", fence=number)
    reader = Reader(repository, ENV)
    entries = reader.entries(2)
    assert [(e.serial, e.subject, e.resources) for e in entries] == [
        (3, "Apply 3", (Address("prompt", "answer"),)),
        (2, "Apply 2", (Address("prompt", "answer"),)),
    ]
    assert entries[0].commit == reader.head()
    assert entries[0].actor == "Ann Example <ann@example.org>"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entries[0].time)
    assert [e.serial for e in reader.entries(100)] == [3, 2, 1]


def test_evidence_by_gate(repository: Repository) -> None:
    found = [evidence("faq"), evidence("faq", 0.9), evidence("tone")]
    apply(repository, *map(prove, found))
    reader = Reader(repository, ENV)
    assert {e.digest for e in reader.evidence()} == {e.digest for e in found}
    assert {e.digest for e in reader.evidence("faq")} == {e.digest for e in found[:2]}
    assert reader.evidence("none") == []


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 1, "serial": "x"}', '"text"', "\x00\xff"])
def test_a_corrupted_state_file_is_a_clear_error(repository: Repository, folder: Path, content: str) -> None:
    apply(repository, put(recorded("prompt.answer")))
    replace_file(folder, "state.json", content)
    for read in (Reader(repository, ENV).state, Reader(repository, ENV).summary):
        with pytest.raises(RecordError, match=r"state\.json of [0-9a-f]{12} in the record cannot be read") as caught:
            read()
        assert "audit verify" in caught.value.hint


def test_a_corrupted_resource_names_the_file(repository: Repository, folder: Path) -> None:
    apply(repository, put(recorded("prompt.answer")))
    replace_file(folder, "resources/prompt/answer.json", '{"kind": "prompt"}')
    with pytest.raises(RecordError, match=r"resources/prompt/answer\.json of [0-9a-f]{12}") as caught:
        Reader(repository, ENV).state()
    assert "'name' is missing" in caught.value.detail


@pytest.mark.parametrize("path", ["state.json", "resources/prompt/answer.json"])
def test_a_newer_format_asks_for_an_upgrade(repository: Repository, folder: Path, path: str) -> None:
    apply(repository, put(recorded("prompt.answer")))
    text = git(folder, "show", f"{BRANCH}:{path}").replace('"format": 1', '"format": 2')
    replace_file(folder, path, text)
    with pytest.raises(RecordError, match=r"newer llmctl \(format 2, this one knows 1\)") as caught:
        Reader(repository, ENV).state()
    assert "Upgrade" in caught.value.hint


def test_keys_of_later_formats_and_other_files_are_tolerated(repository: Repository, folder: Path) -> None:
    apply(repository, put(recorded("prompt.answer")))
    text = git(folder, "show", f"{BRANCH}:state.json").replace('"format": 1', '"format": 1, "later": []')
    replace_file(folder, "state.json", text)
    replace_file(folder, "later/file.txt", "x")
    assert Reader(repository, ENV).state().serial == 1
    apply(repository, put(recorded("prompt.answer", "two", 2)))
    assert git(folder, "show", f"{BRANCH}:later/file.txt") == "x"


def test_a_branch_that_is_no_record(repository: Repository, folder: Path) -> None:
    git(folder, "branch", f"llmctl/{ENV}")
    with pytest.raises(RecordError, match=r"holds no state\.json"):
        Reader(repository, ENV).state()


def test_the_record_of_another_environment(repository: Repository, folder: Path) -> None:
    apply(repository, put(recorded("prompt.answer")))
    git(folder, "branch", "llmctl/prod", f"llmctl/{ENV}")
    with pytest.raises(RecordError, match="holds the record of dev"):
        Reader(repository, "prod").state()


def test_a_reader_never_writes(repository: Repository, folder: Path) -> None:
    apply(repository, put(recorded("prompt.answer")), prove(evidence()))
    attempt = begin(repository)

    def everything() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in sorted((folder / ".git").rglob("*"))}

    before = everything()
    reader = Reader(repository, ENV)
    reader.state(), reader.state_at(1), reader.entries(3), reader.entry(1), reader.evidence(), reader.summary()
    assert everything() == before
    attempt.abandon()
