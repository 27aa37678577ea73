"""The help: complete, readable in 80 columns, and cheap; and what is said of a wrong command line."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from llmctl.cli import COMMANDS, cli
from tests.cli.conftest import InProcess
from tests.cli.project import SOURCE, Project

HEAVY = ("pydantic", "git", "aiohttp", "scipy", "rich", "jinja2", "ruamel", "psutil", "importlib.metadata")


def _command(*words: str) -> click.Command:
    command: click.Command | None = cli
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None
    return command


def _all() -> list[tuple[str, ...]]:
    """Every command and every command of a group."""
    found: list[tuple[str, ...]] = [()]
    for name in COMMANDS:
        command = _command(name)
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, inner) for inner in command.commands]
    return found


@pytest.mark.parametrize("words", _all(), ids=" ".join)
def test_every_help_has_an_example_and_fits_80_columns(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli, [*words, "--help"], terminal_width=80)
    assert shown.exit_code == 0
    assert [line for line in shown.output.splitlines() if len(line) > 80] == []
    assert re.search(rf"Examples?:\n(.*\n)*? +.*{' '.join(('llmctl', *words))}", shown.output)
    assert "..." not in shown.output.replace("[ARGS]...", "")  # no line of a command list is cut


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    module, text = COMMANDS[name]
    command = _command(name)
    assert (module.rstrip("_"), command.name, command.short_help) == (name, name, text)  # `import` is a keyword
    assert (command.help or "").startswith(text.rstrip(".").split(":")[0].split(",")[0])


def test_the_help_of_the_tool_lists_every_command() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output
    for name, (_, text) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(text)}$", shown, re.MULTILINE)


def test_the_help_imports_almost_nothing() -> None:
    program = (
        "import sys; sys.argv = ['llmctl', '--help']\n"
        "from llmctl.cli import main\n"
        "try: main()\n"
        "except SystemExit: print('MODULES', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True
    )
    loaded = done.stdout.partition("MODULES")[2].split()
    assert [m for m in loaded if m in HEAVY] == []
    ours = {m for m in loaded if m.startswith("llmctl.")}
    allowed = {"llmctl.cli", "llmctl.cli.errors", "llmctl.core", "llmctl.core.diagnostics", "llmctl.core.address"}
    assert ours <= allowed | {"llmctl.core.errors", "llmctl.core.exits"}


#: command line: what is said
WRONG = {
    "plann": "there is no command 'plann'\n  = help: Did you mean `llmctl plan`?",
    "xyzzy": "there is no command 'xyzzy'\n  = help: `llmctl --help` shows what there is.",
    "plan --jsn": "no such option '--jsn'",
    "plan extra.json": "extra.json cannot be shown: No such file or directory",
    "plan llmops.yaml": "llmops.yaml cannot be shown: it is not a plan",
    "plan one.json two.json": "got unexpected extra argument (two.json)",
    "plan one.json --offline": "--offline is for making a plan, and FILE shows a saved one",
    "plan one.json -f llmops.yaml": "--file is for making a plan, and FILE shows a saved one",
    "plan --json --markdown": "--json and --markdown exclude each other",
    "plan --explain route.support --markdown": "--explain and --markdown exclude each other",
    "plan --offline --explain support": "'support' is not an address; write kind.name",
    "plan --offline --explain route.nothing": "the plan knows nothing of route.nothing",
    "plan --offline --explain route.suport": "did you mean `route.support`",
    "plan --offline --out llmops.yaml": "llmops.yaml exists and is no saved plan; it is not replaced\n  = help: Choose",
    "plan --offline --out data/faq_eval.jsonl": "data/faq_eval.jsonl exists and is no saved plan",
    "plan --offline --out no/p.json": "no/p.json cannot be written: No such file or directory\n  = help: Make its",
    "promote dev staging -e dev": "no such option '-e'",
    "plan --offline --target route.suport": "there is no resource 'route.suport'",
    "plan --offline --base nothing": "nothing",
    "plan -e": "option '-e' requires an argument",
    "plan -f": "option '-f' requires an argument",
    "plan -e prod": "there is no environment 'prod'\n  --> llmops.yaml:14:1",
    "plan -f nothing.yaml": "'nothing.yaml' does not exist or is not a file",
    "plan -f data": "'data' is a folder",
    "apply --parallelism 0": "invalid value for '--parallelism'",
    "apply --yes nothing.json": "nothing.json cannot be applied: No such file or directory",
    "apply --yes llmops.yaml": "llmops.yaml cannot be applied: it is not a plan",
    "audit lgo": "no such command 'lgo'",
    "audit show zero": "invalid value for 'SERIAL'",
    "audit log": "no environment has a record in this repository",
    "chat": "missing argument 'ROUTE'",
    "chat support Hello": "nothing is applied yet in this environment",
    "unreject 3fa9": "missing option '--reason'",
    "unreject 3fa9 --reason why": "'3fa9' is not rejected",
    "rollback --yes": "nothing is applied yet",
    "rollback --yes --to 7": "serial 7 is not in the record of dev",
    "local stop": "nothing is applied here yet",
    "apply --json": "--json does not ask",
    "apply --yes one.json --target route.support": "a saved plan is applied as it is, --target cannot narrow it",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_line_exits_1_and_says_what_to_do(here: InProcess, line: str) -> None:
    """Never 2, which means that there are changes."""
    done = here(*line.split())
    said = done.err
    if "--json" in line:
        errors = done.json()["errors"]
        said = "error: " + errors[0]["summary"]
    assert done.code == 1
    assert WRONG[line] in said
    assert said.startswith("error: ")
    assert "Usage:" not in said


def test_only_a_plan_or_an_empty_file_is_replaced_by_a_plan(project: Project, here: InProcess) -> None:
    before = project.file.read_bytes()
    assert here("plan", "--offline", "--out", "llmops.yaml").code == 1
    assert project.file.read_bytes() == before
    out = project.root / "plan.json"
    out.touch()
    for _ in range(2):
        assert here("plan", "--offline", "--out", "plan.json").code == 0
    assert '"steps"' in out.read_text()
    out.write_text('["a list"]')
    assert here("plan", "--offline", "--out", "plan.json").code == 1


def test_wrong_options_are_json_with_json(here: InProcess) -> None:
    shown = here("plan", "--json", "--offlin").json()
    assert (shown["format"], shown["exit_code"]) == (1, 1)
    assert shown["errors"][0]["summary"] == "no such option '--offlin'"


def test_several_environments_need_one_to_be_named(project: Project, here: InProcess) -> None:
    project.replace("dev: {target: local}", "dev: {target: local}\n  test: {target: local}")
    done = here("plan")
    assert done.code == 1
    assert "the file has several environments, and none was chosen" in done.err
    assert "Pass -e with one of: dev, test." in done.err
    assert here("plan", "--offline", "-e", "test").code == 0

    out = str(project.root / "a plan.json")
    saved = here("plan", "-e", "test", "--out", out).out
    assert f"Saved to {out}; apply it with `llmctl apply '{out}' -e test`." in saved
    offline = here("plan", "-e", "test", "--out", out, "--offline").out
    assert f"Saved to {out}; it cannot be applied, for it is offline." in offline


def test_without_arguments_the_help_is_shown(here: InProcess) -> None:
    done = here()
    assert done.code == 1
    assert "Commands:" in done.err
