"""What a right file resolves to: specs, revisions, dependencies, secrets."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from llmctl.core.address import Address
from llmctl.core.digests import canonical_json
from llmctl.core.errors import InvalidInput
from llmctl.core.kinds import KINDS, kind_of
from llmctl.core.resources import Environment
from llmctl.core.secrets import SecretRef
from llmctl.spec import load, resolve
from tests.spec.project import FULL, GOOD, make_project, resolved

CANARY = "sk-canary-8d1f"
FIELDS = {
    "dataset": "source format columns checks license sensitivity digest bytes rows",
    "model": "source license lineage card api_key weights files",
    "prompt": "messages variables parameters",
    "endpoint": "model model_revision engine context options replicas timeouts weights api_key",
    "route": "prompt endpoint fallback prompt_revision template chain chain_revisions rollout aliases",
    "gate": (
        "route dataset dataset_revision dataset_digest dataset_format inputs expected metrics slices confidence "
        "concurrency timeouts"
    ),
    "policy": "applies_to require severity message waivers",
}


def test_every_kind_has_exactly_its_fields_and_its_revision(tmp_path: Path) -> None:
    desired = resolved(make_project(tmp_path)).desired
    assert {a.kind for a in desired.resources} == {kind.name for kind in KINDS}
    for address, resource in desired.resources.items():
        assert set(resource.spec) == {"protect", *FIELDS[address.kind].split()}
        assert resource.revision == kind_of(address.kind).revision(resource.spec)
        assert resource.where is not None
        begins = "require:" if address.kind == "policy" else f"{address.name}:"  # of a policy the rule can be wrong
        assert resource.where.snippet.strip().startswith(begins)
        canonical_json(resource.spec)
    assert desired.project == "acme"
    assert desired.environment == Environment("dev", "local", 0)
    assert desired.root == str(tmp_path)


def test_the_specs_hold_what_the_file_and_the_files_say(tmp_path: Path) -> None:
    specs = {str(a): r.spec for a, r in resolved(make_project(tmp_path)).desired.resources.items()}
    evaluation = (tmp_path / "data" / "eval.jsonl").read_bytes()
    assert specs["dataset.eval"]["digest"] == "sha256:" + hashlib.sha256(evaluation).hexdigest()
    assert (specs["dataset.eval"]["bytes"], specs["dataset.eval"]["rows"]) == (len(evaluation), 4)
    model, tone = specs["model.tiny"]["files"]
    assert (model["path"], tone["path"]) == ("models/tiny.gguf", "models/tone.gguf")
    assert specs["model.tiny"]["weights"] == {
        "digest": model["digest"],
        "adapters": [{"digest": tone["digest"], "scale": 1.0}],
    }
    assert specs["model.hosted"]["weights"] == {"remote": "openai:gpt-4.1-mini"}
    assert specs["model.hosted"]["api_key"] == {"env": "OPENAI_API_KEY"}
    assert specs["model.hosted"]["files"] == []
    assert specs["endpoint.support"]["options"] == {"slots": 2, "threads": 1}
    assert specs["endpoint.support"]["context"] == 128
    assert specs["endpoint.backup"]["options"] == {"base_url": "https://api.openai.com/v1", "timeout_s": 60.0}
    assert specs["endpoint.backup"]["context"] is None
    assert specs["endpoint.backup"]["api_key"] == specs["model.hosted"]["api_key"]
    assert specs["endpoint.backup"]["replicas"] == {"min": 1, "max": 1}
    assert specs["prompt.answer"]["parameters"] == {"temperature": 0.0, "max_tokens": 96}
    assert specs["gate.faq"]["metrics"] == {
        "exact_match": {"min": 0.95, "max_drop": 0.02, "decide": "interval"},
        "latency_p95_ms": {"max": 500.0, "decide": "interval"},
    }
    assert specs["policy.open-licence"]["severity"] == "deny"
    assert specs["policy.open-licence"]["waivers"] == []
    assert specs["gate.faq"]["timeouts"] == {"request_s": 60.0, "run_s": 1800.0}
    assert (specs["gate.faq"]["concurrency"], specs["gate.faq"]["slices"]) == (16, {})
    assert specs["endpoint.support"]["timeouts"] == {"ready_s": 180.0, "drain_s": 30.0}
    assert specs["route.support"]["rollout"] == {"canary": [100], "hold_s": 0.0}
    assert specs["route.support"]["aliases"] == []
    assert not any(spec["protect"] for spec in specs.values())


def test_a_route_holds_its_template_and_its_chain_in_order(tmp_path: Path) -> None:
    resources = resolved(make_project(tmp_path)).desired.resources
    route = resources[Address("route", "support")]
    prompt = resources[Address("prompt", "answer")]
    endpoints = [resources[Address("endpoint", name)] for name in ("support", "backup")]
    assert route.spec["prompt_revision"] == prompt.revision
    assert route.spec["template"] == {k: prompt.spec[k] for k in ("messages", "variables", "parameters")}
    assert [link["spec"] for link in route.spec["chain"]] == [endpoint.spec for endpoint in endpoints]
    assert route.spec["chain_revisions"] == [f"{e.address.name}@{e.revision}" for e in endpoints]
    assert set(route.needs) == {prompt.address, *(e.address for e in endpoints)}
    assert resources[Address("gate", "faq")].needs == (Address("route", "support"), Address("dataset", "eval"))
    assert resources[Address("model", "tiny")].needs == (Address("dataset", "train"),)
    assert resources[Address("endpoint", "backup")].needs == (Address("model", "hosted"),)


def test_the_same_content_has_the_same_revision_anywhere(tmp_path: Path) -> None:
    first = resolved(make_project(tmp_path / "a")).desired
    moved = GOOD.replace("project: acme", "project: other").replace("temperature: 0,", "temperature: 0.0,")
    second = resolved(make_project(tmp_path / "b", moved)).desired
    assert {a: r.revision for a, r in first.resources.items()} == {a: r.revision for a, r in second.resources.items()}


@pytest.mark.parametrize(
    ("change", "touched"),
    [
        (("slots: 2", "slots: 3"), {"endpoint.support", "route.support"}),
        (("You are an assistant.", "Be brief."), {"prompt.answer", "route.support"}),
        (("license: Apache-2.0", "license: MIT"), set()),
        (("scale: 1", "scale: 0.5"), {"model.tiny", "endpoint.support", "route.support"}),
        (("min: 0.95", "min: 0.9"), {"gate.faq"}),
        (("gpt-4.1-mini", "gpt-4.1"), {"model.hosted", "endpoint.backup", "route.support"}),
        (("sensitivity: public", "sensitivity: internal"), set()),
        (("slots: 2}", "slots: 2}\n    replicas: {min: 3, max: 3}"), set()),
        (("slots: 2}", "slots: 2}\n    timeouts: {ready: 10m, drain: 1m}"), set()),
        (("slots: 2}", "slots: 2}\n    protect: true"), set()),
        (("fallback: [backup]", "fallback: [backup], rollout: {canary: [10, 100], hold: 1m}"), set()),
        (("expected: answer", "expected: answer\n    concurrency: 64\n    timeouts: {run: 1h}"), set()),
        (("expected: answer", "expected: answer\n    slices: {id: {exact_match: {min: 0.5}}}"), {"gate.faq"}),
        (("max: 500", "max: 500}\n      chrf: {min: 0.5"), {"gate.faq"}),
        (
            (
                "    message:",
                "    waivers: [{resource: model.tiny, until: 2999-01-01, reason: a, approved_by: b}]\n    message:",
            ),
            set(),
        ),
    ],
)
def test_a_change_moves_the_revisions_of_those_it_decides(
    tmp_path: Path, change: tuple[str, str], touched: set[str]
) -> None:
    before = resolved(make_project(tmp_path)).desired.resources
    after = resolved(make_project(tmp_path, GOOD.replace(*change))).desired.resources
    assert {str(a) for a in before if before[a].revision != after[a].revision} == touched


def test_a_secret_is_only_a_name_and_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    result = resolved(make_project(tmp_path))
    assert result.secrets == ((Address("model", "hosted"), SecretRef("OPENAI_API_KEY")),)
    assert CANARY not in repr(result)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert resolved(make_project(tmp_path)).secrets == result.secrets


def test_a_literal_secret_is_refused_and_shown_nowhere(tmp_path: Path) -> None:
    text = GOOD.replace('"${env:OPENAI_API_KEY}"', CANARY)
    with pytest.raises(InvalidInput) as caught:
        load(make_project(tmp_path, text))
    assert "takes a reference" in str(caught.value)
    assert CANARY not in repr(caught.value.findings)


def test_a_variable_in_the_wrong_field_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCTL_TEST_KEY", CANARY)
    text = GOOD.replace("engine: external", 'engine: "${env:LLMCTL_TEST_KEY}"')
    text = text.replace("dataset: eval", 'dataset: "${env:LLMCTL_TEST_KEY}"')
    with pytest.raises(InvalidInput) as caught:
        load(make_project(tmp_path, text))
    summaries = [finding.summary for finding in caught.value.findings]
    assert any("${env:LLMCTL_TEST_KEY}" in summary and "engine" in summary for summary in summaries)
    assert any("there is no dataset" in summary for summary in summaries)
    assert CANARY not in repr(caught.value.findings)


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    document = load(make_project(tmp_path))
    before = resolve(document, "dev").desired.resources[Address("dataset", "train")]
    (tmp_path / "data" / "train.jsonl").write_text('{"question": "new"}\n{"question": "newer"}\n')
    after = resolve(document, "dev").desired.resources[Address("dataset", "train")]
    assert (before.spec["rows"], after.spec["rows"]) == (1, 2)
    assert before.revision != after.revision


def test_stop_may_be_one_text_or_several(tmp_path: Path) -> None:
    for written, expected in (('"\\n"', "\n"), ("[a, b]", ["a", "b"])):
        path = make_project(tmp_path, GOOD.replace("max_tokens: 96", f"stop: {written}"))
        assert resolved(path).desired.resources[Address("prompt", "answer")].spec["parameters"]["stop"] == expected


def test_the_example_of_the_repository_resolves() -> None:
    path = Path(__file__).parents[2] / "examples" / "llmops.yaml"
    result = resolved(path)
    assert Address("route", "support") in result.desired.resources
    assert result.warnings == ()


def test_the_new_fields_are_resolved(tmp_path: Path) -> None:
    specs = {str(a): r.spec for a, r in resolved(make_project(tmp_path, FULL)).desired.resources.items()}
    assert specs["endpoint.support"]["replicas"] == {"min": 2, "max": 2}
    assert specs["endpoint.support"]["timeouts"] == {"ready_s": 1800.0, "drain_s": 30.0}
    assert specs["route.support"]["rollout"] == {"canary": [10, 50, 100], "hold_s": 90.0}
    assert specs["route.support"]["protect"] is True
    gate = specs["gate.faq"]
    assert gate["metrics"] == {
        "exact_match": {"min": 0.95, "decide": "interval"},
        "bleu": {"min": 0.4, "decide": "point"},
        "chrf": {"max_drop": 0.1, "decide": "interval"},
        "regex": {"pattern": r"^A\d", "min": 0.9, "decide": "interval"},
        "json_schema": {"schema": {"type": "object", "required": ["answer"]}, "min": 0.9, "decide": "interval"},
        "latency_p50_ms": {"max": 200.0, "decide": "interval"},
    }
    assert gate["slices"] == {
        "id": {"exact_match": {"min": 0.5, "decide": "interval"}, "regex": {"min": 0.1, "decide": "point"}}
    }
    assert (gate["concurrency"], gate["timeouts"]) == (64, {"request_s": 0.5, "run_s": 7200.0})
    assert specs["policy.open-licence"]["waivers"] == [
        {"resource": "model.tiny", "until": "2999-01-31", "reason": "r", "approved_by": "me"}
    ]


def test_a_schema_may_stand_in_the_file_and_may_hold_null(tmp_path: Path) -> None:
    inline = "{schema: {enum: [yes, null], default: null}, min: 0.9}"
    path = make_project(tmp_path, FULL.replace("{schema: schemas/answer.json, min: 0.9}", inline))
    gate = resolved(path).desired.resources[Address("gate", "faq")]
    assert gate.spec["metrics"]["json_schema"]["schema"] == {"enum": ["yes", None], "default": None}


def test_a_schema_file_that_changes_moves_the_gate(tmp_path: Path) -> None:
    document = load(make_project(tmp_path, FULL))
    before = resolve(document, "dev").desired.resources
    (tmp_path / "schemas" / "answer.json").write_text('{"type": "string"}')
    after = resolve(document, "dev").desired.resources
    assert {str(a) for a in before if before[a].revision != after[a].revision} == {"gate.faq"}


def test_overrides_reach_every_new_key(tmp_path: Path) -> None:
    overrides = """{target: local, promote_from: dev, overrides: {
      models: {hosted: {protect: true}},
      endpoints: {support: {replicas: {min: 3, max: 3}, timeouts: {drain: 5s}}},
      routes: {support: {rollout: {hold: 10s}, protect: null}},
      gates: {faq: {slices: null, concurrency: 1, timeouts: {run: 1h},
                    metrics: {json_schema: null, regex: {pattern: x}}}},
      policies: {open-licence: {applies_to: plan, waivers: []}}}}"""
    path = make_project(tmp_path, FULL.replace("dev: {target: local}", f"dev: {{target: local}}\n  live: {overrides}"))
    document = load(path)
    assert document.environments["live"].promote_from == "dev"
    desired = resolve(document, "live").desired
    assert desired.environment == Environment("live", "local", 0, "dev")
    specs = {str(a): r.spec for a, r in desired.resources.items()}
    assert specs["model.hosted"]["protect"] is True
    assert specs["endpoint.support"]["replicas"] == {"min": 3, "max": 3}
    assert specs["endpoint.support"]["timeouts"] == {"ready_s": 1800.0, "drain_s": 5.0}
    assert specs["route.support"]["rollout"] == {"canary": [10, 50, 100], "hold_s": 10.0}
    assert specs["route.support"]["protect"] is False
    assert (specs["gate.faq"]["slices"], specs["gate.faq"]["concurrency"]) == ({}, 1)
    assert "json_schema" not in specs["gate.faq"]["metrics"]
    assert specs["gate.faq"]["metrics"]["regex"]["pattern"] == "x"
    assert specs["policy.open-licence"]["applies_to"] == "plan"
