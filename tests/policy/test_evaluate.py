"""Judging resources."""

from __future__ import annotations

from typing import Any

import pytest

from llmctl.core.address import Address
from llmctl.core.resources import Environment, Resource
from llmctl.policy import PolicyResult, evaluate

DEV = Environment("dev", "local")


def model(name: str = "tiny", **spec: Any) -> Resource:
    given = {"source": "models/tiny.gguf", "license": "MIT", "weights": {"digest": "sha256:1", "adapters": []}}
    return Resource(Address("model", name), {**given, **spec}, revision="abc")


def judge(require: str, *resources: Resource, severity: str = "deny") -> tuple[PolicyResult, ...]:
    policy = {"applies_to": "model", "require": require, "severity": severity, "message": "Say why."}
    return evaluate({"p": policy}, {r.address: r for r in resources}, DEV, project="acme")


def test_a_rule_that_holds_and_one_that_does_not() -> None:
    good, bad = judge('resource.license == "MIT"', model("a"), model("b", license="GPL-3.0"))
    assert (good.ok, good.denies, good.error, good.message) == (True, False, "", "Say why.")
    assert (bad.ok, bad.denies, bad.error, bad.address) == (False, True, "", Address("model", "b"))


def test_a_warning_does_not_deny_but_an_error_always_does() -> None:
    (failed,) = judge('resource.license == "GPL-3.0"', model(), severity="warn")
    assert not failed.ok
    assert not failed.denies
    (broken,) = judge(
        "resource.lineage.hyperparameters.rank < 9", model(lineage={"hyperparameters": {}}), severity="warn"
    )
    assert broken.denies
    assert broken.error == "a key is not there: rank"


@pytest.mark.parametrize(
    ("require", "error"),
    [
        ("resource.name", "the rule gives a value of type str, not true or false"),
        ("resource.lineage", "the rule gives null, not true or false"),
        ("resource.lineage.base == 'x'", "No such overload"),
        ("resource.name > 1", "No such overload"),
        ("resource.name.matches('(')", "unclosed group"),
        ("resource.licence == 'x' || true", "resource has no field licence"),
        ("resource.license ==", "the rule does not parse"),
    ],
)
def test_what_cannot_be_told_is_a_denial(require: str, error: str) -> None:
    (result,) = judge(require, model())
    assert result.denies
    assert not result.ok
    assert error in result.error


def test_a_number_beyond_64_bits_still_compares() -> None:
    large = model(lineage={"hyperparameters": {"n": 2**80}})
    assert judge("resource.lineage.hyperparameters.n > 1", large)[0].ok
    assert judge("resource.lineage.hyperparameters.n < 1", large)[0].denies


def test_every_field_is_there_and_null_when_not_set() -> None:
    (result,) = judge("resource.lineage == null && resource.api_key == null && resource.files == null", model())
    assert result.ok


def test_an_object_that_is_set_has_all_its_fields() -> None:
    (local,) = judge("resource.weights.remote == null && resource.weights.digest == 'sha256:1'", model())
    assert local.ok
    (partly,) = judge("resource.lineage.base == null", model(lineage={"method": "lora"}))
    assert partly.ok


def test_name_kind_revision_environment_and_project() -> None:
    rule = (
        "resource.name == 'tiny' && resource.kind == 'model' && resource.revision == 'abc'"
        " && environment.name == 'dev' && environment.target == 'local' && project == 'acme'"
    )
    (result,) = judge(rule, model())
    assert result.ok, result.error


def test_only_the_kind_it_applies_to_and_in_order() -> None:
    prompt = Resource(Address("prompt", "answer"), {}, revision="1")
    resources = {r.address: r for r in (model("z"), prompt, model("a"))}
    rule = {"applies_to": "model", "require": "true", "severity": "warn", "message": "m"}
    results = evaluate({"q": rule, "p": rule}, resources, DEV, project="acme")
    assert [(r.policy, str(r.address)) for r in results] == [
        ("p", "model.a"),
        ("p", "model.z"),
        ("q", "model.a"),
        ("q", "model.z"),
    ]


def test_an_unknown_severity_denies() -> None:
    (result,) = judge("false", model(), severity="warning")
    assert result.denies
