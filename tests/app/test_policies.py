"""All that policies say of a plan: as the file has them, as they were, and of the plan as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from llmctl.app.policies import judge, untold
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.policies import PolicyResult, ran_out
from llmctl.core.resources import Desired, Resource
from llmctl.plan import Plan, build_plan
from tests.plan.builders import application, desired, live, recorded

TODAY = date(2026, 11, 21)
OPEN, LICENCE, TINY = Address("policy", "open"), Address("policy", "licence"), Address("model", "tiny")
STRICT = {"applies_to": "model", "require": "resource.license == 'MIT'", "severity": "deny", "message": "Why."}
LOOSE = {**STRICT, "require": "true"}
CALM = {"applies_to": "plan", "require": "size(plan.changes) == 0", "severity": "warn", "message": "Look twice."}
Resources = Mapping[Address, Resource]


def app(policies: Mapping[str, dict[str, Any]], **edits: Any) -> dict[Address, Resource]:
    found = {a: r for a, r in application(**edits).items() if a.kind != "policy"}
    for name, spec in policies.items():
        found[Address("policy", name)] = Resource(Address("policy", name), spec, name)
    return found


def verdicts(
    before: Resources,
    after: Resources,
    base: Resources | None = None,
    moved: tuple[tuple[Address, Address], ...] = (),
    targets: tuple[Address, ...] = (),
    **more: Any,
) -> list[str]:
    wanted: Desired = replace(desired(after), moved=moved)
    made: Plan = build_plan(
        wanted, recorded(before), live(before), targets=targets, base=base, base_name="main", **more
    )
    results = judge(made, wanted, base, TODAY)
    assert list(results) == sorted(results, key=lambda r: (r.policy, r.address, r.basis != "head"))
    return [said(r) for r in results]


def said(result: PolicyResult) -> str:
    word = "denies" if result.denies else "waives" if result.waiver else "allows" if result.ok else "warns"
    return f"{result.policy} {word} {result.address} ({result.basis})"


def test_resources_the_plan_and_what_was_recorded_in_one_order() -> None:
    before = app({"open": STRICT, "calm": CALM})
    assert verdicts(before, before) == ["calm allows plan.dev (head)", "open allows model.tiny (head)"]
    after = app({"open": LOOSE, "calm": CALM}, license="GPL-3.0")
    assert verdicts(before, after) == [
        "calm warns plan.dev (head)",
        "open allows model.tiny (head)",
        "open denies model.tiny (base)",
    ]


def test_a_rollback_is_judged_by_its_own_policies_and_a_destroy_by_none() -> None:
    before, after = app({"open": STRICT}), app({"open": LOOSE, "calm": CALM}, license="GPL-3.0")
    assert verdicts(before, after, action="rollback", gated=False, rollback_to=1) == [
        "calm warns plan.dev (head)",
        "open allows model.tiny (head)",
    ]
    assert verdicts(app({"calm": CALM}), {}, action="destroy") == []


def test_another_revision_of_the_file_judges_too() -> None:
    before, after = app({"open": LOOSE}), app({"open": LOOSE}, license="GPL-3.0")
    assert verdicts(before, after) == ["open allows model.tiny (head)"]
    base = {OPEN: Resource(OPEN, STRICT, "1")}
    assert verdicts(before, after, base) == ["open allows model.tiny (head)", "open denies model.tiny (base)"]
    strict = app({"open": STRICT})
    assert verdicts(strict, after, base)[1:] == ["open denies model.tiny (base)"]  # said once


def test_a_renamed_policy_is_not_a_removed_one() -> None:
    waiver = {"resource": "model.tiny", "until": "2027-01-31", "reason": "r", "approved_by": "a"}
    before = app({"open": {**STRICT, "waivers": [waiver]}}, license="GPL-3.0")
    after = app({"licence": {**STRICT, "waivers": [waiver]}}, license="GPL-2.0")
    assert verdicts(before, after, moved=((OPEN, LICENCE),)) == ["licence waives model.tiny (head)"]
    loosened = app({"licence": LOOSE}, license="GPL-2.0")
    strict = app({"open": STRICT}, license="GPL-3.0")
    assert "licence denies model.tiny (base)" in verdicts(strict, loosened, moved=((OPEN, LICENCE),))
    assert "open denies model.tiny (base)" in verdicts(strict, loosened)  # not said to be renamed


def test_a_waiver_goes_with_its_resource_to_the_new_name() -> None:
    small = Address("model", "small")

    def waived(name: str) -> dict[str, Any]:
        waiver = {"resource": name, "until": "2027-01-31", "reason": "r", "approved_by": "a"}
        return {**STRICT, "waivers": [waiver]}

    before = {TINY: application(license="GPL-3.0")[TINY], OPEN: Resource(OPEN, waived("model.tiny"), "1")}
    new = replace(application(license="GPL-2.0")[TINY], address=small)
    after = {small: new, OPEN: Resource(OPEN, waived("model.small"), "2")}
    assert verdicts(before, after, moved=((TINY, small),)) == ["open waives model.small (head)"]


def test_a_loosened_policy_that_is_left_out_of_the_targets_does_not_help() -> None:
    before, after = app({"open": STRICT}), app({"open": LOOSE}, license="GPL-3.0")
    assert "open denies model.tiny (base)" in verdicts(before, after, targets=(TINY,))
    other = app({"open": LOOSE}, license="GPL-3.0", system="Be kind.")
    assert verdicts(before, other, targets=(Address("prompt", "answer"),)) == ["open allows model.tiny (head)"]


@pytest.mark.parametrize(
    "after",
    [
        None,
        LOOSE,
        {**STRICT, "severity": "warn"},
        {**LOOSE, "applies_to": "prompt"},
        {**STRICT, "waivers": [{"resource": "model.tiny", "until": "2027-01-31", "reason": "r", "approved_by": "a"}]},
    ],
    ids=["removed", "another rule", "only a warning", "another kind", "a waiver"],
)
def test_the_plan_marks_as_weakened_what_is_refused_here(after: dict[str, Any] | None) -> None:
    """A reviewer reads of every loosening that this refuses."""
    before = app({"open": STRICT})
    wanted = desired(app({"open": after} if after else {}, license="GPL-3.0"))
    made = build_plan(wanted, recorded(before), live(before))
    refused = [r for r in judge(made, wanted, None, TODAY) if r.basis == "base"]
    assert [(r.policy, r.denies) for r in refused] == [("open", True)]
    assert OPEN in {w.address for w in made.weakened}


@pytest.mark.parametrize(
    ("untils", "license", "told"),
    [
        (("2026-11-20",), "GPL-3.0", False),
        (("2026-11-01", "2026-11-20"), "GPL-3.0", False),
        (("2026-11-20", "2026-11-22"), "GPL-3.0", True),
        (("2026-11-20",), "MIT", True),
    ],
    ids=["denied for it", "the last of two", "another one is in force", "not needed"],
)
def test_a_waiver_that_ran_out_is_warned_of_unless_a_result_says_so(
    untils: tuple[str, ...], license: str, told: bool
) -> None:
    waivers = [{"resource": "model.tiny", "until": u, "reason": "r", "approved_by": "a"} for u in untils]
    wanted = desired(app({"open": {**STRICT, "waivers": waivers}}, license=license))
    made = build_plan(wanted, recorded(app({"open": LOOSE})), live(app({"open": LOOSE})))
    warning = Diagnostic(ran_out("model.tiny", "2026-11-20"), Severity.WARNING, address=OPEN)
    results = judge(made, wanted, None, TODAY)
    assert untold([warning], results, wanted) == ((warning,) if told else ())
    other = replace(results[0], basis="base", note="as it was before this change", waiver=None)
    assert untold([warning], [other], wanted) == (warning,)
