"""What a plug-in has live and nobody recorded: pointed out, left alone, and taken in."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tests.plugins.project import PluginProject

pytestmark = pytest.mark.e2e

OTHER = "fts_indexes:\n  faq:\n    dataset: faq\n    columns: [question]\n"


def test_an_index_that_nobody_recorded_is_left_alone_until_it_is_taken_in(project: PluginProject) -> None:
    project.apply()
    before = project.index.read_bytes()
    project.ok("state", "rm", "fts.faq", "--reason", "a test", "--yes")
    adopted = project.ok("plan", "--json").json()
    assert {c["address"]: c["action"] for c in adopted["changes"]} == {"fts.faq": "adopt"}
    assert adopted["warnings"] == []

    project.edit("columns: [question]", "columns: [answer]")
    shown = project.ok("plan")
    assert "fts.faq: unmanaged: it is live, and nobody recorded it" in shown.out
    assert "`llmctl import fts.faq faq` takes it in" in shown.out
    refused = project.llmctl("apply", "--yes")
    assert refused.code == 1
    assert project.index.read_bytes() == before

    done = project.ok("import", "fts.faq", "faq", "--json").json()
    assert [d["path"] for d in done["differs"]] == ["columns[0]"]
    recorded = project.ok("state", "show", "fts.faq", "--json").json()
    assert recorded["needs"] == ["dataset.faq"]
    plan = project.ok("plan", "--json").json()
    assert {c["address"]: c["action"] for c in plan["changes"]} == {"fts.faq": "update"}
    assert plan["warnings"] == []
    project.apply()
    assert project.plan_code() == 0
    project.ok("audit", "verify")


def test_what_somebody_else_made_is_never_deleted(project: PluginProject) -> None:
    """Beside ours, in our own folder: it may be anybody's."""
    project.apply()
    theirs = project.index.with_name("theirs.sqlite3")
    theirs.write_bytes(project.index.read_bytes())
    shown = project.ok("plan", "--json").json()
    assert [w["address"] for w in shown["warnings"]] == ["fts.theirs"]
    assert shown["steps"] == []
    assert project.plan_code() == 0
    undeclared = project.llmctl("import", "fts.theirs", "theirs")
    assert (undeclared.code, "Declare it under `fts_indexes:`" in undeclared.err) == (1, True)
    for number in range(8):
        theirs.with_name(f"their{number}.sqlite3").write_bytes(theirs.read_bytes())
    many = project.ok("plan", "--json").json()["warnings"]
    assert len(many) == 6
    assert "4 more of the kind fts are live" in many[-1]["summary"]
    project.edit("columns: [question]", "columns: [answer]")
    project.apply()
    assert len([path for path in project.index.parent.iterdir() if path != project.index]) == 9


@pytest.mark.parametrize("how", ["damaged", "locked", "gone", "revision"])
def test_what_cannot_be_taken_in(project: PluginProject, how: str) -> None:
    project.apply()
    project.ok("state", "rm", "fts.faq", "--reason", "a test", "--yes")
    name = "faq"
    if how == "damaged":
        project.index.write_bytes(b"nonsense" * 999)
    elif how == "revision":
        name = "faq@1234"
    with closing(sqlite3.connect(project.index)) as base:
        if how == "locked":
            base.execute("BEGIN EXCLUSIVE")
        if how == "gone":
            project.index.unlink()
        result = project.llmctl("import", "fts.faq", name)
    said = {
        "damaged": "is not healthy",
        "locked": "cannot be read",
        "gone": "no fts faq is live",
        "revision": "one thing a name is live",
    }
    assert (result.code, said[how] in result.err) == (1, True), result.text
