"""Tampering with the shape of a record: parents, headers, folders and texts that git takes, and llmctl never writes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from llmctl.core.decisions import Approval
from llmctl.record.objects import utc
from llmctl.record.signatures import split
from tests.record.forging import Forged, at, forge, read, signed, with_signature, write
from tests.record.helpers import BRANCH, ENV, git
from tests.record.signed_record import BOB, PLAN, Case, approval, approved_by, text
from tests.record.signing_keys import put_commit, raw

NOTHING = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # the empty folder
EMPTY = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # the empty file


def head_with(case: Case, change: Callable[[bytes], bytes]) -> None:
    """The last entry with another commit object, signed by Ann."""
    payload = split(raw(case.folder, case.head), "sha1")[0]
    new = change(payload)
    assert new != payload
    git(case.folder, "update-ref", BRANCH, put_commit(case.folder, with_signature(new, signed(new, case.keys["ann"]))))


def said(case: Case) -> list[str]:
    return [reason for _, reason, _ in case.said(case.check())]


def test_an_entry_cannot_go_back_by_merging_what_is_older(case: Case) -> None:
    """Against an older parent, all that the entries since then brought is no change; so it would vanish unseen."""
    names = git(case.folder, "rev-list", "--first-parent", BRANCH).split()
    six, three = read(case.folder, names[1]), read(case.folder, names[4])
    assert (six.subject, three.subject) == ("Six", "Three")
    files = {**three.files, **{path: six.files[path] for path in ("state.json", "decisions/6.json")}}
    parents = [names[2], names[4]]
    new = write(case.folder, files, parents, six.message, six.head, case.keys["ann"])
    git(case.folder, "update-ref", BRANCH, new)
    assert said(case) == ["merges what is no attempt of its own"]


@pytest.mark.parametrize("name", ["Serial: 8", "Outcome: failed", "Actor: Bob <bob@example.org>", "Plan: sha256:0"])
def test_a_trailer_that_stands_once_stands_once(case: Case, name: str) -> None:
    edit = at("Six", text("\nLlmctl-Outcome", f"\nLlmctl-{name}\nLlmctl-Outcome"))
    if name.startswith("Outcome"):
        edit = at("Six", lambda old: setattr(old, "message", f"{old.message}Llmctl-{name}\n"))
    forge(case.folder, edit, case.keys["ann"])
    assert f"says Llmctl-{name.partition(':')[0]} more than once" in said(case)


@pytest.mark.parametrize(("key", "told"), [("actor", "Bob"), ("plan", "sha256:0"), ("action", "rollback")])
def test_decisions_say_what_the_entry_says(case: Case, key: str, told: str) -> None:
    def edit(old: Forged) -> None:
        if "decisions/6.json" in old.files:
            old.edit("decisions/6.json", lambda d: d.update({key: told}))

    forge(case.folder, edit, case.keys["ann"])
    assert any(reason.startswith(f"decisions/6.json says {key} '{told}', the entry ") for reason in said(case))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda t: t.replace("100644 blob", "100755 blob", 1), "state.json is no plain file (mode 100755)"),
        (lambda t: t.replace("100644 blob", "120000 blob", 1), "state.json is no plain file (mode 120000)"),
        (lambda t: f"{t}100644 blob {EMPTY}\tREADME\n", "an entry may not change README"),
        (lambda t: f"{t}100644 blob {EMPTY}\tstate.json \n", "an entry may not change state.json "),
        (
            lambda t: f"{t}100644 blob {EMPTY}\tstate\u200b.json\n",
            'an entry may not change "state\\342\\200\\213.json"',
        ),
        (lambda t: f"{t}100644 blob {EMPTY}\tstate.json\n", "state.json in the record cannot be read"),
        (lambda t: f"{t}160000 commit {'a' * 40}\tsub\n", "sub is no plain file (mode 160000)"),
        (lambda t: t.replace("\tresources", "\tResources"), "an entry may not change Resources/model/m.json"),
        (lambda t: f"{t}040000 tree {NOTHING}\tempty\n", "empty is an empty folder"),
    ],
    ids=["mode", "link", "file", "space", "zero-width", "twice", "submodule", "case", "empty"],
)
def test_folders_that_llmctl_never_writes(case: Case, edit: Callable[[str], str], reason: str) -> None:
    git(case.folder, "hash-object", "-w", "--stdin", stdin=b"")
    git(case.folder, "hash-object", "-w", "-t", "tree", "--stdin", stdin=b"")
    lines = git(case.folder, "ls-tree", case.head) + "\n"
    tree = git(case.folder, "mktree", "--missing", stdin=edit(lines).encode())
    head_with(case, lambda payload: b"tree " + tree.encode() + payload[45:])
    assert any(reason in found for found in said(case)), said(case)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda p: p.replace(b"\n\n", b"\nencoding latin1\n\n", 1), id="encoding"),
        pytest.param(lambda p: p.replace(b"\n\n", b"\nmergetag object 00\n tag x\n\n", 1), id="mergetag"),
        pytest.param(lambda p: p.replace(b"\n", b"\r\n").replace(b"\r\n", b"\n", 6), id="crlf"),
        pytest.param(lambda p: p.replace(b"Seven", b"Seven\0hidden", 1), id="nul"),
        pytest.param(lambda p: p.replace(b"\nauthor ", b"\nauthor Eve <eve@x> 0 +0000\nauthor ", 1), id="authors"),
        pytest.param(lambda p: p.replace(b"\nparent ", b"\nauthor Eve <eve@x> 0 +0000\nparent ", 1), id="order"),
        pytest.param(lambda p: p + b"\nMore text, and no trailers.\n", id="text-after"),
        pytest.param(lambda p: p.replace(b"Seven\n", b"Seven\n\nLlmctl-Outcome: failed\n", 1), id="trailers-before"),
    ],
)
def test_commits_that_llmctl_never_writes(case: Case, edit: Callable[[bytes], bytes]) -> None:
    head_with(case, edit)
    assert "is not written as llmctl writes a commit" in said(case)


def test_what_somebody_signed_for_another_end_is_no_approval(case: Case) -> None:
    """Whoever picks a commit of another signs its text; the text can be that of an approval."""
    expires = utc(datetime.now(UTC) + timedelta(days=1))
    trailers = {"Approves": PLAN, "Environment": ENV, "Project": "acme", "Expires": expires}
    message = "Fix\n\n" + "".join(f"Llmctl-{name}: {value}\n" for name, value in trailers.items())
    with_bob = ["-c", "gpg.format=ssh", "-c", f"user.signingkey={case.keys['bob'].path}"]
    who = ["-c", "user.name=Bob", "-c", f"user.email={BOB}"]
    command = ["commit-tree", "-S", "-p", case.head, "-F", "-", f"{case.head}^{{tree}}"]
    picked = git(case.folder, *with_bob, *who, *command, stdin=message.encode())
    found = approval(case, BOB, "bob")
    given = Approval(BOB, found.key, PLAN, found.at, expires, raw(case.folder, picked).decode())
    forge(case.folder, approved_by(given), case.keys["ann"])
    assert f"the approval of {BOB} is no approval, but another commit that was signed" in said(case)
    assert "was applied with 0 of 1 approvals" in said(case)
