"""Links lead somewhere, and commands that are named exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from llmctl.cli import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md", "examples/training/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
_COMMENT = re.compile(r"(?m)(?:^|\s)#.*$")
_COMMAND = re.compile(r"(?<![-./\w])llmctl ([a-z]+)(?: ([a-z]+))?")


def _anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _missing(document: Path, text: str) -> list[str]:
    """The links of a text that lead nowhere."""
    missing = []
    for link in _LINK.findall(text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.is_relative_to(ROOT) or not target.exists() or (anchor and anchor not in _anchors(target)):
            missing.append(link)
    return missing


def _unknown(text: str) -> list[str]:
    """The commands in code that llmctl does not have."""
    unknown = []
    context = click.Context(cli)
    code = _COMMENT.sub("", "\n".join(_CODE.findall(text)))
    for first, second in _COMMAND.findall(code):
        command = cli.get_command(context, first)
        if command is None:
            unknown.append(first)
        elif isinstance(command, click.Group) and second and command.get_command(context, second) is None:
            unknown.append(f"{first} {second}")
    return unknown


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    assert _missing(document, document.read_text()) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(document: Path) -> None:
    assert _unknown(document.read_text()) == []


def test_a_link_that_leads_nowhere_is_found() -> None:
    text = "[a](nothing.md) [b](README.md#no-such-heading) [c](README.md#install) [d](https://example.invalid)"
    assert _missing(ROOT / "README.md", text) == ["nothing.md", "README.md#no-such-heading"]


def test_a_command_that_does_not_exist_is_found() -> None:
    assert _unknown("`llmctl conquer`, `llmctl audit forge`, `llmctl audit log`, llmctl is") == [
        "conquer",
        "audit forge",
    ]
