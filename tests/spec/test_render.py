"""Findings as plain text, and the masking of secrets in snippets."""

from __future__ import annotations

import pytest

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, Severity, SourceRange, render_plain
from llmctl.spec.source import Source


def test_the_layout() -> None:
    where = SourceRange("llmops.yaml", 31, 5, 10, "    modle: support-tiny")
    finding = Diagnostic("unknown key `modle`", where=where, hint="did you mean `model`?")
    assert render_plain(finding) == (
        "error: unknown key `modle`\n"
        "  --> llmops.yaml:31:5\n"
        "   |\n"
        "31 |     modle: support-tiny\n"
        "   |     ^^^^^\n"
        "   = help: did you mean `model`?\n"
    )


def test_without_a_place_the_address_says_where() -> None:
    finding = Diagnostic("x", Severity.WARNING, address=Address("route", "r"), detail="one\ntwo")
    assert render_plain(finding) == "warning: x\n --> route.r\n  = note: one\n    two\n"
    assert render_plain(Diagnostic("x")) == "error: x\n"


def test_text_of_the_file_cannot_steer_a_terminal() -> None:
    where = SourceRange("f", 1, 3, 5, "a\t\x1b[31m\u202eb")
    text = render_plain(Diagnostic("bad \x1b[2J", where=where, hint="h\x07"))
    assert not {"\x1b", "\u202e", "\x07", "\t"} & set(text)
    assert "1 | a �[31m�b" in text


def test_a_long_line_is_cut_around_the_place() -> None:
    where = SourceRange("f", 7, 5001, 5004, "x" * 5000 + "BAD" + "y" * 5000)
    lines = render_plain(Diagnostic("s", where=where)).splitlines()
    assert all(len(line) < 200 for line in lines)
    marks, shown = lines[4], lines[3]
    assert shown[marks.index("^") : marks.rindex("^") + 1] == "BAD"


@pytest.mark.parametrize(
    "text",
    [
        "api_key: CANARY",
        "  apiKey : 'CANARY'",
        '{a: b, "api-key": "CANARY, x", c: d}',
        "client_secret: CANARY # why",
        "password: CANARY: x",
        "url: https://user:CANARY@host/",
        "url: https://CANARY@host/",
        "token:\n  CANARY",
        "api_key: |\n  CANARY",
        "api_key: ${env:X}CANARY",
        "api_key: a,CANARY}CANARY",
        "{x: {y: z}, api_key: ${env:X}CANARY, token: 'CANARY', password: CANARY}",
        "api_key: 'a' CANARY",
    ],
)
def test_secrets_are_masked_even_where_nothing_parses(text: str) -> None:
    source = Source("f", text)
    shown = "\n".join(source.snippet(line + 1) for line in range(source.line_count))
    assert "CANARY" not in shown
    assert len(shown) == len(text)


@pytest.mark.parametrize("text", ["max_tokens: 96", 'api_key: "${env:NAME}"', "{api_key: ${env:N}, a: b}", "a: token"])
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert Source("f", text).snippet(1) == text
