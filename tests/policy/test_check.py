"""What is found when a policy is loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.core import kinds
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.policy import FIELDS, check
from llmctl.policy.check import understood
from llmctl.policy.fields import Shape
from tests.spec.project import GOOD, make_project, resolved

ADDRESS = Address("policy", "open-licence")


def findings(require: str, applies_to: str = "model") -> list[Diagnostic]:
    return check(ADDRESS, {"applies_to": applies_to, "require": require, "severity": "deny", "message": "m"})


@pytest.mark.parametrize(
    "require",
    [
        'resource.license in ["Apache-2.0", "MIT"]',
        'resource["license"] == "MIT"',
        'has(resource.card.intended_use) && "rank" in resource.lineage.hyperparameters',
        "resource.lineage == null || resource.lineage.trained_on.all(d, d.startsWith('faq'))",
        "resource.weights.adapters.exists(a, a.scale > 0.5)",
        'environment.target != "aws" || environment["name"] == project',
        "\"resource.licence\" != 'resource.oops' // resource.licence, size(",
        r'r"resource.oops\" == "x" || resource.license.matches("^M.*")',
        '"""resource.\n"oops" """ != "" && size(resource.name) <= 5',
        "type(resource.files) == list && timestamp('2027-01-01T00:00:00Z').getFullYear() == 2027",
        "resource.weights\n  .digest != null",
        "[1, 2].map(x, x * 2).filter(x, x > 1.5e0 || x > .5) != []",
    ],
)
def test_accepts_what_can_be_evaluated(require: str) -> None:
    assert findings(require) == []


@pytest.mark.parametrize(
    ("require", "summary", "hint"),
    [
        ('resource.licence == "x" || true', "resource has no field licence", "Did you mean license?"),
        ('resource["licence"] == "x" || true', "resource has no field licence", "Did you mean license?"),
        ("has(resource.licence) || true", "resource has no field licence", "Did you mean license?"),
        ('resource . licence == "x" || true', "resource has no field licence", "Did you mean license?"),
        ("resource./* */licence || true", "the rule does not parse", "Write a CEL expression"),
        (
            "true ? true : resource.zzz",
            "resource has no field zzz",
            "There are: name, kind, revision, protect, source,",
        ),
        ('{"a": resource.b} == {} || true', "resource has no field b", "There are:"),
        ("resource.weights.digst == '' || true", "resource.weights has no field digst", "Did you mean digest?"),
        ("resource.card.intended == '' || true", "resource.card has no field intended", "Did you mean intended_use?"),
        ("environment.nam == 'x' || true", "environment has no field nam", "Did you mean name?"),
        ("projct == 'x' || true", "unknown variable projct", "Did you mean project?"),
        ("[resource].exists(r, r.licence == 'x') || true", "resource stands alone", "resource.name"),
        ('resource["li" + "cence"] == "x" || true', "resource stands alone", "resource.name"),
        ("[{}].all(resource, resource.licence == 'x') || true", "resource stands alone", "resource.name"),
        ("[{}].all(project, project.x == 'x') || true", "a macro binds project anew", "another name"),
        (".resource.licence == 'x' || true", "resource has no field licence", "Did you mean license?"),
        ("starts(resource.name) || true", "unknown function starts()", "There are:"),
        ("startsWith(resource.name, 'x') || true", "unknown function startsWith()", "There are:"),
        ("resource.name.startWith('x') || true", "unknown method startWith()", "Did you mean startsWith?"),
        ("x == 1 || [1].all(y, y > 0)", "unknown variable x", "There are:"),
        ("", "the rule does not parse", "Write a CEL expression"),
        ("resource." + "name." * 2000 + "name == ''", "the rule is too long", "4,000"),
        ("(" * 1000 + "true" + ")" * 1000, "the rule does not parse", "Write a CEL expression"),
    ],
)
def test_refuses_what_cel_would_absorb_or_not_know(require: str, summary: str, hint: str) -> None:
    found = findings(require)
    assert summary in [d.summary.removeprefix("policy.open-licence: ") for d in found]
    first = next(d for d in found if d.summary.endswith(summary))
    assert hint in first.hint
    assert first.is_error
    assert first.address == ADDRESS


def test_a_syntax_error_keeps_its_caret() -> None:
    (found,) = findings("resource.license ==")
    assert "Syntax error" in found.detail
    assert found.detail.splitlines()[1:3] == ["| resource.license ==", "| ...................^"]


def test_a_kind_that_is_not_there() -> None:
    (found,) = findings("true", applies_to="modle")
    assert "applies_to names no kind: modle" in found.summary
    assert "Did you mean model?" in found.hint


def test_the_fields_of_another_kind_are_not_there() -> None:
    assert findings("resource.engine == 'vllm'", applies_to="endpoint") == []
    assert "no field engine" in findings("resource.engine == 'vllm'", applies_to="model")[0].summary


@pytest.mark.parametrize(
    "require",
    [
        "plan.counts.delete <= 3 && plan.counts['replace'] < 5 && plan.gates > 0 && plan.drift == 0",
        "plan.changes.all(c, c.kind != 'route' || c.action != 'delete') || environment.name == 'dev'",
        "plan.changes.filter(c, c.kind == 'prompt').all(p, p.action != 'delete')",
        "plan.action == 'rollback' || plan.changes[0].address == 'route.a' || size(plan.weakened) == 0",
        "plan.deletions.all(a, !a.startsWith('route.')) && plan.changes.all(a, a.kind != 'x')",
    ],
)
def test_a_rule_over_the_plan(require: str) -> None:
    assert findings(require, applies_to="plan") == []


@pytest.mark.parametrize(
    ("require", "applies_to", "summary", "hint"),
    [
        ("plan.deletes == 0 || true", "plan", "plan has no field deletes", "There are: action, counts,"),
        ("plan.counts.deleted == 0 || true", "plan", "plan.counts has no field deleted", "Did you mean delete?"),
        ("plan.counts == {} || size(plan) > 0", "plan", "plan stands alone", "plan.action"),
        ("resource.name == '' || true", "plan", "unknown variable resource", "There are: environment, plan, project."),
        ("plan.gates > 0 || true", "model", "unknown variable plan", "There are: environment, project, resource."),
        ("plan.changes.all(c, c.kid == 'x') || true", "plan", "c has no field kid", "Did you mean kind?"),
        ("plan.changes[0].kid == 'x' || true", "plan", "plan.changes has no field kid", "Did you mean kind?"),
        (
            "plan.changes.filter(c, c.action == (')' + '(')).exists(d, d.kid == 'x') || true",
            "plan",
            "d has no field kid",
            "Did you mean kind?",
        ),
        ("[1].all(plan, plan > 0)", "plan", "a macro binds plan anew", "another name"),
        ("resource.files.all(f, f.pth != '') || true", "model", "f has no field pth", "Did you mean path?"),
        (
            "resource.weights.adapters[0].scal > 1.0 || true",
            "model",
            "resource.weights.adapters has no field scal",
            "scale",
        ),
        ("", "plan", "the rule does not parse", "plan.counts.delete <= 3"),
    ],
)
def test_refuses_in_a_plan_and_in_lists_what_is_not_there(
    require: str, applies_to: str, summary: str, hint: str
) -> None:
    first = next(d for d in findings(require, applies_to) if d.summary.endswith(summary))
    assert hint in first.hint


def test_a_variable_that_two_macros_bind_to_different_things_is_not_followed() -> None:
    assert findings("plan.changes.all(c, c.kind != '') && [{'x': 1}].all(c, c.x == 1)", "plan") == []


def test_the_paths_that_a_rule_reads() -> None:
    rule = understood(
        "model", "resource.lineage.base == '' || resource['card'].limitations.size() > 3 && has(resource.license)"
    )
    assert [".".join(path) for path in rule.paths] == [
        "resource.lineage.base",
        "resource.card.limitations",
        "resource.license",
    ]
    assert rule.wanted == {"lineage", "card", "license"}


def test_fields_are_those_of_really_resolved_specs(tmp_path: Path) -> None:
    """Every object and list that the table describes is what a file resolves to, and nothing is left out."""
    specs: dict[str, list[dict[str, Json]]] = {}
    for address, resource in resolved(make_project(tmp_path, FULL)).desired.resources.items():
        specs.setdefault(address.kind, []).append(resource.spec)
    assert set(specs) == set(FIELDS) - {"plan"} == {kind.name for kind in kinds.KINDS}
    for kind, found in specs.items():
        shape = {k: v for k, v in FIELDS[kind].items() if k not in ("name", "kind", "revision")}
        for spec in found:  # `chain_revisions` says what `chain` does, for the revision
            assert {k: v for k, v in spec.items() if k != "chain_revisions"}.keys() == shape.keys(), kind
            assert [*unlike(shape, spec, kind)] == []
        described = [f for f, s in shape.items() if isinstance(s, dict) or (isinstance(s, list) and s != ["string"])]
        assert [f for f in described if not any(spec[f] for spec in found)] == [], (
            "the file of this test leaves it empty"
        )


FULL = GOOD.replace(
    "    message: Models must carry an open licence.\n",
    "    message: Models must carry an open licence.\n"
    "    waivers: [{resource: model.hosted, until: 9999-12-31, reason: only a fallback, approved_by: security}]\n",
)


def unlike(shape: Shape, value: Json, place: str) -> Iterator[str]:
    """Where a value is not of a shape; ``null`` is of every one, and an object may lack fields."""
    types = {"string": str, "number": int | float, "boolean": bool, "map": dict}
    if isinstance(shape, dict) and isinstance(value, dict):
        yield from (f"{place}.{key} is not described" for key in value.keys() - shape.keys() - {"chain_revisions"})
        for key in value.keys() & shape.keys():
            yield from unlike(shape[key], value[key], f"{place}.{key}")
    elif isinstance(shape, list) and isinstance(value, list):
        for item in value:
            yield from unlike(shape[0], item, f"{place}[]")
    elif value is not None and not (isinstance(shape, str) and isinstance(value, types[shape])):
        yield f"{place} is {value!r}, not {shape}"


def test_the_engine_loads_without_its_repl() -> None:
    code = (
        "import sys; from llmctl.policy.engine import compiled; compiled('1 == 1');"
        "assert 'cel' not in sys.modules and 'cel.cli' not in sys.modules, 'the package was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
