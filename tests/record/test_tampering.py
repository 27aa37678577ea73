"""The tampering table: each way to lie in a signed record is told, with its own reason and what anchors it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from llmctl.core.digests import Json, pretty_json
from llmctl.record import open_repository, verify
from llmctl.record.layout import evidence_path
from llmctl.record.signers import Signers
from llmctl.record.verifying.signing import Demand
from tests.record.forging import Edit, Forged, at, forge, read
from tests.record.helpers import BRANCH, ENV, begin, git, judge
from tests.record.signed_record import (
    ANN,
    BOB,
    DORA,
    EVIDENCE,
    FORGED,
    PROVEN,
    TOKEN,
    Case,
    both,
    fingerprint,
    make_case,
    since,
    text,
    without,
)
from tests.record.signing_keys import sign_with


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
@pytest.mark.parametrize("sign", [True, False], ids=["signed", "unsigned"])
def test_the_untouched_record_is_green(tmp_path: Path, algorithm: str, sign: bool) -> None:
    case = make_case(tmp_path, algorithm, sign=sign)
    result = (
        case.check()
        if sign
        else verify(
            open_repository(case.folder),
            ENV,
            expect_head=None,
            judge=judge,
            demand=Demand(Signers.load(open_repository(case.folder), case.allowed, case.revoked), unsigned=None),
        )
    )
    assert case.said(result) == []
    assert (result.entries, result.evidence, result.commits) == (7, 1, 17)
    assert result.anchor == (f"signed by {ANN}" if sign else "unanchored")
    assert result.signatures == ({"good": 17} if sign else {"unsigned": 17})
    assert case.check(case.head).anchor == f"signed by {ANN}, expected head" if sign else "expected head"


def test_without_anybodys_word_signatures_are_noted(case: Case) -> None:
    result = case.check(known=False)
    assert (result.ok, result.anchor, result.signers) == (True, "unanchored", "")
    assert (result.signatures, result.key) == ({"good": 17}, fingerprint(case.keys["ann"]))


# -- the table: what is done, to which commit, what is said of it ----------------------------------


def threshold_with_all_names_made_to_fit(old: Forged) -> None:
    if old.files.pop(EVIDENCE, None):
        old.files[evidence_path(FORGED)] = pretty_json(FORGED.to_json()).encode()
    old.message = old.message.replace(PROVEN.digest, FORGED.digest).replace(EVIDENCE, evidence_path(FORGED))


def insert_change(old: Forged) -> None:
    old.before.append(("Just a small fix\n", {**old.files, "resources/prompt/answer.json": b"{}"}))


def insert_entry(old: Forged) -> None:
    old.before.append(("By hand\n", dict(old.files)))


def drop(subject: str) -> Edit:
    return at(subject, lambda old: setattr(old, "dropped", True))


def reconcile_nothing(old: Forged) -> None:
    old.edit("decisions/5.json", lambda d: d.pop("reconciles"))
    without("Reconciles")(old)


def close_glass_at_once(old: Forged) -> None:
    old.edit("state.json", lambda s: s.pop("break_glass"))


def hide_glass(old: Forged) -> None:
    if old.subject == "Four":
        old.edit("decisions/4.json", lambda d: d.pop("break_glass"))
        without("Break-Glass")(old)
    elif "decisions/4.json" in old.files:
        old.edit("decisions/4.json", lambda d: d.pop("break_glass"))


def secret(old: Forged) -> None:
    old.edit("resources/model/m.json", lambda r: r["outputs"].update(note=f"use {TOKEN}"))


def clear_in_an_apply(old: Forged) -> None:
    if old.subject in ("Seven", "Clear away"):
        text("Llmctl-Action: gc", "Llmctl-Action: apply")(old)


def one_fence_back(state: Json) -> None:
    state["fence"] = 0


@dataclass(frozen=True)
class Row:
    name: str
    edit: Edit
    subject: str
    reason: str


TABLE = [
    Row(
        "evidence edited",
        since(EVIDENCE, lambda old: old.edit(EVIDENCE, lambda e: e["judgements"][0].update(lower=0.98))),
        "Gate faq: PASS",
        "not what its name says: it was edited",
    ),
    Row(
        "threshold edited after the fact",
        threshold_with_all_names_made_to_fit,
        "Gate faq: PASS",
        "exact_match: PASS is not what 0.97 against 0.99 gives",
    ),
    Row(
        "gate result claimed but absent",
        at("Two", text("Llmctl-Plan", f"Llmctl-Gate: tone PASS {PROVEN.digest}\nLlmctl-Plan")),
        "Two",
        "claims gate tone PASS, but the evidence is absent",
    ),
    Row("change dropped", drop("Create model.m v1"), "Five", "an entry may not change resources/model/m.json"),
    Row("entry dropped", drop("Three"), "Four", "has serial 4 after 2: entries are missing or repeated"),
    Row(
        "change inserted by hand", at("Create model.m v1", insert_change), "Just a small fix", "is no change of entry 5"
    ),
    Row("entry inserted by hand", at("Three", insert_entry), "By hand", "is no entry that llmctl made"),
    Row(
        "serial gap",
        both(
            text("Llmctl-Serial: 7", "Llmctl-Serial: 9"),
            at("Seven", lambda o: o.files.update({"decisions/9.json": o.files.pop("decisions/7.json")})),
            at("Seven", lambda o: o.edit("state.json", lambda s: s.update(serial=9))),
        ),
        "Seven",
        "has serial 9 after 6: entries are missing or repeated",
    ),
    Row(
        "resources that no attempt explains",
        at("Six", lambda o: o.edit("resources/prompt/answer.json", lambda r: r["spec"].update(t=2))),
        "Six",
        "an entry may not change resources/prompt/answer.json",
    ),
    Row(
        "resources without a trailer",
        at("Create model.m v1", without("Resource")),
        "Create model.m v1",
        "changes model.m without a Llmctl-Resource trailer for it",
    ),
    Row(
        "secret-looking value",
        since("resources/model/m.json", secret),
        "Create model.m v1",
        "looks like a GitHub token",
    ),
    Row("secret in a text", at("Six", text("Six", f"Six {TOKEN}")), f"Six {TOKEN}", "its text holds what looks like"),
    Row(
        "approval taken out of an entry",
        since("decisions/2.json", lambda o: o.edit("decisions/2.json", lambda d: d["approvals"].update(given=[]))),
        "Two",
        "was applied with 0 of 1 approvals",
    ),
    Row(
        "approvals never asked for",
        both(
            since("decisions/5.json", lambda o: o.edit("decisions/5.json", lambda d: d.pop("approvals"))),
            at("Five", without("Approval")),
        ),
        "Five",
        "says that it needed 0 approvals, and by the entry before it needed 1",
    ),
    Row(
        "approval only named",
        at("Six", text("Llmctl-Plan", "Llmctl-Approval: bob x\nLlmctl-Plan")),
        "Six",
        "names approvals",
    ),
    Row("break-glass without a trailer", at("Four", without("Break-Glass")), "Four", "broke the glass without a"),
    Row("break-glass hidden", hide_glass, "Four", "says that it broke the glass, and its decisions know nothing of it"),
    Row(
        "break-glass told otherwise",
        at("Four", text("Llmctl-Break-Glass: site is down", "Llmctl-Break-Glass: planned work")),
        "Four",
        "its Llmctl-Break-Glass trailer is not what its decisions say",
    ),
    Row("break-glass closed at once", at("Four", close_glass_at_once), "Four", "drops the break-glass of serial 4"),
    Row(
        "break-glass dropped",
        both(
            at("Five", reconcile_nothing),
            lambda o: (
                None
                if "decisions/5.json" not in o.files or o.subject == "Five"
                else o.edit("decisions/5.json", lambda d: d.pop("reconciles"))
            ),
        ),
        "Five",
        "drops the break-glass of serial 4, and nothing says that it was put right",
    ),
    Row(
        "promotion proof malformed",
        since("decisions/6.json", lambda o: o.edit("decisions/6.json", lambda d: d["promotion"].update(head="main"))),
        "Six",
        "its promotion proof is malformed",
    ),
    Row(
        "evidence cleared away by an apply",
        clear_in_an_apply,
        "Clear away",
        "removes evidence that was recorded before",
    ),
    Row(
        "evidence cleared away without a trailer",
        at("Clear away", without("Removes")),
        "Clear away",
        "removes evidence without a Llmctl-Removes trailer",
    ),
    Row(
        "old holder",
        at("Six", lambda o: o.edit("state.json", one_fence_back)),
        "Six",
        "fencing token 0 is lower than 1",
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=[row.name.replace(" ", "-") for row in TABLE])
@pytest.mark.parametrize("insider", [False, True], ids=["by-a-stranger", "by-an-insider"])
def test_the_table(case: Case, row: Row, insider: bool) -> None:
    before = case.head
    forge(case.folder, row.edit, case.keys["ann"] if insider else None)
    assert case.head != before
    said = case.said(case.check())
    found = [(reason, anchor) for subject, reason, anchor in said if subject == row.subject and row.reason in reason]
    assert found, said
    assert {anchor for _, anchor in found} == {f"signed by {ANN}" if insider else "unanchored"}
    assert any(reason == "is not signed" for _, reason, _ in said) is not insider
    assert not any(TOKEN in reason for _, reason, _ in said)
    assert any("expected was" in reason for _, reason, _ in case.said(case.check(before)))


def test_entries_reordered(case: Case) -> None:
    names = git(case.folder, "rev-list", "--first-parent", BRANCH).split()
    two, three = (read(case.folder, name) for name in (names[5], names[4]))
    assert (two.subject, three.subject) == ("Two", "Three")

    def edit(old: Forged) -> None:
        if old.subject == "Two":
            old.message, old.files = three.message, {**three.files}
            del old.files["decisions/2.json"]
        elif old.subject == "Three":
            old.message, old.files = two.message, {**three.files, "state.json": two.files["state.json"]}

    forge(case.folder, edit, case.keys["ann"])
    said = case.said(case.check())
    assert ("Three", "has serial 3 after 1: entries are missing or repeated", f"signed by {ANN}") in said
    assert ("Two", "has serial 2 after 3: entries are missing or repeated", f"signed by {ANN}") in said


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("", "is not signed"),
        ("stale", "its signature is bad: it is not of this content"),
        ("carl", "is signed by a stranger, with the key KEY: the key is none of the allowed signers"),
        ("dora", f"is signed with the key KEY of {DORA}, which is revoked"),
        ("eve", "is signed with the key KEY of eve@example.org at a time at which it did not count"),
    ],
)
def test_history_rewritten_from_a_point(case: Case, who: str, reason: str) -> None:
    """Consistently, so that only signatures tell: of every commit from there on, and of none before."""
    key = case.keys.get(who)
    new = forge(case.folder, at("Six", text("ci-42", "ci-43")), key, stale=who == "stale")
    changed = [new[name] for name in new if new[name] != name]
    wanted = reason.replace("KEY", fingerprint(key) if key else "")
    assert case.said(case.check()) == [(s, wanted, "unanchored") for s in ("Six", "Clear away", "Seven")]
    assert len(changed) == 3
    before = git(case.folder, "rev-parse", f"{BRANCH}~2")
    assert read(case.folder, before).subject == "Five"
    result = case.check(known=False)
    assert result.ok == (who != "stale")  # a signature of something else is told by anybody


def test_a_tampering_that_is_consistent_and_unsigned_cannot_be_told(case: Case) -> None:
    head = case.head
    forge(case.folder, at("Six", text("ci-42", "ci-43")))
    result = case.check(known=False)
    assert (result.ok, result.anchor) == (True, "unanchored")  # which is what it says of itself
    (finding,) = case.check(head, known=False).findings
    assert (finding.commit, finding.anchor) == (case.head, "unanchored")
    assert finding.reason == f"the record ends at {case.head}, expected was {head}"


def test_nor_can_one_by_an_allowed_signer_but_by_the_expected_head(case: Case) -> None:
    head = case.head
    forge(case.folder, at("Six", text("ci-42", "ci-43")), case.keys["bob"])
    assert case.check().anchor == f"signed by {BOB}"
    (finding,) = case.check(head).findings
    assert finding.anchor == f"signed by {BOB}"  # the tampering has a name


def test_a_truncated_branch_against_the_expected_head(case: Case) -> None:
    head = case.head
    git(case.folder, "update-ref", BRANCH, f"{BRANCH}~1")
    assert case.check().ok
    (finding,) = case.check(head).findings
    assert finding.reason == f"the record ends at {case.head}, expected was {head}"
    git(case.folder, "update-ref", BRANCH, head)
    older = git(case.folder, "rev-parse", f"{BRANCH}~1")
    result = case.check(older)
    (finding,) = result.findings
    assert "the record goes on after the expected head" in finding.reason
    assert result.anchor == f"signed by {ANN}"


def test_a_record_that_began_unsigned_is_signed_from_a_serial_on(tmp_path: Path) -> None:
    case = make_case(tmp_path, sign=False)
    sign_with(case.folder, case.keys["ann"])
    begin(open_repository(case.folder)).close("failed", subject="Eight", decisions={}, rejections=())
    said = case.said(case.check())
    assert {reason for _, reason, _ in said} == {"is not signed"}
    assert {anchor for *_, anchor in said} == {f"below a commit signed by {ANN}"}
    assert len(said) == 17
    result = case.check(since=8)
    assert (result.ok, result.anchor) == (True, f"signed by {ANN}")
    assert not case.check(since=7).ok
