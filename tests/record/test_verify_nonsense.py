"""Whatever lies in the branch, verify ends with findings, or with an error that says what to do."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.digests import pretty_json
from llmctl.core.errors import RecordError
from llmctl.record import Repository, verify
from llmctl.record.verifying.stream import LARGEST
from tests.record.forging import at, forge
from tests.record.helpers import BRANCH, ENV, apply, git, judge, put, recorded
from tests.record.signing_keys import put_commit

ANSWER = "resources/prompt/answer.json"
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture
def record(repository: Repository) -> Repository:
    apply(repository, put(recorded("prompt.answer")), subject="One")
    apply(repository, put(recorded("prompt.answer", "two", 2)), subject="Two")
    return repository


def reasons(repository: Repository) -> list[str]:
    return [f.reason for f in verify(repository, ENV, expect_head=None, judge=judge).findings]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0" * (LARGEST + 1), "is 64 MB large; llmctl writes no file above 64 MB"),
        (b"\xff\xfe\xfd", "cannot be read"),
        (b"", "cannot be read"),
        (DEEP, "cannot be read"),
        (b'{"x": %s}' % DEEP, "cannot be read"),
        (b'{"x": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b'{"x": NaN}\n', "was edited"),
        (b'{"x": "\\ud800"}\n', "was edited"),
        (b'{"format": 99}', "newer llmctl"),
        (b'{"format": 1, "kind": 3, "name": [], "spec": 4}', "cannot be read"),
    ],
    ids=["large", "no text", "empty", "deep", "deeper", "digits", "nan", "surrogate", "newer", "shapes"],
)
@pytest.mark.parametrize("path", [ANSWER, "state.json", "decisions/2.json"])
def test_a_file_of_nonsense(record: Repository, folder: Path, path: str, data: bytes, reason: str) -> None:
    forge(folder, at("Two", lambda old: old.files.update({path: data})))
    found = reasons(record)
    odd = "shapes" if b"kind" in data and path == "decisions/2.json" else ""
    assert odd or any(path in text and reason in text for text in found) or path == "state.json", found
    assert found


@pytest.mark.parametrize("section", ["approvals", "break_glass", "reconciles", "promotion", "action"])
@pytest.mark.parametrize("value", ["null", "3", '"x"', "[]", "[[]]", "{}", '{"required": [], "given": {}}', "[1e400]"])
def test_decisions_of_nonsense(record: Repository, folder: Path, section: str, value: str) -> None:
    data = pretty_json(json.loads(f'{{"{section}": {value.replace("1e400", "1e40")}}}')).encode()
    forge(folder, at("Two", lambda old: old.files.update({"decisions/2.json": data})))
    assert all(isinstance(text, str) for text in reasons(record))


@pytest.mark.parametrize(
    "text",
    ["", "\n", "Two\n\nLlmctl-Serial: " + "9" * 5000, "Two\n\nLlmctl-Serial: ٣", "Two\n\nLlmctl-Gate: \x00", "\x1b[2J"],
)
def test_a_text_of_nonsense(record: Repository, folder: Path, text: str) -> None:
    forge(folder, at("Two", lambda old: setattr(old, "message", text)))
    assert reasons(record)


def test_a_commit_in_no_known_encoding(record: Repository, folder: Path) -> None:
    tree = git(folder, "rev-parse", f"{BRANCH}^{{tree}}")
    head = f"tree {tree}\nparent {git(folder, 'rev-parse', BRANCH)}\n".encode()
    people = b"author \xff\xfe <\xc3\x28> 1 +0000\ncommitter x <y> 99999999999 +0000\nencoding nonsense\n\n\xff\xff"
    git(folder, "update-ref", BRANCH, put_commit(folder, head + people))
    assert any("is no entry that llmctl made" in text for text in reasons(record))


def test_hundreds_of_parents(record: Repository, folder: Path) -> None:
    tree, tip = git(folder, "rev-parse", f"{BRANCH}^{{tree}}"), git(folder, "rev-parse", BRANCH)
    strays = [git(folder, "commit-tree", tree, "-m", f"stray {n}") for n in range(300)]
    parents = "".join(f"parent {name}\n" for name in [tip, *strays])
    people = "author x <y> 1 +0000\ncommitter x <y> 1 +0000\n\nmany\n"
    git(folder, "update-ref", BRANCH, put_commit(folder, f"tree {tree}\n{parents}{people}".encode()))
    found = reasons(record)
    assert "merges more than one attempt" in found
    assert sum(text.startswith("belongs to no entry") for text in found) == 299


@pytest.mark.parametrize(("mode", "said"), [("120000", "mode 120000"), ("100755", "mode 100755"), ("160000", "mode")])
def test_a_file_that_is_no_plain_file(record: Repository, folder: Path, mode: str, said: str) -> None:
    target = git(folder, "rev-parse", BRANCH if mode == "160000" else f"{BRANCH}:{ANSWER}")
    inner = git(
        folder,
        "mktree",
        "--missing",
        stdin=f"{mode} blob {target}\tanswer.json\n".replace("blob", "commit" if mode == "160000" else "blob").encode(),
    )
    middle = git(folder, "mktree", stdin=f"040000 tree {inner}\tprompt\n".encode())
    listed = [line for line in git(folder, "ls-tree", BRANCH).split("\n") if not line.endswith("resources")]
    tree = git(folder, "mktree", stdin="\n".join([*listed, f"040000 tree {middle}\tresources"]).encode())
    commit = git(folder, "commit-tree", tree, "-p", BRANCH, "-m", "odd")
    git(folder, "update-ref", BRANCH, commit)
    found = reasons(record)
    assert any(said in text and "is no plain file" in text for text in found), found


@pytest.mark.parametrize("keep", [0, 1, 20])
@pytest.mark.parametrize("name", [BRANCH, f"{BRANCH}^{{tree}}", f"{BRANCH}:{ANSWER}", f"{BRANCH}~1"])
def test_a_truncated_object_is_an_error_with_a_way_out(record: Repository, folder: Path, name: str, keep: int) -> None:
    target = git(folder, "rev-parse", name)
    path = folder / ".git" / "objects" / target[:2] / target[2:]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RecordError) as caught:
        reasons(record)
    assert caught.value.hint


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_files_are_written_as_the_standard_library_would(value: object) -> None:
    plain = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    assert pretty_json(value) == plain


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_what_json_does_not_have_is_written_for_nothing(value: object) -> None:
    with pytest.raises(ValueError):
        pretty_json(value)
