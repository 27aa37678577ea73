"""``llmctl import`` as a plan names it: the line that is printed is the line that is typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.cli.project import Project

pytestmark = pytest.mark.e2e


@pytest.fixture
def forgotten(applied: Project) -> Iterator[Project]:
    """The applied project, of which the record does not know what serves, and the file asks for another prompt."""
    names = ("route.support", "gate.faq", "endpoint.support")
    assert applied.run("state", "rm", *names, "--reason", "x", "--yes").code == 0
    yield applied
    applied.git("checkout", "-q", "--", ".")
    assert applied.run("apply", "--yes").code == 0


def test_what_a_plan_names_can_be_typed(forgotten: Project) -> None:
    text = forgotten.file.read_text()
    forgotten.file.write_text(text[: text.index("endpoints:")])
    shown = forgotten.run("plan")
    lines = re.findall(r"`llmctl (import [^`]+)`", shown.out)
    assert sorted({line.split()[1] for line in lines}) == ["endpoint.support", "route.support"]
    for line in set(lines):
        refused = forgotten.run(*shlex.split(line))
        assert (refused.code, "Write under `" in refused.err) == (1, True), refused.text
    assert set(re.findall(r"`llmctl (import [^`]+)`", forgotten.run("drift").out)) == set(lines)
    forgotten.file.write_text(text)
    for line in sorted(set(lines)):
        done = forgotten.run(*shlex.split(line))
        assert (done.code, "is recorded, as serial" in done.out) == (0, True), done.text
        assert "It is as llmops.yaml declares it." in done.out
    markdown = forgotten.run("plan", "--markdown")
    assert (markdown.code, "unmanaged" in markdown.out) == (0, False)


def test_json_of_what_differs(forgotten: Project) -> None:
    forgotten.replace("You are Acme's support assistant.", "You are brief.")
    done = forgotten.run("import", "route.support", "support", "--json", "--reason", "why").json()
    assert (done["format"], done["environment"], done["version"]) == (1, "dev", 1)
    assert "prompt_revision" in [d["path"] for d in done["differs"]]
    again = forgotten.run("import", "route.support", "support", "--json")
    assert again.code == 1
    assert again.json()["errors"][0]["summary"].startswith("route.support is recorded already")
