"""The real command with the example package installed: its index is planned, made, watched and taken away."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from llmctl.core.digests import Json
from tests.plugins.project import ROWS, PluginProject
from tests.results import Result

pytestmark = pytest.mark.e2e


def planned(project: PluginProject, *arguments: str) -> dict[str, str]:
    """What a plan would do, by address; what drifted is to be restored."""
    plan = project.ok("plan", "--json", *arguments).json()
    return {c["address"]: c["action"] for c in plan["changes"]} | {d["address"]: "restore" for d in plan["drift"]}


def questions(index: Path) -> list[str]:
    with closing(sqlite3.connect(index)) as base:
        return [text for (text,) in base.execute("SELECT question FROM documents ORDER BY rowid")]


def faq_of(project: PluginProject) -> Json:
    (resource,) = project.status()["resources"]
    assert resource["address"] == "fts.faq"
    return resource


def refused(result: Result, *words: str, code: int = 1) -> None:
    assert result.code == code, result.text
    for word in words:
        assert word in result.text


def test_its_life(project: PluginProject) -> None:
    assert planned(project) == {"dataset.faq": "create", "fts.faq": "create"}
    assert not project.index.exists()
    project.apply()
    assert questions(project.index) == ["Can I return shoes?", "Where is my order?"]
    assert project.plan_code() == 0
    assert faq_of(project)["outputs"] == {"path": str(project.index), "rows": 2}
    assert "fts.faq v1" in project.ok("audit", "show", "1").text

    _follows_its_dataset(project)
    _goes_back(project)
    _drifts(project)
    _is_protected(project)

    project.destroy()
    (last,) = project.ok("audit", "log", "--json", "-n", "1").json()["entries"]
    assert (last["action"], last["outcome"]) == ("destroy", "applied")


def _follows_its_dataset(project: PluginProject) -> None:
    """A new revision of the dataset brings one of the index; a targeted plan brings the dataset along."""
    project.data.write_text(ROWS + '{"question": "Do you ship?", "answer": "Yes."}\n')
    assert planned(project, "--target", "fts.faq") == {"dataset.faq": "update", "fts.faq": "update"}
    explained = project.ok("plan", "--explain", "fts.faq").text
    assert "dataset_digest changed" in explained
    assert "dataset.faq changed: fts.faq gets a new revision" in project.ok("plan").text
    project.apply()
    assert questions(project.index)[2:] == ["Do you ship?"]
    assert (faq_of(project)["version"], project.plan_code()) == (2, 0)


def _goes_back(project: PluginProject) -> None:
    """A rollback makes it from the content that was recorded then."""
    project.ok("rollback", "--to", "1", "--yes", "--reason", "a test")
    assert (len(questions(project.index)), faq_of(project)["version"]) == (2, 1)
    project.apply()
    assert (len(questions(project.index)), faq_of(project)["version"]) == (3, 2)
    project.ok("audit", "verify")


def _drifts(project: PluginProject) -> None:
    """Gone or damaged, it is made as it was recorded, whatever the dataset's file says by now."""
    for damage in (Path.unlink, lambda path: path.write_bytes(b"nonsense" * 999)):
        damage(project.index)
        assert planned(project) == {"fts.faq": "restore"}
        assert "fts.faq" in project.llmctl("drift").text
        assert not faq_of(project)["healthy"]
        project.apply()
        assert len(questions(project.index)) == 3
    with closing(sqlite3.connect(project.index)) as base:
        base.execute("BEGIN EXCLUSIVE")
        assert "fts.faq: cannot be read" in " ".join(project.status()["unreadable"])
        project.edit("columns: [question]", "columns: [answer]")
        serial = project.serial()
        refused(project.llmctl("apply", "--yes"), "fts.faq", "cannot be read", "Nothing was changed")
        refused(project.llmctl("destroy", "--yes"), "cannot be read")
    assert len(questions(project.index)) == 3
    assert project.serial() == serial + 1  # the destroy that did not get through is recorded
    assert len(project.one_of_each(engines=0)) == 2  # … and the target still runs
    project.edit("columns: [answer]", "columns: [question]")
    assert project.plan_code() == 0


def _is_protected(project: PluginProject) -> None:
    project.edit("    dataset: faq", "    protect: true\n    dataset: faq")
    assert planned(project) == {"fts.faq": "update"}
    project.apply()
    text = project.file.read_text()
    project.file.write_text(text.partition("fts_indexes")[0])
    refused(project.llmctl("apply", "--yes"), "fts.faq", "it is protected", code=3)
    refused(project.llmctl("destroy", "--yes"), "fts.faq", "it is protected", code=3)
    project.file.write_text(text.replace("    protect: true\n", ""))
    project.apply()
    assert project.index.exists()


def test_a_rename_and_the_end_of_an_index(project: PluginProject) -> None:
    project.apply()
    renamed = project.file.read_text().replace("fts_indexes:\n  faq:", "fts_indexes:\n  questions:")
    project.file.write_text(renamed + "moved: [{from: fts.faq, to: fts.questions}]\n")
    project.apply()
    other = project.index.with_name("questions.sqlite3")
    assert (project.index.exists(), len(questions(other))) == (False, 2)
    project.file.write_text(renamed.partition("fts_indexes")[0])
    assert planned(project) == {"fts.questions": "delete"}
    project.apply()
    assert not other.exists()
    assert project.plan_code() == 0


def test_without_its_package_nothing_is_touched(project: PluginProject) -> None:
    project.apply()
    before, refs = project.index.read_bytes(), project.refs()
    project.uninstall()
    refused(project.llmctl("plan"), "llmops.yaml:7:1", "unknown key `fts_indexes`", "none that is installed adds")
    project.file.write_text(project.file.read_text().partition("fts_indexes")[0])
    named = ("no installed package provides the kind 'fts'", "Install the package")
    for command in (["plan"], ["apply", "--yes"], ["destroy", "--yes"], ["status"], ["plan", "--offline"]):
        refused(project.llmctl(*command), *named)
    assert "fts.faq v1" in project.ok("audit", "show", "1").text
    project.install_broken()
    refused(project.llmctl("destroy", "--yes"), "the package broken-kinds cannot be used", "it needs a newer libfoo")
    assert (project.index.read_bytes(), project.refs()) == (before, refs)
    assert len(project.one_of_each(engines=0)) == 2


def test_a_base_with_what_is_no_longer_installed_still_judges(project: PluginProject) -> None:
    text = project.file.read_text()
    plain, index = text.partition("fts_indexes")[0], "fts_indexes" + text.partition("fts_indexes")[2]
    policies = "policies:\n  licensed: {applies_to: dataset, require: 'resource.license != null', severity: warn}\n"
    (project.root / "index.yaml").write_text(index)
    project.file.write_text(plain.replace("datasets:", "include: index.yaml\ndatasets:") + policies)
    assert planned(project, "--offline", "--base", "HEAD") == {
        "dataset.faq": "create",
        "fts.faq": "create",
        "policy.licensed": "create",
    }
    project.commit("an index in a file of its own")
    project.uninstall()
    project.file.write_text(plain)
    told = project.ok("plan", "--offline", "--base", "HEAD").text
    assert "policy.licensed" in told
    assert "it is deleted" in told


def test_doctor_lists_what_is_installed_and_what_of_it_fails(project: PluginProject) -> None:
    assert _plugins(project) == ("ok", "fts (llmctl-fts 0.1.0)", "")
    project.install_broken()
    status, found, remedy = _plugins(project)
    assert status == "warning"
    assert found.startswith(
        "broken (broken-kinds 0.1.0) cannot be used: RuntimeError: it needs a newer libfoo; usable: fts"
    )
    assert "pip uninstall broken-kinds" in remedy
    project.uninstall()
    status, found, remedy = _plugins(project)
    assert (status, remedy.partition(";")[0]) == ("failed", "Install the package that provides it")
    assert (
        found == "llmops.yaml:7:1: unknown key `fts_indexes`; no installed package adds such a section; installed: none"
    )
    project.file.write_text(project.file.read_text().partition("fts_indexes")[0])
    assert _plugins(project) == ("ok", "none is installed, and none is needed", "")


def test_doctor_tells_a_kind_that_is_recorded_and_not_installed(project: PluginProject) -> None:
    project.apply()
    project.uninstall()
    text = project.file.read_text()
    for file in (text, text.partition("fts_indexes")[0]):
        project.file.write_text(file)
        status, found, _ = _plugins(project)
        assert status == "failed"
        assert found.startswith("no installed package provides the kind 'fts' of fts.faq, recorded in llmctl/dev")


def _plugins(project: PluginProject) -> tuple[str, str, str]:
    (check,) = (c for c in project.llmctl("doctor", "--json").json()["checks"] if c["name"] == "plug-ins")
    return check["status"], check["found"], check["remedy"]


def test_a_wrong_entry_and_a_policy_are_told_before_anything_changes(project: PluginProject) -> None:
    project.edit("columns: [question]", "columns: [question, anser]")
    refused(project.llmctl("plan"), "llmops.yaml:10:25 (fts.faq)", "dataset.faq has no column `anser`")
    project.edit("anser]", "answer]")
    rule = "policies:\n  words:\n    applies_to: fts\n    require: resource.tokenizer == 'porter'\n"
    project.file.write_text(project.file.read_text() + rule)
    refused(project.llmctl("apply", "--yes"), "policy.words denies fts.faq", code=3)
    assert not project.state().exists()
    assert "fts_indexes" in json.loads(project.ok("schema").out)["properties"]
