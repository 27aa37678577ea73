"""What is found when a policy is loaded."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

from llmctl.core import kinds
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.policy import FIELDS, check

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
        ("true ? true : resource.zzz", "resource has no field zzz", "There are: name, kind, revision, source,"),
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


def test_fields_are_those_of_the_resolved_specs() -> None:
    """The comment in core/kinds.py says what each kind's spec holds; the table must agree with it."""
    comment = inspect.getsource(kinds).split("operating field.\n#\n")[1].split("KINDS:")[0]
    text = " ".join(line.lstrip("# ") if line[:3] == "#  " else line[1:] for line in comment.splitlines())
    lines = re.split(r"(?<!\S) ?(?=(?:dataset|model|prompt|endpoint|route|gate|policy) {2,})", text)
    described = {}
    for line in filter(str.strip, lines):
        kind, _, rest = line.strip().partition(" ")
        fields = rest.split(": the endpoint")[0]
        while re.search(r"[\[({][^\[\](){}]*[\])}]", fields):
            fields = re.sub(r"[\[({][^\[\](){}]*[\])}]", "", fields)
        described[kind] = {word.split()[0] for word in fields.split(",") if word.strip()}
    ours = {kind: set(fields) - {"name", "kind", "revision"} for kind, fields in FIELDS.items()}
    assert ours == described
    assert set(FIELDS) == {kind.name for kind in kinds.KINDS}
    for kind in kinds.KINDS:
        assert set(kind.serving) - {"chain_revisions"} <= set(FIELDS[kind.name])


def test_the_engine_loads_without_its_repl() -> None:
    code = (
        "import sys; from llmctl.policy.engine import compiled; compiled('1 == 1');"
        "assert 'cel' not in sys.modules and 'cel.cli' not in sys.modules, 'the package was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
