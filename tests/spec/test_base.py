"""The policies and gates of another revision of the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.core.address import Address
from llmctl.core.errors import InvalidInput
from llmctl.spec import Document, base_rules, load, resolve
from llmctl.spec.base import _Snapshot
from llmctl.spec.files import FileRefused, Files
from tests.spec.project import GOOD, make_project

FAQ, OPEN = Address("gate", "faq"), Address("policy", "open-licence")
SPLIT = GOOD[: GOOD.index("gates:\n")].replace("environments:\n", "include: rules/**/*.yaml\nenvironments:\n")
RULES = GOOD[GOOD.index("gates:\n") :]


@pytest.fixture
def document(tmp_path: Path) -> Document:
    return load(make_project(tmp_path))


def test_gates_and_policies_are_as_they_were(document: Document) -> None:
    old = GOOD.replace("min: 0.95", "min: 0.99").replace('["Apache-2.0"]', "[]").replace("tiny.gguf", "gone.gguf")
    rules = base_rules(document, {"llmops.yaml": old.encode()}, "dev", base="main")
    now = resolve(document, "dev").desired.resources
    assert set(rules) == {FAQ, OPEN}
    assert rules[FAQ].spec["metrics"]["exact_match"]["min"] == 0.99
    assert rules[OPEN].spec["require"] == "resource.license in []"
    assert set(now[FAQ].spec) - set(rules[FAQ].spec) == {"dataset_revision", "dataset_digest", "dataset_format"}
    assert set(rules[OPEN].spec) == set(now[OPEN].spec)
    assert str(rules[FAQ].where).startswith("main:llmops.yaml:")


def test_rules_may_be_in_included_files_and_read_others(document: Document) -> None:
    rules = RULES.replace("      latency", "      json_schema: {schema: s/a.json, min: 0.5}\n      latency")
    files = {
        "llmops.yaml": SPLIT.encode(),
        "rules/deep/a.yaml": rules.replace("Models must", "${file:texts/must.txt} must").encode(),
        "rules/.hidden/b.yaml": b"]",
        "texts/must.txt": b"They\n",
        "s/a.json": b'{"type": "object"}',
    }
    found = base_rules(document, files, "dev", base="HEAD~1")
    assert found[OPEN].spec["message"] == "They must carry an open licence."
    assert found[FAQ].spec["metrics"]["json_schema"]["schema"] == {"type": "object"}


def test_sections_of_a_plug_in_that_is_not_installed_any_more_do_not_matter(document: Document) -> None:
    section = "fts_indexes:\n  faq: {dataset: faq}\n"
    policy = "  indexed: {applies_to: fts, require: size(resource.columns) < 9}\n"
    files = {
        "llmops.yaml": (SPLIT + section).encode(),
        "rules/a.yaml": (RULES.replace("policies:\n", f"policies:\n{policy}") + section).encode(),
        "rules/b.yaml": b"other_things: 7\n",
    }
    assert set(base_rules(document, files, "dev", base="main")) == {FAQ, OPEN}


def test_overrides_of_the_environment_apply(document: Document) -> None:
    text = GOOD.replace(
        "{target: local}", "{target: local, overrides: {policies: null, gates: {faq: {confidence: 0.9}}}}"
    )
    files = {"llmops.yaml": text.encode()}
    assert base_rules(document, files, "dev", base="main")[FAQ].spec["confidence"] == 0.9
    assert set(base_rules(document, files, "dev", base="main")) == {FAQ}
    assert set(base_rules(document, files, "new", base="main")) == {FAQ, OPEN}  # it had no overrides yet


def test_a_base_without_the_file_has_no_rules(document: Document) -> None:
    assert base_rules(document, {"other.yaml": b"]"}, "dev", base="main") == {}


@pytest.mark.parametrize(
    ("old", "reason"),
    [
        (b"a: [", "a value was expected here"),
        (b"\xff", "not UTF-8"),
        (SPLIT.encode(), "no file matches"),
        (GOOD.replace("min: 0.95", "min: much").encode(), "`min` must be a number"),
        (GOOD.replace("Models must", "${file:none.txt}").encode(), "there is no file 'none.txt' in v1"),
        (GOOD.replace("exact_match: {", "regex: {pattern: '(', ").encode(), "is not a regular expression"),
    ],
)
def test_a_base_that_is_not_valid_says_that_it_is_the_base(document: Document, old: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=r"llmops\.yaml as of v1 is not valid") as caught:
        base_rules(document, {"llmops.yaml": old}, "dev", base="v1")
    _, *rest = caught.value.findings
    assert any(reason in finding.summary for finding in rest)
    assert all(finding.where is not None and finding.where.file.startswith("v1:") for finding in rest)


def test_a_secret_in_the_base_is_not_shown(document: Document) -> None:
    text = GOOD.replace('"${env:OPENAI_API_KEY}"', "sk-CANARY").replace("metrics:", "metric:")
    with pytest.raises(InvalidInput) as caught:
        base_rules(document, {"llmops.yaml": text.encode()}, "dev", base="main")
    assert "CANARY" not in repr(caught.value.findings)


@pytest.mark.parametrize(
    "pattern", ["*.yaml", "parts/*.yaml", "**/*.yaml", "parts/**", "p?rts/[a-p]*.yaml", "**/r*.yaml", "x/*"]
)
def test_a_glob_finds_the_same_on_disk_and_in_a_revision(document: Document, pattern: str) -> None:
    (document.root / ".hidden").mkdir()
    (document.root / ".hidden" / "a.yaml").write_text("x")
    files = {p.relative_to(document.root).as_posix(): b"" for p in document.root.rglob("*") if p.is_file()}
    assert _Snapshot(files, "main").matching(pattern) == Files(document.root).matching(pattern)


def test_a_path_out_of_the_project_is_refused_as_on_disk() -> None:
    for wrong in ("../x", "/x", "~/x"):
        with pytest.raises(FileRefused):
            _Snapshot({"x": b""}, "main").read(wrong)
