"""The command line: parse flags, call one use case, render it, exit.

Start-up is a feature: this module imports click and nothing else of weight. A command's module is
imported when the command runs, and the help of the whole tool comes from the table below.
"""

from __future__ import annotations

import gc
import importlib
import io
import os
import resource
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from llmctl import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

#: name: (module with a click command called `command`, one line for `llmctl --help`)
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("init", "Start a project: a small application that works."),
    "doctor": ("doctor", "Check this machine and the project, and name what to do."),
    "validate": ("validate", "Check llmops.yaml and every file that it refers to."),
    "schema": ("schema", "Print the JSON Schema of llmops.yaml, for editors."),
    "plan": ("plan", "Show what would change, why, and which gates would prove it."),
    "apply": ("apply", "Make it so: provision, prove, shift traffic, record."),
    "approve": ("approve", "Sign a saved plan, so that others may apply it."),
    "destroy": ("destroy", "Take away everything of an environment; the record stays."),
    "drift": ("drift", "Compare what runs with what was recorded."),
    "status": ("status", "Show what serves now."),
    "logs": ("logs", "Show the logs of engines and gateway."),
    "local": ("local", "Start or stop the processes of a local environment."),
    "chat": ("chat", "Ask a route, and see which revision answers."),
    "rollback": ("rollback", "Go back to an earlier entry of the record, without a gate run."),
    "unreject": ("unreject", "Allow a revision again that a rollback left behind."),
    "state": ("state", "Look at what is recorded, and have the record forget something."),
    "import": ("import_", "Take into the record what runs and was never recorded."),
    "gc": ("gc", "Clear away what no record needs any more, after showing it."),
    "unlock": ("unlock", "End the lock of a command that hangs."),
    "audit": ("audit", "Read, export and verify the record of what was applied."),
    "gate": ("gate", "Run gates by hand; nothing is recorded."),
    "policy": ("policy", "List, explain and test the policies of llmops.yaml."),
    "promote": ("promote", "Apply to one environment what has passed in another."),
    "completion": ("completion", "Print the script that completes llmctl in your shell."),
}

#: Commands that the design names and this version does not serve.
NOT_YET = frozenset(
    (
        *("review", "dataset", "rollout"),
        *("keys", "observe", "lineage", "report"),
    )
)

_EXAMPLES = """\b
Examples:
  llmctl validate                    is the file right?
  llmctl plan                        what would change?
  llmctl apply                       do it, after a question
  llmctl chat support "How long does shipping take?"
  llmctl audit log                   who changed what, when, proven by what
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"llmctl.cli.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        from click.shell_completion import CompletionItem

        commands = [
            CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if ctx.resilient_parsing:  # a shell completes: nothing is said of a wrong command line
            return super().resolve_command(ctx, args)
        if name in NOT_YET:
            raise click.UsageError(f"`llmctl {name}` is not served yet.", ctx)
        if name and not name.startswith("-") and name not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" Did you mean `llmctl {near[0]}`?" if near else ""
            raise click.UsageError(f"There is no command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXAMPLES,
)
@click.version_option(__version__, prog_name="llmctl", message="%(prog)s %(version)s")
def cli() -> None:
    """Plan and apply for a whole LLM application, recorded in git.

    One llmops.yaml declares datasets, models, prompts, endpoints, routes, gates and policies.
    """


def _take_names_for_utf8() -> None:
    """Start anew where Python takes names of files for ASCII (``LC_ALL=C`` and ``PYTHONUTF8=0``): a project in a
    folder with an umlaut could not be recorded."""
    if sys.getfilesystemencoding() == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})


def _leave_no_core_dump() -> None:
    """It would hold every secret of the environment, in whatever folder the process dies; the gateway's its keys.

    What is started inherits it. The hard limit stays, so that `prlimit --core` can give it back to one process.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def main() -> NoReturn:
    """Entry point: runs the command and exits with a code of DESIGN section 5."""
    _take_names_for_utf8()
    _leave_no_core_dump()
    # Short-lived and allocation-heavy: collecting garbage early costs more than the memory it saves.
    gc.set_threshold(5_000_000, 50, 50)
    from llmctl.cli.errors import exit_code_of

    # A terminal that cannot show a sign gets what stands for it, or `?`, and not a traceback.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() not in ("utf-8", "utf8"):
            from llmctl.cli.views.signs import FALLBACK

            stream.reconfigure(errors=FALLBACK)
        elif isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")
    if sys.stderr is not None and sys.stderr.isatty():
        from llmctl.cli.views.reading import told
        from llmctl.core.watch import WATCH

        WATCH.set(told)
    try:
        result = cli.main(prog_name="llmctl", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except BaseException as error:  # noqa: BLE001 - the one place where every failure becomes an exit code
        try:
            code = exit_code_of(error, sys.argv[1:])
        except OSError:  # a full disk or a closed pipe: it cannot be said either
            code = 1
    try:
        if sys.stdout is not None:  # it was closed by whoever started us
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 1
    gc.freeze()  # the interpreter collects garbage once more when it ends: 30 ms for memory that goes away anyway
    sys.exit(code)
