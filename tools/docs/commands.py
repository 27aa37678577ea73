"""A page a command, from what ``--help`` says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from llmctl.cli import COMMANDS, cli
from tools.docs.markdown import block, code, page, prose, table

_GENERATED = "<!-- Generated from `llmctl --help` by `make docs-pages`. -->"
_AS_IT_STANDS = "\b\n"  # click's mark of a paragraph that is not wrapped
_EXAMPLES = re.compile(r"Examples?:\n")


def pages() -> dict[str, str]:
    """The page of each command and the list of them, by path."""
    root = click.Context(cli, info_name="llmctl")
    found = {f"commands/{name}.md": _page(root, name) for name in COMMANDS}
    return {"commands/index.md": _index(), **found}


def _index() -> str:
    rows = [(f"[`llmctl {name}`]({name}.md)", text) for name, (_, text) in COMMANDS.items()]
    return page(
        "# Commands",
        _GENERATED,
        "`llmctl COMMAND --help` shows the same. Exit codes stand in [Errors](../errors.md#exit-codes).",
        table(("command", "does"), rows),
    )


def _page(root: click.Context, name: str) -> str:
    command = cli.get_command(root, name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=root)
    parts = [f"# llmctl {name}", _GENERATED, *_described(context, 2)]
    if isinstance(command, click.Group):
        rows = [
            (f"[`{inner}`](#llmctl-{name}-{inner})", each.get_short_help_str(200))
            for inner, each in command.commands.items()
        ]
        parts += ["## Commands", table(("command", "does"), rows)]
        for inner, each in command.commands.items():
            below = click.Context(each, info_name=inner, parent=context)
            parts += [f"## llmctl {name} {inner}", *_described(below, 3)]
    return page(*parts)


def _described(context: click.Context, level: int) -> Iterator[str]:
    """What stands below a command's heading."""
    command, marks = context.command, "#" * level
    examples = ""
    paragraphs = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        as_it_stands = paragraph.startswith(_AS_IT_STANDS)
        text = paragraph.removeprefix(_AS_IT_STANDS)
        if _EXAMPLES.match(text):
            examples = inspect.cleandoc(_EXAMPLES.sub("", text, count=1))
        else:
            paragraphs.append(block(text, "text") if as_it_stands else prose(text))
    yield from paragraphs
    yield block(" ".join((context.command_path, *command.collect_usage_pieces(context))), "text")
    if examples:
        yield f"{marks} Examples"
        yield block(examples, "sh")
    rows = [_row(option, context) for option in command.get_params(context) if isinstance(option, click.Option)]
    yield f"{marks} Options"
    yield table(("option", "variable", "meaning"), rows)


def _row(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    record = option.get_help_record(context)
    assert record is not None
    names = ", ".join(code(name) for name in record[0].split(", "))
    variable = code(option.envvar) if isinstance(option.envvar, str) else "–"
    return names, variable, prose(record[1])
