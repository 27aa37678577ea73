"""Finding the file, choosing the environment, overrides and interpolation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmctl.core.address import Address
from llmctl.core.errors import InvalidInput
from llmctl.core.resources import Environment
from llmctl.spec import environment_name, find_file, load, resolve
from tests.spec.project import GOOD, make_project, resolved

TWO = GOOD.replace("dev: {target: local}", "dev: {target: local}\n  prod: {target: local}")


def _hint(error: InvalidInput) -> str:
    return error.findings[0].hint


def test_the_file_is_found_here_above_or_where_told(tmp_path: Path) -> None:
    path = make_project(tmp_path)
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert find_file(None, tmp_path) == path
    assert find_file(None, deep) == path
    assert find_file(str(path), deep) == path
    (deep / "llmops.yaml").write_text("x")
    assert find_file(None, deep) == deep / "llmops.yaml"


def test_no_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        find_file(None, tmp_path)
    assert "llmops.yaml" in str(caught.value)
    assert "pass -f FILE" in _hint(caught.value)
    for wrong in (tmp_path, tmp_path / "missing.yaml"):
        with pytest.raises(InvalidInput, match=r"does not exist|is a folder"):
            find_file(str(wrong), tmp_path)


def test_an_unreadable_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: no such file"):
        load(tmp_path / "missing.yaml")
    with pytest.raises(InvalidInput, match="cannot be read: is a directory"):
        load(tmp_path)


def test_the_document_says_what_is_in_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("{target: local}", "{target: local, gateway: {port: 8080}}")
    document = load(make_project(tmp_path, text))
    assert (document.project, document.owner, document.root) == ("acme", "team", tmp_path)
    assert document.environments == {"dev": Environment("dev", "local", 8080)}
    assert document.warnings == ()
    assert resolve(document, "dev").desired.environment.gateway_port == 8080


def test_messages_name_the_file_as_the_user_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_project(tmp_path, "a: [")
    for folder, expected in ((tmp_path.parent, f"{tmp_path.name}/llmops.yaml"), (tmp_path / "data", str(path))):
        monkeypatch.chdir(folder)
        with pytest.raises(InvalidInput) as caught:
            load(path)
        assert caught.value.findings[0].where is not None
        assert caught.value.findings[0].where.file == expected


def test_the_environment_is_the_only_one_or_the_one_asked_for(tmp_path: Path) -> None:
    one, two = load(make_project(tmp_path / "a")), load(make_project(tmp_path / "b", TWO))
    assert environment_name(one, None) == "dev"
    assert environment_name(two, "prod") == "prod"
    with pytest.raises(InvalidInput) as caught:
        environment_name(two, None)
    assert "dev, prod" in _hint(caught.value)
    with pytest.raises(InvalidInput, match="there is no environment 'prd'") as caught:
        environment_name(two, "prd")
    assert _hint(caught.value) == "did you mean `prod`?"
    assert caught.value.findings[0].where is not None
    with pytest.raises(InvalidInput):
        resolve(two, "nope")


def test_overrides_merge_replace_and_remove(tmp_path: Path) -> None:
    overrides = """{target: local, overrides: {
      endpoints: {support: {options: {threads: 2, slots: null}}},
      routes: {support: {fallback: []}},
      gates: null,
      prompts: {answer: {parameters: {temperature: 1, max_tokens: null}},
                extra: {messages: [{role: system, content: Hi}]}}}}"""
    path = make_project(tmp_path, TWO.replace("prod: {target: local}", f"prod: {overrides}"))
    dev, prod = resolved(path, "dev").desired.resources, resolved(path, "prod").desired.resources
    support = Address("endpoint", "support")
    assert dev[support].spec["options"] == {"slots": 2, "threads": 1}
    assert prod[support].spec["options"] == {"slots": 4, "threads": 2}
    assert prod[support].spec["context"] == dev[support].spec["context"] == 128
    assert prod[Address("route", "support")].spec["fallback"] == []
    assert prod[Address("prompt", "answer")].spec["parameters"] == {"temperature": 1.0}
    assert Address("prompt", "extra") in prod
    assert Address("prompt", "extra") not in dev
    assert not any(address.kind == "gate" for address in prod)
    where = prod[Address("prompt", "extra")].where
    assert where is not None
    assert "extra:" in where.snippet


def test_what_an_override_breaks_is_found_when_loading(tmp_path: Path) -> None:
    text = TWO.replace("prod: {target: local}", "prod: {target: local, overrides: {models: {tiny: null}}}")
    with pytest.raises(InvalidInput, match="there is no model 'tiny'"):
        load(make_project(tmp_path, text))


def test_null_that_removes_nothing_is_a_warning(tmp_path: Path) -> None:
    overrides = "{target: local, overrides: {models: {tiny: {licence: null}}}}"
    document = load(make_project(tmp_path, GOOD.replace("{target: local}", overrides)))
    assert ["removes nothing" in warning.summary for warning in document.warnings] == [True]
    assert ["removes nothing" in warning.summary for warning in resolve(document, "dev").warnings] == [True]


def test_variables_are_put_into_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCTL_TEST_DIR", "models")
    monkeypatch.setenv("LLMCTL_TEST_ENGINE", "llama.cpp")
    monkeypatch.setenv("LLMCTL_TEST_TWICE", "${env:HOME}")
    text = GOOD.replace("source: models/tiny.gguf", "source: ${env:LLMCTL_TEST_DIR}/tiny.gguf")
    text = text.replace("engine: llama.cpp", "engine: ${env:LLMCTL_TEST_ENGINE}")
    text = text.replace("limitations: many", 'limitations: "$${env:X} ${env:LLMCTL_TEST_TWICE} $$"')
    resources = resolved(make_project(tmp_path, text)).desired.resources
    model = resources[Address("model", "tiny")].spec
    assert model["source"] == model["files"][0]["path"] == "models/tiny.gguf"
    assert model["card"]["limitations"] == "${env:X} ${env:HOME} $$"  # a value is not read again
    assert resources[Address("endpoint", "support")].spec["engine"] == "llama.cpp"


def test_an_unset_variable_stops_only_the_environment_that_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLMCTL_TEST_UNSET", raising=False)
    overrides = "{target: local, overrides: {endpoints: {support: {engine: '${env:LLMCTL_TEST_UNSET}'}}}}"
    document = load(make_project(tmp_path, TWO.replace("prod: {target: local}", f"prod: {overrides}")))
    assert resolve(document, "dev").desired.resources
    with pytest.raises(InvalidInput) as caught:
        resolve(document, "prod")
    (finding,) = caught.value.findings
    assert finding.summary == "the environment variable LLMCTL_TEST_UNSET is not set"
    assert finding.hint == "Set it first: export LLMCTL_TEST_UNSET=…"
    assert finding.address == Address("endpoint", "support")


def test_a_variable_that_is_not_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "LLMCTL_TEST_BYTES", "\udcff")
    text = GOOD.replace("license: Apache-2.0", "license: ${env:LLMCTL_TEST_BYTES}")
    document_path = make_project(tmp_path, text)
    with pytest.raises(InvalidInput, match="is not UTF-8 text"):
        resolved(document_path)
