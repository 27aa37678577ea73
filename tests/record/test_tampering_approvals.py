"""Approvals that are none: an auditor is told of each, by its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from llmctl.core.decisions import Approval
from llmctl.core.digests import Json
from llmctl.record.signatures import split
from tests.record.forging import forge
from tests.record.signed_record import (
    ANN,
    BOB,
    DORA,
    PLAN,
    Case,
    approval,
    approved_by,
    edit_json,
)


def _unsigned(found: Approval) -> Approval:
    return replace(found, signed=split(found.signed.encode(), "sha1")[0].decode())


APPROVALS: dict[str, tuple[Callable[[Case], list[Approval]], str]] = {
    "by the actor": (lambda c: [approval(c, ANN, "ann")], f"the approval of {ANN} is the actor's own"),
    "by the actor with another's key": (
        lambda c: [approval(c, BOB, "bob", author=ANN)],
        f"the approval of {BOB} is the actor's own",
    ),
    "for another plan": (
        lambda c: [replace(approval(c, BOB, "bob", "sha256:" + "b" * 64), plan=PLAN)],
        f"the approval of {BOB} is for another plan",
    ),
    "for another environment": (
        lambda c: [approval(c, BOB, "bob", environment="prod")],
        f"the approval of {BOB} is for another environment",
    ),
    "expired": (lambda c: [approval(c, BOB, "bob", hours=-1)], f"the approval of {BOB} had expired when the plan"),
    "told to hold for longer": (
        lambda c: [replace(approval(c, BOB, "bob"), expires="2099-01-01T00:00:00Z")],
        f"the approval of {BOB} says something else than what was signed",
    ),
    "by a stranger": (lambda c: [approval(c, BOB, "carl")], f"the approval of {BOB} is signed by a stranger"),
    "by a revoked key": (lambda c: [approval(c, DORA, "dora")], f"the approval of {DORA} is signed with a key that is"),
    "by a key out of time": (lambda c: [approval(c, "eve@example.org", "eve")], "signed with a key that did not count"),
    "with a bad signature": (
        lambda c: [replace(f := approval(c, BOB, "bob"), signed=f.signed.replace("Approve\n", "Approved\n"))],
        f"the approval of {BOB} has a bad signature",
    ),
    "not signed": (lambda c: [_unsigned(approval(c, BOB, "bob"))], f"the approval of {BOB} is not signed"),
    "in another's name": (
        lambda c: [replace(approval(c, BOB, "bob"), signer=DORA)],
        f"the approval of {DORA} is not theirs",
    ),
    "nonsense": (lambda c: [replace(approval(c, BOB, "bob"), signed="\x00 nothing")], "is not signed"),
}


@pytest.mark.parametrize("name", APPROVALS)
def test_an_approval_that_is_none(case: Case, name: str) -> None:
    make, reason = APPROVALS[name]
    forge(case.folder, approved_by(*make(case)), case.keys["ann"])
    said = case.said(case.check())
    assert any(subject == "Two" and reason in what for subject, what, _ in said), said
    assert ("Two", "was applied with 0 of 1 approvals", f"signed by {ANN}") in said
    assert {anchor for *_, anchor in said} == {f"signed by {ANN}"}


def test_one_person_approves_once(case: Case) -> None:
    given = [approval(case, BOB, "bob"), approval(case, BOB, "bob", hours=48)]
    forge(case.folder, approved_by(*given, required=2), case.keys["ann"])
    assert case.said(case.check()) == [("Two", "was applied with 1 of 2 approvals", f"signed by {ANN}")]


@pytest.mark.parametrize(
    "section", [3, [], {"given": []}, {"required": "x", "given": []}, {"required": 1, "given": [7]}]
)
def test_approvals_that_cannot_be_read(case: Case, section: Json) -> None:
    edit = edit_json("decisions/6.json", lambda d: d.update(approvals=section))
    forge(case.folder, edit, case.keys["ann"])
    assert ("Six", "its approvals cannot be read", f"signed by {ANN}") in case.said(case.check())
