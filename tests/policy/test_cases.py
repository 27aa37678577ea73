"""Cases of policies: what is written is laid over a plain resource or an empty plan, and mistakes have a place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmctl.core.errors import InvalidInput
from llmctl.core.resources import Environment
from llmctl.policy.cases import CaseResult, read_cases, run_case
from llmctl.policy.fields import FIELDS
from llmctl.policy.samples import SAMPLES
from llmctl.spec.source import Source
from tests.policy.test_check import unlike
from tests.spec.project import make_project, resolved

POLICIES: dict[str, dict[str, Any]] = {
    "licence": {"applies_to": "model", "require": "resource.license in ['MIT']", "severity": "deny", "message": ""},
    "hosted": {"applies_to": "model", "require": "resource.weights.remote == null", "severity": "warn", "message": ""},
    "adapter": {"applies_to": "model", "require": "resource.weights.adapters[0].scale < 1.0", "severity": "warn"},
    "lineage": {"applies_to": "model", "require": "resource.lineage.trained_on.size() == 0 && resource.name != 'x'"},
    "canary": {"applies_to": "route", "require": "resource.rollout.canary[0] < 100 || environment.name == 'dev'"},
    "few": {"applies_to": "plan", "require": "plan.counts.delete <= 1 && plan.deletions.all(d, d != 'route.a')"},
    "project": {"applies_to": "plan", "require": "project == 'acme' && environment.target == 'local'"},
}
for _policy in POLICIES.values():
    _policy.setdefault("severity", "deny")


def run(text: str) -> list[CaseResult]:
    cases = read_cases(Source("p.test.yaml", text), POLICIES, Environment("dev", "local"), "acme")
    return [run_case(case, POLICIES) for case in cases]


def said(text: str) -> str:
    """What one case comes to."""
    (result,) = run(f"cases: [{{{text}, expect: allow}}]")
    return f"{result.got} {result.error}".strip()


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("policy: licence, resource: {license: MIT}", "allow"),
        ("policy: licence, resource: {license: GPL-3.0}", "deny"),
        ("policy: licence, resource: {}", "deny"),
        ("policy: hosted, resource: {}", "allow"),
        ('policy: hosted, resource: {weights: {remote: "openai:x"}}', "warn"),
        ("policy: adapter, resource: {weights: {adapters: [{scale: 0.5}]}}", "allow"),
        ("policy: lineage, resource: {lineage: {base: tiny}}", "allow"),
        ("policy: lineage, resource: {name: x}", "deny"),
        ("policy: lineage, resource: {lineage: null}", "deny No such overload"),
        ("policy: canary, resource: {}", "allow"),
        ("policy: canary, resource: {}, environment: {name: prod}", "deny"),
        ("policy: canary, resource: {rollout: {canary: [10, 100]}}, environment: {name: prod}", "allow"),
        ("policy: few, plan: {}", "allow"),
        ("policy: few, plan: {counts: {delete: 2}}", "deny"),
        ("policy: few, plan: {deletions: [route.a]}", "deny"),
        ("policy: few, plan: {changes: [{address: route.a, action: delete}]}", "deny"),
        ("policy: few, plan: {changes: [{address: prompt.b, action: delete}]}", "allow"),
        ("policy: project, plan: {}", "allow"),
    ],
)
def test_a_case_says_only_what_matters(text: str, got: str) -> None:
    assert said(text).startswith(got)


def test_an_error_denies_as_it_would_in_an_apply() -> None:
    (result,) = run("cases: [{policy: adapter, resource: {}, expect: deny}]")
    assert (result.got, result.passed) == ("deny", True)
    assert result.error


def test_a_case_has_a_name_and_a_place() -> None:
    first, second = run(
        "cases:\n  - policy: licence\n    resource: {}\n    expect: allow\n"
        "  - {name: none, policy: licence, resource: {}, expect: deny}\n"
    )
    assert (first.case.name, str(first.case.where), first.passed) == ("case 1", "p.test.yaml:2:13", False)
    assert (second.case.name, str(second.case.where), second.passed) == ("none", "p.test.yaml:5:26", True)


@pytest.mark.parametrize(
    ("text", "place", "summary"),
    [
        ("", "1:1", "the file is empty"),
        ("- policy: licence", "1:1", "the file must be a map of keys"),
        ("cases: 3", "1:8", "`cases` must be a list"),
        ("casse: []", "1:1", "unknown key `casse`"),
        ("cases: [{policy: licence, resource: {}, expect: alow}]", "1:49", "`expect` must be allow, deny or warn"),
        ("cases: [{policy: licens, resource: {}, expect: allow}]", "1:18", "there is no policy `licens`"),
        (
            "cases: [{policy: licence, resource: {licens: MIT}, expect: allow}]",
            "1:38",
            "`resource` has no field `licens`",
        ),
        ("cases: [{policy: licence, resource: {license: 3}, expect: allow}]", "1:47", "`license` must be a string"),
        ("cases: [{policy: licence, resource: {card: x}, expect: allow}]", "1:44", "`card` must be a map"),
        ("cases: [{policy: licence, resource: {card: {use: x}}, expect: allow}]", "1:45", "`card` has no field `use`"),
        ("cases: [{policy: licence, resource: {protect: 1}, expect: allow}]", "1:47", "`protect` must be a boolean"),
        ("cases: [{policy: licence, resource: {files: {}}, expect: allow}]", "1:38", "`files` must be a list"),
        ("cases: [{policy: licence, plan: {}, expect: allow}]", "1:9", "judges a model: the case needs `resource:`"),
        ("cases: [{policy: few, resource: {}, expect: allow}]", "1:9", "the plan as a whole: the case needs `plan:`"),
        ("cases: [{policy: few, plan: {gates: true}, expect: allow}]", "1:37", "`gates` must be a number"),
        ("cases: [{policy: few, plan: {changes: [x]}, expect: allow}]", "1:40", "`changes` must be a map"),
        ("cases: [{policy: few, plan: {changes: [{}]}, expect: allow}]", "1:40", "'' is not an address"),
        (
            "cases: [{policy: few, plan: {changes: [{address: a.b, action: remove}]}, expect: allow}]",
            "1:63",
            "there is no action 'remove'",
        ),
        (
            "cases: [{policy: few, plan: {changes: [{address: a.b, kind: c}]}, expect: allow}]",
            "1:61",
            "`kind` is not that of a.b",
        ),
        ("cases: [{policy: few, plan: {}, environment: {region: x}, expect: allow}]", "1:47", "no field `region`"),
    ],
)
def test_a_mistake_has_a_place(text: str, place: str, summary: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        run(text)
    found = [f"{d.where}: {d.summary}" for d in caught.value.findings]
    assert any(f.startswith(f"p.test.yaml:{place}:") and summary in f for f in found), found


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        run("cases: [{policy: no, resource: {}, expect: allow}, {policy: licence, resource: {x: 1}, expect: allow}, 3]")
    assert len(caught.value.findings) == 3


def test_samples_are_what_a_plain_file_resolves_to(tmp_path: Path) -> None:
    for kind, sample in SAMPLES.items():
        given = {k: v for k, v in sample.items() if k not in ("name", "revision")}
        assert given.keys() == FIELDS[kind].keys() - {"name", "kind", "revision"}
        assert [*unlike(FIELDS[kind], sample, kind)] == []
    found = {a.kind: r.spec for a, r in resolved(make_project(tmp_path, PLAIN)).desired.resources.items()}
    depends = {
        "source",
        "digest",
        "bytes",
        "rows",
        "files",
        "weights",
        "messages",
        "template",
        "chain",
        "chain_revisions",
    }
    depends |= {"model_revision", "prompt_revision", "dataset_revision", "dataset_digest", "columns", "metrics"}
    for kind, spec in found.items():
        plain = {key: value for key, value in spec.items() if key not in depends}
        assert plain == {key: SAMPLES[kind][key] for key in plain}, kind


PLAIN = """\
apiVersion: llmctl/v1
project: acme
environments: {dev: {target: local}}
datasets: {sample: {source: data/eval.jsonl}}
models: {sample: {source: models/tiny.gguf}}
prompts: {sample: {messages: [{role: user, content: Hello}]}}
endpoints: {sample: {model: sample, engine: llama.cpp}}
routes: {sample: {prompt: sample, endpoint: sample}}
gates: {sample: {route: sample, dataset: sample, metrics: {error_rate: {max: 0.01}}}}
policies: {sample: {applies_to: model, require: "true"}}
"""
