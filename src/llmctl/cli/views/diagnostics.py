"""Diagnostics on a terminal: the plain rendering of core with colour."""

from __future__ import annotations

from collections.abc import Iterable

import click

from llmctl.core.diagnostics import Diagnostic, render_plain


def render(diagnostics: Iterable[Diagnostic]) -> str:
    """All of them, a blank line between; colours vanish where the output is no terminal."""
    return "\n\n".join(_coloured(d).rstrip("\n") for d in diagnostics)


def _coloured(diagnostic: Diagnostic) -> str:
    word = diagnostic.severity.value
    text = render_plain(diagnostic)
    if not text.startswith(f"{word}:"):
        return text
    color = "red" if diagnostic.is_error else "yellow"
    return click.style(f"{word}:", fg=color, bold=True) + text[len(word) + 1 :]
