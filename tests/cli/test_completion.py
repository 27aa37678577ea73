"""Completion in real shells: commands, options, and names from the file; never an error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from llmctl.cli import COMMANDS, cli, completing
from tests.cli.conftest import InProcess
from tests.cli.project import DEADLINE_S, Project

#: words before the key press: what is offered (in any order), "…" for more
OFFERED = {
    "": [*COMMANDS],
    "va": ["validate"],
    "plan --det": ["--detailed-exitcode"],
    "plan -e ": ["dev", "test"],
    "plan -e t": ["test"],
    "plan --env ": ["dev", "test"],
    "plan -f nothing.yaml -e ": [],
    "plan --explain mo": ["model.support-tiny"],
    "apply --target route.": ["route.support"],
    "gate run ": ["faq"],
    "policy explain ": ["open-licence"],
    "promote dev ": ["dev", "test"],
    "chat ": ["support"],
    "chat -f ../odd.yaml ": ["a-b", "c"],
    "logs en": ["endpoint.support"],
    "audit v": ["verify"],
    "completion ": ["bash", "zsh", "fish"],
}
_BASH = """
eval "$(llmctl completion bash)"
COMP_WORDS=($WORDS) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
case "$WORDS" in *" ") COMP_WORDS+=(""); COMP_CWORD=$((COMP_CWORD + 1));; esac
_llmctl_completion llmctl "${COMP_WORDS[COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def shelled(project: Project, tmp_path: Path) -> Project:
    """A project with two environments, a second file, and ``llmctl`` on the PATH."""
    project.replace("dev: {target: local}", "dev: {target: local}\n  test: {target: local}")
    (project.root / "../odd.yaml").write_text("routes: {a-b: 1, 'c': [}\n".replace("[}", "[]}"))
    program = tmp_path / "bin/llmctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m llmctl "$@"\n')
    program.chmod(0o755)
    project.env |= {"PATH": f"{program.parent}:{project.env['PATH']}", "TERM": "dumb"}
    return project


def _shell(project: Project, name: str, *arguments: str, words: str = "") -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run(
        [name, *arguments],
        cwd=project.root,
        env={**project.env, "WORDS": words},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("words", OFFERED)
def test_bash(shelled: Project, words: str) -> None:
    out = _shell(shelled, "bash", "--norc", "--noprofile", "-c", _BASH, words=f"llmctl {words}")
    assert sorted(out.split()) == sorted(OFFERED[words])


def test_fish(shelled: Project) -> None:
    script = "llmctl completion fish | source; complete -C 'llmctl va'; complete -C 'llmctl plan -e '"
    out = _shell(shelled, "fish", "--no-config", "-c", script)
    assert [line.split("\t")[0] for line in out.splitlines()] == ["validate", "dev", "test"]


def test_zsh(shelled: Project) -> None:
    """What the function hands to zsh's own: without a key press there is no list to look at."""
    script = (
        "autoload -U compinit && compinit -D -u\n"
        'eval "$(llmctl completion zsh)"\n'
        "compadd() { print -l $completions; }; _describe() { print -l $completions_with_descriptions; }\n"
        'words=(llmctl plan -e ""); CURRENT=4; _llmctl_completion\n'
        "words=(llmctl va); CURRENT=2; _llmctl_completion\n"
        "print $_comps[llmctl]\n"
    )
    out = _shell(shelled, "zsh", "-f", "-c", script)
    assert out.split("\n") == ["dev", "test", f"validate:{COMMANDS['validate'][1]}", "_llmctl_completion", ""]


@pytest.mark.parametrize(
    "text",
    [None, "", "routes: [", "routes: {a: 1", "\x00", "- a", "routes: 5", "routes: {a: &x [*x]}", "a: 1\n" * 200_000],
)
def test_a_file_that_cannot_be_read_offers_nothing(
    project: Project, text: str | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.root)
    project.file.unlink() if text is None else project.file.write_text(text)
    context = click.Context(cli)
    found = [
        function(context, click.Option(["-x"]), "")
        for function in (completing.environments, completing.routes, completing.gates, completing.policies)
    ]
    assert found == [[], [], [], []] or (text or "").startswith("routes: {a")
    assert capfd.readouterr() == ("", "")


def test_addresses_and_rules(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    context, option = click.Context(cli), click.Option(["-x"])
    assert completing.addresses(context, option, "model") == ["model.support-tiny"]
    assert len(completing.addresses(context, option, "")) == 8
    assert completing.gates(context, option, "") == ["faq"]
    assert completing.policies(context, option, "open") == ["open-licence"]


def test_names_of_included_files(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root / "data")
    (project.root / "more").mkdir()
    (project.root / "more/a.yaml").write_text("routes: {sales: {}}\n")
    project.replace("apiVersion", "include: more/*.yaml\napiVersion")
    context, option = click.Context(cli), click.Option(["-x"])
    assert completing.routes(context, option, "") == ["support", "sales"]
    (project.root / "more/b.yaml").write_text("# " + "x" * 600_000)
    assert completing.routes(context, option, "") == []


def test_a_shell_that_is_not_known(here: InProcess) -> None:
    done = here("completion", "tcsh")
    assert (done.code, "is not one of" in done.err) == (1, True)
