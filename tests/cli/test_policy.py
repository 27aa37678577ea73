"""``llmctl policy``: what it lists, explains and tests, of a real project without anything that runs."""

from __future__ import annotations

import pytest

from tests.cli.conftest import InProcess
from tests.cli.project import Project

CANARY = "sk-canary-5f31c2"
HOSTED = '  hosted: {source: "openai:some", license: proprietary, api_key: "${env:LLMCTL_TEST_KEY}"}\n'
MORE = """\
    waivers:
      - {resource: model.hosted, until: 9998-01-31, reason: only a fallback, approved_by: security}
      - {resource: model.support-tiny, until: 2020-01-31, reason: legacy, approved_by: ops}
  known-key:
    applies_to: model
    require: resource.api_key == null || resource.api_key.env == "OPENAI_API_KEY"
    severity: warn
    message: Use the common key.
  careful:
    applies_to: plan
    require: plan.counts.delete == 0 && plan.changes.all(c, c.kind != "gate" || c.action == "create")
"""
CASES = """\
cases:
  - {policy: open-licence, resource: {license: MIT}, expect: allow}
  - name: a licence that nobody knows
    policy: open-licence
    resource: {license: proprietary}
    expect: deny
  - policy: known-key
    resource: {api_key: {env: OTHER}}
    expect: warn
"""


@pytest.fixture
def rich(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a hosted model, waivers, and a policy of each sort."""
    monkeypatch.setenv("LLMCTL_TEST_KEY", CANARY)
    project.env["LLMCTL_TEST_KEY"] = CANARY
    project.replace("models:\n", "models:\n" + HOSTED)
    project.file.write_text(project.file.read_text() + MORE)
    return project


def test_the_list(rich: Project, here: InProcess) -> None:
    done = here("policy", "list")
    assert (done.code, done.err) == (0, "")
    assert "3 policies in dev" in done.out
    assert "✓ careful: deny, applies to plan; holds for 1" in done.out
    assert "! known-key: warn, applies to model; warns about 1, holds for 1" in done.out
    assert "~ open-licence: deny, applies to model; waived for 1, holds for 1" in done.out
    assert "waiver for model.hosted until 9998-01-31: only a fallback, approved by security" in done.out
    assert "waiver for model.support-tiny ran out on 2020-01-31: legacy, approved by ops" in done.out
    shown = here("policy", "list", "--json").json()
    assert [(p["name"], p["counts"]["holds"]) for p in shown["policies"]] == [
        ("careful", 1),
        ("known-key", 1),
        ("open-licence", 1),
    ]
    assert [w["in_force"] for w in shown["policies"][2]["waivers"]] == [True, False]
    assert rich.processes() == []


def test_the_waivers_that_end_first_come_first(rich: Project, here: InProcess) -> None:
    lines = here("policy", "waivers").out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["policy.open-licence"] * 2
    assert "ran out on 2020-01-31" in lines[0]
    waivers = here("policy", "waivers", "--json").json()["waivers"]
    assert {w["resource"]: w["in_force"] for w in waivers} == {"model.hosted": True, "model.support-tiny": False}
    rich.git("checkout", "-q", "--", ".")
    assert here("policy", "waivers").out == "No policy of dev has a waiver.\n"


def test_a_waiver_that_ran_out_is_told_once_and_with_its_place_where_nothing_else_tells_it(
    rich: Project, here: InProcess
) -> None:
    unused = here("plan", "--offline", "--json").json()
    assert [w["summary"] for w in unused["warnings"]] == ["the waiver for model.support-tiny ran out on 2020-01-31"]
    rich.replace("license: Apache-2.0", "license: GPL-3.0")
    missed = here("plan", "--offline", "--json").json()
    assert missed["warnings"] == []
    assert [r["note"] for r in missed["policies"] if r["note"]] == [
        "its waiver ran out on 2020-01-31 (legacy, approved by ops)"
    ]


def test_what_is_denied_is_explained_first_with_the_values_that_were_read(rich: Project, here: InProcess) -> None:
    rich.replace("license: Apache-2.0", "license: GPL-3.0")
    done = here("policy", "explain", "open-licence")
    assert done.code == 0
    said = done.out
    denied = "✗ model.support-tiny is denied: its waiver ran out on 2020-01-31 (legacy, approved by ops)"
    assert said.index(denied) < said.index('resource.license = "GPL-3.0"')
    assert said.index('resource.license = "GPL-3.0"') < said.index("~ model.hosted is waived until 9998-01-31")
    assert "Models must carry an open licence." in said
    assert "resource.weights.adapters         list of {digest: string, scale: number}" in said
    shown = here("policy", "explain", "open-licence", "--json").json()
    assert [(j["address"], j["outcome"], j["values"]) for j in shown["judged"]] == [
        ("model.support-tiny", "denies", [{"path": "resource.license", "value": "GPL-3.0"}]),
        ("model.hosted", "waived", [{"path": "resource.license", "value": "proprietary"}]),
    ]


def test_a_rule_over_the_plan_is_explained_by_the_plan(rich: Project, here: InProcess) -> None:
    rich.replace("plan.counts.delete == 0", "plan.counts.create == 0")
    said = here("policy", "explain", "careful").out
    assert "✗ plan.dev is denied" in said
    assert "plan.counts.create = 11" in said


def test_no_secret_is_shown(rich: Project, here: InProcess) -> None:
    for line in ("list", "waivers", "explain known-key", "explain open-licence", "explain careful"):
        for done in (here("policy", *line.split()), here("policy", *line.split(), "--json")):
            assert done.code == 0
            assert CANARY not in done.text
    assert 'resource.api_key.env = "LLMCTL_TEST_KEY"' in here("policy", "explain", "known-key").out
    assert rich.processes() == []


def test_a_policy_that_is_not_there(here: InProcess) -> None:
    done = here("policy", "explain", "open-license")
    assert done.code == 1
    assert "there is no policy 'open-license'\n  = help: did you mean `open-licence`?" in done.err
    assert here("policy", "explain", "x", "--json").json()["errors"][0]["summary"] == "there is no policy 'x'"


def test_cases_that_pass_and_one_that_fails(rich: Project, here: InProcess) -> None:
    path = rich.root / "policies.test.yaml"
    path.write_text(CASES)
    done = here("policy", "test")
    assert done.code == 0, done.text
    assert done.out.splitlines() == [
        "✓ open-licence: case 1",
        "✓ open-licence: a licence that nobody knows",
        "✓ known-key: case 3",
        "No case for: careful.",
        "3 cases passed.",
    ]
    path.write_text(CASES.replace("expect: deny", "expect: allow"))
    done = here("policy", "test")
    assert done.code == 1
    assert "✗ open-licence: a licence that nobody knows" in done.out
    assert "policies.test.yaml:4:13: expected allow, got deny" in done.out
    assert "1 of 3 cases failed." in done.out
    shown = here("policy", "test", "--json")
    assert (shown.code, shown.json()["passed"], shown.json()["failed"]) == (1, 2, 1)
    assert shown.json()["cases"][1]["where"] == {"file": "policies.test.yaml", "line": 4, "column": 13}


def test_case_files_by_name_and_what_is_wrong_in_them(rich: Project, here: InProcess) -> None:
    good, bad = rich.root / "good.yaml", rich.root / "bad.yaml"
    good.write_text(CASES)
    bad.write_text("cases:\n  - {policy: open-licens, resource: {}, expect: deny}\n")
    assert here("policy", "test", "good.yaml", "good.yaml").out.endswith("6 cases passed.\n")
    done = here("policy", "test", "good.yaml", "bad.yaml")
    assert (done.code, done.out) == (1, "")
    assert "--> bad.yaml:2:14" in done.err
    assert "did you mean `open-licence`?" in done.err
    done = here("policy", "test")
    assert done.code == 1
    assert "policies.test.yaml cannot be read: no such file or directory" in done.err


@pytest.mark.e2e
def test_a_change_cannot_loosen_a_policy_and_use_it(applied: Project) -> None:
    before, text = applied.traces()[0], applied.file.read_text()
    applied.replace("license: Apache-2.0", "license: GPL-3.0")
    applied.replace('["Apache-2.0", "MIT"]', '["Apache-2.0", "MIT", "GPL-3.0"]')
    plan, refused = applied.run("plan"), applied.run("apply", "--yes")
    assert (plan.code, refused.code) == (3, 3)
    said = "policy.open-licence, as it was before this change, denies model.support-tiny: Models must carry an open"
    assert said in refused.err
    assert "apply the loosened policy in a change of its own first" in refused.err
    explained = applied.run("policy", "explain", "open-licence").out
    assert "✗ model.support-tiny is denied by the policy as it was before: apply the loosened policy" in explained
    assert "Weakened against the record (serial 1)" in explained
    assert applied.traces()[0] == before

    loosened = applied.file.read_text()
    applied.file.write_text(loosened.replace("license: GPL-3.0", "license: Apache-2.0"))
    assert applied.run("apply", "--yes").code == 0
    applied.file.write_text(loosened)
    assert applied.run("apply", "--yes").code == 0

    applied.file.write_text(text)
    waiver = "    waivers: [{resource: model.support-tiny, until: 9998-01-31, reason: legacy, approved_by: ops}]\n"
    applied.file.write_text(text.replace("license: Apache-2.0", "license: GPL-3.0") + waiver)
    done = applied.run("apply", "--yes")
    assert done.code == 0, done.text  # the model is as recorded: only the waiver is new
    assert "is waived" in applied.run("policy", "explain", "open-licence").out
