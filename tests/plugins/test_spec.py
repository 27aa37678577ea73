"""Entries of plug-ins in the file: as strict as those of built-in kinds, with every finding at its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import click
import pytest
from jsonschema import Draft202012Validator

from llmctl import policy
from llmctl.app.validate import checked
from llmctl.cli.completing import addresses
from llmctl.core.address import Address
from llmctl.core.errors import InvalidInput, LlmctlError
from llmctl.core.kinds import kind_of
from llmctl.core.plugins import installed, plugin_of
from llmctl.core.resources import Resource
from llmctl.policy.fields import resource_view
from llmctl.policy.samples import sample_of
from llmctl.spec import Resolved, json_schema, load, resolve
from llmctl.spec.nodes import plain
from llmctl.spec.yaml_reader import decode
from llmctl.spec.yaml_reader import read as read_yaml
from tests.plugins.packages import install
from tests.plugins.project import FILE, ROWS
from tests.spec.project import FULL, make_project

FAQ = Address("fts", "faq")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a project: ``more`` is added to ``FILE``, or ``text`` replaces it; ``files`` lie beside it."""

    def written(more: str = "", *, text: str = FILE, **files: str) -> Path:
        root = tmp_path / "project"
        (root / "data").mkdir(parents=True, exist_ok=True)
        (root / "data" / "faq.jsonl").write_text(ROWS)
        for name, content in files.items():
            (root / f"{name}.yaml").write_text(content)
        (root / "llmops.yaml").write_text(text + more)
        return root / "llmops.yaml"

    return written


def read(path: Path, environment: str = "dev") -> Resolved:
    return resolve(load(path), environment)


def findings(path: Path) -> list[tuple[str, str]]:
    """What is wrong, each as ``line:column`` and summary; the same file is checked as ``validate`` does."""
    with pytest.raises(InvalidInput) as refused:
        checked(load(path), "dev")
    return [(f"{d.where.line}:{d.where.column}", d.summary) for d in refused.value.findings if d.where]


@pytest.mark.usefixtures("example")
def test_an_entry_is_resolved(write: Callable[..., Path]) -> None:
    resources = read(write()).desired.resources
    dataset, index = resources[Address("dataset", "faq")], resources[FAQ]
    assert index.needs == (dataset.address,)
    assert index.spec == {
        "dataset": "faq",
        "dataset_digest": dataset.spec["digest"],
        "dataset_format": "jsonl",
        "columns": ["question"],
        "tokenizer": "unicode61",
        "protect": False,
    }
    assert index.revision == kind_of("fts").revision(index.spec)
    assert index.where is not None
    assert (index.where.line, index.where.column) == (8, 3)


@pytest.mark.usefixtures("example")
def test_overrides_and_includes_work(write: Callable[..., Path]) -> None:
    overrides = "{faq: {columns: [answer]}, more: null, third: {dataset: faq, columns: [question]}}"
    test = f"  test: {{target: local, overrides: {{fts_indexes: {overrides}}}}}\ninclude: extra.yaml\n"
    text = FILE.replace("datasets:", f"{test}datasets:")
    extra = "fts_indexes:\n  more: {dataset: faq, columns: [question], protect: true}\n"
    path = write(text=text, extra=extra)
    dev, other = read(path).desired.resources, read(path, "test").desired.resources
    assert {a.name for a in dev if a.kind == "fts"} == {"faq", "more"}
    assert dev[Address("fts", "more")].spec["protect"] is True
    assert {a.name for a in other if a.kind == "fts"} == {"faq", "third"}
    assert other[FAQ].spec["columns"] == ["answer"]


@pytest.mark.usefixtures("example")
def test_renames_work(write: Callable[..., Path]) -> None:
    moved = read(write("moved: [{from: fts.old, to: fts.faq}]\n")).desired.moved
    assert moved == ((Address("fts", "old"), FAQ),)
    wrong = "moved: [{from: fts.faq, to: fts.gone}, {from: ftx.a, to: fts.faq}]\n"
    assert findings(write(wrong)) == [
        ("11:16", "fts.faq is still declared"),
        ("11:29", "fts.gone is not declared"),
        ("11:47", "there is no kind `ftx`"),
    ]
    without = FILE.partition("fts_indexes")[0] + "moved: [{from: fts.faq, to: fts.gone}]\n"
    assert findings(write(text=without)) == [("7:29", "fts.gone is not declared")]


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("{dataset: faq, colums: [question]}", ["13:21 unknown key `colums`", "13:3 `columns` is missing"]),
        ("{dataset: fak, columns: [question]}", ["13:16 there is no dataset 'fak'"]),
        ("{dataset: faq, columns: [question, anser]}", ["13:41 dataset.faq has no column `anser`"]),
        ("{dataset: faq, columns: [question], tokenizer: portr}", ["13:53 `tokenizer` must be"]),
        ("{dataset: faq, columns: question}", ["13:30 `columns` must be a list"]),
        ("{dataset: faq, columns: [question], protect: maybe}", ["13:51 `protect` must be true or false"]),
        ("{dataset: ill, columns: [question]}", []),  # what is wrong with the dataset is told at the dataset
        ("", ["13:3 `b` has no value"]),
        ("[question]", ["13:6 "]),
    ],
)
def test_what_is_wrong_is_told_at_its_place(write: Callable[..., Path], entry: str, found: list[str]) -> None:
    text = FILE.replace(
        "  faq: {source: data/faq.jsonl}\n", "  faq: {source: data/faq.jsonl}\n  ill: {source: no.csv}\n"
    )
    told = [f"{place} {summary}" for place, summary in findings(write(f"\n  b: {entry}\n", text=text))]
    about_entry = [line for line in told if not line.startswith("7:")]
    assert len(told) == len(about_entry) + 1
    assert len(about_entry) == len(found), told
    assert all(any(line.startswith(start) for line in about_entry) for start in found), told


def test_an_unknown_section_may_be_that_of_a_package(site: Path, write: Callable[..., Path]) -> None:
    with pytest.raises(InvalidInput) as refused:
        load(write())
    (finding,) = refused.value.findings
    assert (finding.summary, finding.where and finding.where.line) == ("unknown key `fts_indexes`", 7)
    assert "none that is installed adds this one" in finding.hint
    assert not list(site.iterdir())


@pytest.mark.usefixtures("example")
def test_a_misspelt_section_of_a_plugin_is_known(write: Callable[..., Path]) -> None:
    with pytest.raises(InvalidInput) as refused:
        load(write(text=FILE.replace("fts_indexes", "fts_indexs")))
    assert [f.hint for f in refused.value.findings] == ["did you mean `fts_indexes`?"]


@pytest.mark.usefixtures("example")
def test_policies_judge_it(write: Callable[..., Path]) -> None:
    rule = "policies:\n  words: {{applies_to: {}, require: '{}'}}\n"
    found = findings(write(rule.format("fts", 'resource.tokeniser == "x"')))
    assert [summary.partition(": ")[2] for _, summary in found] == ["resource has no field tokeniser"]
    assert findings(write(rule.format("ftz", "true")))[0][1].endswith("plan or fts, not 'ftz'")
    desired = checked(load(write(rule.format("fts", 'resource.tokenizer == "porter"'))), "dev").desired
    specs = {"words": desired.resources[Address("policy", "words")].spec}
    (result,) = policy.evaluate(specs, desired.resources, desired.environment, project="acme", today=date(2026, 1, 1))
    assert (result.address, result.ok, result.error) == (FAQ, False, "")
    sample = sample_of("fts")
    assert resource_view(Resource(Address("fts", "sample"), dict(sample), "0" * 16)) == sample


@pytest.mark.usefixtures("example")
def test_the_schema_has_it_when_it_is_asked_to(write: Callable[..., Path]) -> None:
    schema = json_schema(installed().values())
    Draft202012Validator.check_schema(schema)
    json.dumps(schema)
    file = plain(read_yaml(decode(write().read_bytes(), "llmops.yaml"))[0])
    assert not list(Draft202012Validator(schema).iter_errors(file))
    assert [e.json_path for e in Draft202012Validator(json_schema()).iter_errors(file)] == ["$"]
    file["fts_indexes"]["faq"]["colums"] = []
    assert [e.json_path for e in Draft202012Validator(schema).iter_errors(file)] == ["$.fts_indexes.faq"]
    assert "fts" not in json.dumps(json_schema())


@pytest.mark.usefixtures("example")
def test_the_shell_completes_its_addresses(write: Callable[..., Path]) -> None:
    context = click.Context(click.Command("plan"))
    context.params["file"] = str(write())
    assert addresses(context, click.Option(["--target"]), "f") == ["fts.faq"]


# -- packages that do not keep their side ---------------------------------------------------------

_MODULE = """\
from llmctl.core.kinds import Kind, Role
from llmctl.core.plugins import Declared, FieldError
from llmctl.core.address import Address
from llmctl.spec import ResourceShape

class Shape(ResourceShape):
    size: int

class Thing:
    kind = Kind("thing", "things", Role.RESOURCE, ("size",))
    entry = Shape
    fields = {"size": "number"}

    def resolve(self, name, entry, context):
        return Declared({"size": entry.size})

    def provider(self, place):
        raise RuntimeError("canary-4711")

KIND = Thing()
"""


def _install(site: Path, old: str = "", new: str = "", name: str = "thing") -> None:
    install(site, f"llmctl-{name}", f"{name} = {name}_kind:KIND")
    assert old in _MODULE
    (site / f"{name}_kind.py").write_text(_MODULE.replace(old, new) if old else _MODULE)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("KIND = Thing()", "raise RuntimeError('needs libfoo')", "RuntimeError: needs libfoo"),
        ("KIND = Thing()", "raise SystemExit(0)", "SystemExit"),
        ("KIND = Thing()", "import no_such_module", "No module named 'no_such_module'"),
        ("KIND = Thing()", "KIND = None", "AttributeError"),
        ('Kind("thing"', 'Kind("other"', "its entry point is named 'thing', its kind 'other'"),
        ("Role.RESOURCE", "Role.ARTIFACT", "its role is not Role.RESOURCE"),
        ('"things"', '"models"', "there is a kind model with the section models already"),
        ('"things"', '"moved"', "`moved` means something else"),
        ('{"size": "number"}', '{"size": "number", "protect": "boolean"}', "the field `protect`, which llmctl adds"),
        ('{"size": "number"}', "{}", "its serving field `size` is not among its fields"),
        ('"size": "number"', '"size": "integer"', "its field `size` has a type that policies do not know"),
        ("entry = Shape", "entry = dict", "no subclass of llmctl.spec.ResourceShape"),
    ],
)
def test_a_package_that_cannot_be_used_stops_the_run(
    site: Path, write: Callable[..., Path], old: str, new: str, why: str
) -> None:
    _install(site, old, new)
    path = write(text=FILE.replace("fts_indexes:\n  faq:\n    dataset: faq\n    columns: [question]\n", "things: {}\n"))
    with pytest.raises(LlmctlError) as refused:
        load(path)
    assert not isinstance(refused.value, InvalidInput)
    assert "'thing'" in refused.value.summary
    assert "cannot be used" in refused.value.summary
    assert why in refused.value.detail


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("return Declared", "return dict", "gave a dict, not a Declared"),
        ('{"size": entry.size}', '{"size": 1, "more": 2}', "a spec with other fields than it declares"),
        ('{"size": entry.size}', '{"size": (1, 2)}', "a spec that is not JSON"),
        ('{"size": entry.size}', "[1]", "not a Declared with a spec"),
        ('{"size": entry.size}', '{"size": 1}, (Address("model", "gone"),)', "says that it needs model.gone"),
        ('{"size": entry.size}', '{"size": 1 / 0}', "raised ZeroDivisionError"),
        ("", "", ""),
    ],
)
def test_nonsense_from_a_package_is_said_to_be_its_own(
    site: Path, write: Callable[..., Path], old: str, new: str, why: str
) -> None:
    _install(site, old, new)
    path = write(text=FILE.partition("fts_indexes")[0] + "things: {a: {size: 3}}\n")
    if not why:
        assert read(path).desired.resources[Address("thing", "a")].spec == {"size": 3, "protect": False}
        return
    with pytest.raises(LlmctlError) as refused:
        read(path)
    assert why in refused.value.summary
    assert "thing.a" in refused.value.summary


def test_a_field_may_refer_to_a_file_and_to_nothing_else(site: Path, write: Callable[..., Path]) -> None:
    resolve_it = (
        'context.file("data/none.txt", ("size",)) if entry.size == 1 else '
        'context.resource(Address("thing", "b"), ("size",)) if entry.size == 2 else None; '
        'path, digest = context.file("data/faq.jsonl", ("size",)); assert path.is_file() and len(digest) == 71; '
        "return Declared"
    )
    _install(site, "return Declared", resolve_it)
    text = FILE.partition("fts_indexes")[0] + "things: {a: {size: 1}, b: {size: 2}, c: {size: 3}}\n"
    assert findings(write(text=text)) == [
        ("7:20", "there is no file 'data/none.txt'"),
        ("7:34", "there is no thing 'b'"),
    ]


def test_what_is_built_in_asks_no_package(site: Path, tmp_path: Path) -> None:
    _install(site, "KIND = Thing()", "raise RuntimeError('it was asked')")
    document = load(make_project(tmp_path / "full", FULL))
    for environment in document.environments:
        checked(document, environment)
    with pytest.raises(LlmctlError, match="cannot be used"):
        installed()


def test_a_section_that_is_kept_for_later_can_be_that_of_a_package(site: Path, write: Callable[..., Path]) -> None:
    text = FILE.partition("fts_indexes")[0] + "indexes: {a: {size: 3}}\n"
    assert findings(write(text=text)) == [("7:1", "`indexes` is not served yet")]
    _install(site, '"things"', '"indexes"')
    installed.cache_clear()
    assert Address("thing", "a") in read(write(text=text)).desired.resources


def test_two_packages_cannot_have_the_same_section(site: Path) -> None:
    _install(site)
    _install(site, 'Kind("thing"', 'Kind("zthing"', name="zthing")
    with pytest.raises(LlmctlError) as refused:
        plugin_of("thing")
    assert "the kind 'zthing' of the package llmctl-zthing cannot be used" in refused.value.summary
    assert "there is a kind thing with the section things already" in refused.value.detail


def test_a_kind_that_nobody_has_is_named(site: Path) -> None:
    _install(site)
    with pytest.raises(LlmctlError, match="no installed package provides the kind 'fts'"):
        plugin_of("fts")
