"""Policies: what they deny is refused before anything changed."""

from __future__ import annotations

import pytest

from tests.e2e.project import ONE_SENTENCE, SYSTEM, Project, tree

pytestmark = pytest.mark.e2e
SMALL = True
LICENSE = "license: Apache-2.0"
REQUIRE = 'require: resource.license in ["Apache-2.0", "MIT"]'


def _everything(project: Project) -> tuple[object, ...]:
    """Record, processes, what the gateway serves, and the files that are not logs."""
    files = {k: v for k, v in tree(project.state()).items() if not k.startswith("logs/")}
    return project.refs(), project.census(), project.admin("GET", "/config"), files


def test_what_a_policy_denies_changes_nothing(applied: Project) -> None:
    applied.edit(LICENSE, "license: proprietary")
    applied.edit(SYSTEM, ONE_SENTENCE)
    before = _everything(applied)
    plan = applied.llmctl("plan", "--detailed-exitcode")
    assert plan.code == 3
    assert "policy.open-licence denies model.support-tiny: Models must carry an open licence." in plan.out
    assert "Apply would refuse it" in plan.out
    apply = applied.llmctl("apply", "--yes")
    assert apply.code == 3
    assert "policy.open-licence denies model.support-tiny: Models must carry an open licence." in apply.err
    assert "nothing was changed" in apply.err
    assert _everything(applied) == before
    applied.answers()


def test_a_warning_only_warns(applied: Project) -> None:
    applied.edit("severity: deny", "severity: warn")
    applied.apply()  # by itself: a change that loosens a policy and uses it is refused
    applied.edit(LICENSE, "license: proprietary")
    plan = applied.llmctl("plan", "--detailed-exitcode")
    assert plan.code == 2
    assert "policy.open-licence warns about model.support-tiny" in plan.out
    applied.apply()
    assert applied.plan_code() == 0
    applied.answers()


def test_a_rule_about_a_field_that_is_not_there_is_told_before_anything(applied: Project) -> None:
    applied.edit(REQUIRE, "require: resource.card.limits.size() > 0")
    before = _everything(applied)
    for command in (("validate",), ("plan",), ("apply", "--yes")):
        refused = applied.llmctl(*command)
        assert refused.code == 1
        assert "Did you mean limitations?" in refused.err
    assert _everything(applied) == before


@pytest.mark.parametrize(
    "requires",
    [
        "resource.lineage.trained_on[3] != 'x'",
        "1 / (size(resource.name) - size(resource.name)) > 0",
        "resource.license",
    ],
    ids=["an item that is not there", "a division by zero", "not a yes or no"],
)
def test_a_rule_that_cannot_be_judged_denies(applied: Project, requires: str) -> None:
    applied.edit(REQUIRE, f"require: {requires}")
    applied.edit("severity: deny", "severity: warn")  # an error denies all the same
    before = _everything(applied)
    plan, apply = applied.llmctl("plan"), applied.llmctl("apply", "--yes")
    assert (plan.code, apply.code) == (3, 3), plan.text
    assert "policy.open-licence denies model.support-tiny" in plan.out
    assert "policy.open-licence denies model.support-tiny" in apply.err
    assert _everything(applied) == before
