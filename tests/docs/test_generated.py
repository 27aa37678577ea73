"""The generated pages are what the code says, and the site is built from them without the network."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from tools.docs import errors, pages
from tools.docs.reference import page_of

from llmctl.cli import COMMANDS, cli
from llmctl.core.digests import Json
from llmctl.core.exits import ExitCode
from llmctl.spec import json_schema

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = pages()
_FOREIGN = re.compile(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["']?(?:https?:)?//[^>]*>""")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_as_it_would_be_generated_now(path: str) -> None:
    assert (DOCS / path).read_text() == PAGES[path], "run `make docs-pages`"


def test_no_page_is_left_of_a_command_that_is_gone() -> None:
    assert {f"commands/{p.name}" for p in (DOCS / "commands").iterdir()} == {p for p in PAGES if "/" in p}


def _all() -> list[tuple[str, click.Context]]:
    """Every command and every command of a group, with the name of its page."""
    found = []
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        context = click.Context(command, info_name=name)
        found.append((name, context))
        if isinstance(command, click.Group):
            found += [(name, click.Context(c, info_name=n, parent=context)) for n, c in command.commands.items()]
    return found


def _words(text: str) -> str:
    """Text without what Markdown adds and where its lines end."""
    return " ".join(re.sub(r"[`\\*_]|&lt;", lambda m: "<" if m[0] == "&lt;" else "", text).split())


@pytest.mark.parametrize(("name", "context"), _all(), ids=lambda value: getattr(value, "command_path", None))
def test_a_page_says_all_that_the_help_says(name: str, context: click.Context) -> None:
    page = _words(PAGES[f"commands/{name}.md"])
    for paragraph in (context.command.help or "").replace("\b\n", "").split("\n\n"):
        for line in [paragraph] if "Example" not in paragraph else paragraph.splitlines()[1:]:
            assert _words(line) in page
    for option in context.command.get_params(context):
        if isinstance(option, click.Option):
            names, text = option.get_help_record(context) or ("", "")
            assert all(_words(each) in page for each in (*names.split(", "), text))


def test_the_reference_has_every_key_of_the_schema() -> None:
    shown = set(re.findall(r"^\| `([^`]+)` \|", PAGES["reference.md"], re.MULTILINE))
    schema = json_schema()
    names = {key for shape in (schema, *schema["$defs"].values()) for key in shape["properties"]}
    sections = set(re.findall(r"^## (\S+)$", PAGES["reference.md"], re.MULTILINE))
    assert names - {part for key in shown for part in re.split(r"\.|\[\]", key)} - sections == set()


def test_a_new_key_and_a_changed_default_change_the_reference() -> None:
    key = {"type": "integer", "minimum": 1, "maximum": 9, "default": 3, "description": "Why."}
    shape: dict[str, Json] = {"properties": {"a": key}}
    section = {"additionalProperties": {"$ref": "#/$defs/Shape"}, "description": "Things."}
    schema = {"$defs": {"Shape": shape}, "properties": {"things": section}}
    assert "## things\n\nThings.\n" in page_of(schema)
    assert "| `a` | whole number, 1 to 9 | `3` | Why. |" in page_of(schema)
    shape["required"] = ["a"]
    assert "| `a` | whole number, 1 to 9 | required | Why. |" in page_of(schema)


def test_the_catalogue_has_every_exit_code_and_every_golden_text() -> None:
    page = PAGES["errors.md"]
    assert all(re.search(rf"^\| {int(code)} \|", page, re.MULTILINE) for code in ExitCode)
    texts = [path.read_text() for path in sorted(errors.GOLDEN.glob("*.txt"))]
    found = sum(len(errors.FINDING.findall(text)) for text in texts)
    assert found == sum(len(re.findall(r"^(?:error|warning): ", text, re.MULTILINE)) for text in texts)
    assert "| unknown key `slot` | Did you mean `slots`? | `options: {slot: 2}` |" in page


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed (pip install -e .[docs])"
)
def test_the_site_is_built_and_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    built = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.html")} - {"404.html"}
    assert built == {str(path.relative_to(DOCS).with_suffix(".html")) for path in DOCS.rglob("*.md")}
    assert {p.name: found for p in tmp_path.rglob("*.html") if (found := _FOREIGN.findall(p.read_text()))} == {}
    assert 'href="commands/promote.html"' in (tmp_path / "index.html").read_text()
