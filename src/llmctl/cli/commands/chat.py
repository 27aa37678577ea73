"""``llmctl chat``"""

from __future__ import annotations

import sys

import click

from llmctl.cli.completing import routes
from llmctl.cli.options import project_options


@click.command("chat", short_help="Ask a route, and see which revision answers.")
@click.argument("route", shell_complete=routes)
@click.argument("text", required=False)
@project_options
@click.option(
    "--var", "variables", metavar="NAME=VALUE", multiple=True, help="A prompt variable; TEXT fills the last one."
)
def command(route: str, text: str | None, file: str | None, environment: str | None, variables: tuple[str, ...]) -> int:
    """Ask a route, and see which revision answers.

    TEXT fills the prompt's variable. Without TEXT the questions are read line by line: from you on a
    terminal (Ctrl-D ends), otherwise from standard input. The answer goes to stdout, the revision to
    stderr.

    \b
    Examples:
      llmctl chat support "How long does shipping take?"
      echo "Can I return shoes?" | llmctl chat support
    """
    from llmctl.app.chat import conversation
    from llmctl.app.workspace import open_workspace

    given = {}
    for item in variables:
        name, equals, value = item.partition("=")
        if not equals:
            raise click.BadParameter(f"{item!r} has another form; write NAME=VALUE", param_hint="--var")
        given[name] = value
    talk = conversation(open_workspace(file, environment), route)
    if text is not None and not text.strip():
        raise click.BadParameter("it is empty; ask something", param_hint="TEXT")
    for question in [text] if text is not None else _questions(route):
        if not question.strip():
            continue
        answer = talk.ask(question, dict(given))
        for part in answer.parts:
            click.echo(part, nl=False)
            sys.stdout.flush()
        click.echo()
        click.echo(click.style(f"— {route}@{answer.revision[:8]} on {_short(answer.endpoint)}", dim=True), err=True)
    return 0


def _questions(route: str) -> list[str] | _Asked:
    if sys.stdin.isatty():
        return _Asked(route)
    return sys.stdin.read().splitlines()


class _Asked:
    """Questions typed at a prompt, until Ctrl-D or Ctrl-C."""

    def __init__(self, route: str) -> None:
        self.route = route

    def __iter__(self) -> _Asked:
        return self

    def __next__(self) -> str:
        try:
            return input(f"{self.route}> ")
        except (EOFError, KeyboardInterrupt):
            click.echo()
            raise StopIteration from None


def _short(key: str) -> str:
    name, _, revision = key.partition("@")
    return f"{name}@{revision[:8]}"
