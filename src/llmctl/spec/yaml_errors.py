"""What libyaml says about a syntax error, in the words of people who do not know libyaml."""

from __future__ import annotations

from typing import Any

from ruamel.yaml.error import MarkedYAMLError, YAMLError

from llmctl.core.diagnostics import Diagnostic
from llmctl.spec.source import Source

#: libyaml's problem: (where to point: "here" or "start" of the construct, summary, hint)
_PLAIN: dict[str, tuple[str, str, str]] = {
    "mapping values are not allowed in this context": (
        "here",
        "a `:` cannot stand here",
        "Put the value in quotes if it contains `: `, and check that the line is indented like its neighbours.",
    ),
    "could not find expected ':'": (
        "start",
        "this key has no `:`",
        "Write `key: value`, and put text that goes over several lines in quotes.",
    ),
    "did not find expected key": (
        "here",
        "a key was expected here",
        "Check that the line is indented like its neighbours, and that quotes are closed.",
    ),
    "did not find expected '-' indicator": (
        "here",
        "a list item was expected here",
        "Start it with `- `, indented like the items before it.",
    ),
    "did not find expected ',' or ']'": (
        "start",
        "this list is not closed, or a comma is missing in it",
        "Separate the items with `,` and close the list with `]`.",
    ),
    "did not find expected ',' or '}'": (
        "start",
        "this map is not closed, or a comma is missing in it",
        "Separate the keys with `,`, close the map with `}`, and put text that contains braces in quotes.",
    ),
    "found unexpected ':'": (
        "here",
        "text with a `:` must be in quotes here",
        "Put the whole value in quotes; inside of `{…}` and `[…]` a `:` ends a key.",
    ),
    "found unexpected end of stream": ("start", "this text in quotes is not closed", "Add the closing quote."),
    "found unknown escape character": (
        "here",
        "this escape is not known",
        "Use single quotes for text with backslashes, or write `\\\\`.",
    ),
    "did not find expected node content": (
        "here",
        "a value was expected here",
        "Check the commas and brackets before this place.",
    ),
    "did not find expected <document start>": (
        "here",
        "the file should end here, or the lines above are not a map",
        "Check that the line is indented like its neighbours.",
    ),
}


def syntax_error(source: Source, error: YAMLError) -> Diagnostic:
    """The finding for an error that the parser raised."""
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return Diagnostic("this is not valid YAML", where=source.range(1, 1), hint="Check that the file is plain text.")
    line, column = error.problem_mark.line + 1, error.problem_mark.column + 1
    start: Any = error.context_mark or error.problem_mark
    problem = str(error.problem)
    if finding := _tab(source, line):
        return finding
    if problem == "found character that cannot start any token":
        snippet = source.snippet(line)
        character = snippet[column - 1 : column]
        return Diagnostic(
            f"a value cannot start with `{character}`",
            where=source.range(line, column, line, column + 1),
            hint="Put the value in quotes.",
        )
    place, summary, hint = _PLAIN.get(
        problem, ("here", f"this is not valid YAML: {problem}", "Put text with special characters in quotes.")
    )
    if place == "start":
        return Diagnostic(summary, where=source.range(start.line + 1, start.column + 1), hint=hint)
    return Diagnostic(summary, where=source.range(line, column), hint=hint)


def _tab(source: Source, line: int) -> Diagnostic | None:
    """A tab in the indentation of that line or of the one before is the cause, whatever the parser says."""
    for number in (line, line - 1):
        snippet = source.snippet(number)
        indent = snippet[: len(snippet) - len(snippet.lstrip())]
        if "\t" in indent:
            column = indent.index("\t") + 1
            where = source.range(number, column, number, column + 1)
            return Diagnostic("a tab cannot indent a line", where=where, hint="Indent with spaces.")
    return None
