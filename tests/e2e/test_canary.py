"""Every command, when all is well and when it is not, with a canary in every place where a secret may stand.

What is searched after each is in ``planted.py``: outputs, the project with its journals, plans, logs and objects of
git, the remote, temporary files also when they are gone by now, and the arguments of all processes.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import psutil
import pytest

from llmctl.cli import COMMANDS
from llmctl.cli.errors import exit_code_of
from tests import canary
from tests.e2e.planted import BASIC, KEY, PASSPHRASE, PASSWORD, WRONG_KEY, Planted
from tests.e2e.project import REPOSITORY, SYSTEM, wait_until
from tests.plugins.packages import EXAMPLE_SOURCE, install

pytestmark = pytest.mark.e2e
SILENT = ("HOSTED_KEY", *canary.PLANTED)

#: In this order; ``{engine}`` and ``{rejected}`` are told by what the commands before have left.
WELL: tuple[tuple[str, ...], ...] = (
    ("init", "{tmp}/fresh"),
    ("doctor", "--json"),
    ("validate", "--json"),
    ("schema",),
    ("completion", "bash"),
    ("plan", "--json"),
    ("plan", "--markdown"),
    ("plan", "--explain", "route.support"),
    ("promote", "dev", "staging", "--yes"),
    ("edit", "Be brief."),
    ("plan", "--out", "plan.json"),
    ("plan", "plan.json"),
    ("approve", "plan.json", "--yes"),
    ("apply", "plan.json", "--yes", "--json"),
    ("rollback", "--yes", "--reason", "a test"),
    ("unreject", "{rejected}", "--reason", "a test"),
    ("status",),
    ("status", "--json"),
    ("chat", "support", "Hello?"),
    ("gate", "run", "--json"),
    ("logs", "-n", "100"),
    ("policy", "list"),
    ("policy", "explain", "open-licence"),
    ("policy", "waivers"),
    ("policy", "test", "cases.yaml"),
    ("state", "list"),
    ("state", "show", "endpoint.backup", "--json"),
    ("state", "rm", "endpoint.support", "--yes", "--reason", "a test"),
    ("import", "endpoint.support", "{engine}"),
    ("drift", "--json"),
    ("gc", "--dry-run"),
    ("gc", "--yes"),
    ("unlock",),
    ("local", "stop"),
    ("local", "start"),
    ("audit", "log", "--json"),
    ("audit", "show", "1"),
    ("audit", "diff", "1", "2"),
    ("audit", "blame", "endpoint.backup"),
    ("audit", "export", "--format", "csv", "--out", "{tmp}/audit.csv"),
    ("audit", "export", "--format", "json", "--out", "{tmp}/audit.json"),
    ("audit", "export", "--format", "html", "--out", "{tmp}/audit.html"),
    ("audit", "verify"),
    ("destroy", "--yes", "-e", "staging"),
)

#: While the key is refused, the remote refuses too, and nothing can be signed.
ILL: tuple[tuple[str, ...], ...] = (
    ("init", "."),
    ("doctor",),
    ("validate", "-e", "nowhere"),
    ("schema", "nonsense"),
    ("completion", "tcsh"),
    ("plan",),
    ("plan", "--json"),
    ("plan", "--offline", "--markdown"),
    ("apply", "--yes", "--json"),
    ("approve", "plan.json", "--yes"),
    ("promote", "dev", "staging", "--yes", "--from-record", "{remote}"),
    ("rollback", "--yes"),
    ("unreject", "3fa9", "--reason", "a test"),
    ("status", "--json"),
    ("chat", "support", "Hello?"),
    ("gate", "run"),
    ("logs", "-n", "100"),
    ("policy", "explain", "nothing"),
    ("state", "rm", "endpoint.backup", "--yes", "--reason", "a test"),
    ("import", "endpoint.backup", "backup"),
    ("drift",),
    ("gc", "--yes"),
    ("unlock", "--force"),
    ("local", "start", "nonsense"),
    ("audit", "show", "99"),
    ("destroy", "--yes", "--json"),
)


@pytest.fixture(scope="module")
def planted() -> Iterator[Planted]:
    project = Planted.plant()
    try:
        project.apply()
        yield project
        project.destroy()
        project.searched("", "")
        assert not project.gate_tokens()
    finally:
        project.end()


@pytest.fixture
def well(planted: Planted) -> Iterator[Planted]:
    """The project, with everything in order again afterwards."""
    yield planted
    planted.api.mode, planted.site, planted.largest = "right", (), -1
    planted.variables["HOSTED_KEY"] = KEY
    (planted.kept / "passphrase").write_text(PASSPHRASE)
    if not planted.agent:
        planted.start_agent()
    planted.use_remote()
    planted.restore_file()
    planted.apply()


def test_every_command_is_among_them() -> None:
    def paths(command: click.Command, name: str) -> set[str]:
        if not isinstance(command, click.Group):
            return {name}
        return {path for each in command.commands for path in paths(command.commands[each], f"{name} {each}")}

    modules = {name: importlib.import_module(f"llmctl.cli.commands.{module}") for name, (module, _) in COMMANDS.items()}
    all_of_them = {path for name, module in modules.items() for path in paths(module.command, name)}
    done = {" ".join(words[:2]) for words in WELL} | {words[0] for words in WELL}
    assert all_of_them - done == set()
    assert COMMANDS.keys() - {words[0] for words in ILL} == set()


def test_what_is_gone_by_now_was_seen(well: Planted) -> None:
    code = "import os, sys, subprocess as s; s.run(['true', sys.stdin.read()]); os.remove('gone')"
    (well.temporary / "gone").write_text(f"…{KEY}…")
    before = (well.kept / "seen.log").read_text()
    path = {"PYTHONPATH": f"{well.kept / 'watch'}:{REPOSITORY}"}
    command, env = [sys.executable, "-c", code], well.environment() | path
    subprocess.run(command, input=KEY, text=True, check=True, cwd=well.temporary, env=env)
    assert f"true {KEY}" in well.witnessed("start")
    assert [Path(line).name for line in well.witnessed("file removed")] == ["gone"]
    with pytest.raises(AssertionError, match="the arguments of a process"):
        well.searched("", "")
    (well.kept / "seen.log").write_text(before)
    well.read.clear()
    well.searched("", "")


def test_when_all_is_well(well: Planted) -> None:
    token = {"Authorization": f"Bearer {canary.CANARY}-of-a-client"}
    assert well.ask(headers=token).endpoint.startswith("backup@")
    for words in WELL:
        if words[0] == "edit":
            well.edit(SYSTEM, f"{SYSTEM} {words[1]}")
        else:
            well.ok(*_filled(well, words))
    assert (well.temporary / "audit.html").stat().st_size > 0
    assert not (well.state("staging") / "gateway").exists()


def test_when_nothing_is_well(well: Planted) -> None:
    well.edit(SYSTEM, f"{SYSTEM} Be kind.")
    well.ok("plan", "--out", "plan.json")
    well.api.mode = "401"
    well.use_remote(f"http://tess:{PASSWORD}@{well.api.place}/acme.git")
    well.end_agent()
    (well.kept / "passphrase").write_text(f"{PASSPHRASE}, or not")
    codes = {words[0]: well.llmctl(*_filled(well, words)).code for words in ILL}
    assert {name for name, code in codes.items() if code == 0} <= {"doctor", "drift", "logs", "plan", "status"}
    (well.root / "plan.json").unlink()


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("400", "you gave Bearer ***"),
        ("401", "refuses the API key (HTTP 401)"),
        ("500", "answers HTTP 500"),
        ("noise", "what it answers is not HTTP (BadStatusLine)"),
    ],
)
def test_when_the_api_says_with_what_it_was_asked(well: Planted, mode: str, said: str) -> None:
    well.api.mode = mode
    assert well.ask().status == (400 if mode == "400" else 502)
    for words in (("status",), ("chat", "support", "Hello?"), ("gate", "run"), ("logs", "-n", "100")):
        well.llmctl(*words)
    well.edit("openai:some", "openai:other")
    refused = well.llmctl("apply", "--yes")
    assert (refused.code, said in refused.text) == (4 if mode == "400" else 1, True), refused.text
    assert well.ok("audit", "log", "--json", "-n", "1").json()["entries"][0]["outcome"] == "failed"


def test_a_client_is_shown_the_mask(well: Planted) -> None:
    well.api.mode = "400"
    reply = well.ask()
    assert (reply.status, reply.text) == (400, "you gave Bearer ***")


@pytest.mark.parametrize(
    ("key", "said"),
    [(WRONG_KEY, "refuses the API key"), (f"{KEY} \u2713", "does not hold an API key"), ("", "HOSTED_KEY is not set")],
    ids=["wrong", "no-header", "unset"],
)
def test_a_key_that_is_none(well: Planted, key: str, said: str) -> None:
    well.edit("openai:some", "openai:other")
    well.variables["HOSTED_KEY"] = key
    refused = well.llmctl("apply", "--yes", "--json")
    assert (refused.code, said in refused.text) == (1, True), refused.text


def test_what_a_remote_says_with_a_password_in_its_address(well: Planted) -> None:
    for place in (well.api.place, "127.0.0.1:1"):
        well.use_remote(f"http://tess:{PASSWORD}@{place}/acme.git")
        refused = well.llmctl("plan")
        assert (refused.code, "<address>" in refused.err) == (1, True), refused.text
        assert BASIC not in refused.text
    # git gives it to its own helper; that it is found there shows that such arguments are seen at all.
    assert any(PASSWORD in word for words in well.started_by_git() for word in words)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGINT])
def test_a_command_that_is_ended_in_the_middle(well: Planted, number: signal.Signals) -> None:
    well.edit(SYSTEM, f"{SYSTEM} Number {number.value}.")
    ended = well.run_out(str(number.value), "… gate:", "apply", "--yes", module="tests.e2e.interrupted")
    assert ended.code == (130 if number == signal.SIGINT else -number)
    assert ("Fatal Python error: Aborted" in ended.err) == (number == signal.SIGABRT)
    if number != signal.SIGINT:
        assert list((well.root / ".git/llmctl/dev").rglob("*.jsonl")), "the journal is left"
    well.ok("plan")


def test_a_gateway_that_dies_leaves_no_dump(well: Planted) -> None:
    gateway = well.census()["gateway"][0]
    os.kill(gateway, signal.SIGABRT)
    wait_until(lambda: well.ask().status == 200, "the gateway is back")
    assert well.census()["gateway"] != [gateway]
    well.ok("logs", "gateway")


def test_a_disk_that_is_full(well: Planted) -> None:
    well.edit(SYSTEM, f"{SYSTEM} The disk is full.")
    well.variables["GIT_TRACE2_EVENT"] = "0"  # it would be the first that finds no room
    well.largest = 600
    refused = well.run_out("apply", "--yes")
    well.variables["GIT_TRACE2_EVENT"] = str(well.git_log)
    assert refused.code == 1
    assert "File too large" in refused.err
    well.largest = -1
    well.ok("plan")


def test_a_key_that_cannot_sign(well: Planted) -> None:
    well.edit(SYSTEM, f"{SYSTEM} Signed.")
    well.end_agent()
    well.ok("apply", "--yes")  # askpass tells the passphrase
    (well.kept / "passphrase").write_text(f"{PASSPHRASE}, or not")
    well.edit("Signed.", "Unsigned.")
    refused = well.llmctl("apply", "--yes")
    assert (refused.code, "sign" in refused.err) == (1, True), refused.text


_PLUGIN = """
import os
from llmctl_fts.kind import FtsKind
from llmctl_fts.provider import FtsProvider

def fail(where):
    if os.environ["WHERE"] == where:
        raise RuntimeError("refused " + os.environ["HOSTED_KEY"])

class Failing(FtsProvider):
    def create(self, op, key, want):
        fail("create")
    def read_all(self):
        fail("read")
        return super().read_all()

class Leaky(FtsKind):
    def resolve(self, name, entry, context):
        fail("resolve")
        return super().resolve(name, entry, context)
    def provider(self, place):
        return Failing(self.kind, place)

KIND = Leaky()
"""


def test_a_plugin_that_raises_with_a_secret(well: Planted) -> None:
    site = well.kept / "site"
    site.mkdir()
    install(site, "leaky", "fts = leaky:KIND")
    (site / "leaky.py").write_text(_PLUGIN)
    well.site = (site, EXAMPLE_SOURCE)
    well.file.write_text(well.file.read_text() + "fts_indexes:\n  faq: {dataset: faq-eval, columns: [question]}\n")
    for where in ("resolve", "read", "create"):
        well.variables["WHERE"] = where
        failed = well.llmctl("apply", "--yes")
        assert (failed.code, "RuntimeError" in failed.text) == (1, True), failed.text


def test_a_defect_shows_where_it_is_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOSTED_KEY", KEY)
    monkeypatch.setenv("LLMCTL_TRACEBACK", "1")
    assert exit_code_of(RuntimeError(f"no header: Bearer {KEY}"), ["plan"]) == 1
    said = capsys.readouterr().err
    assert "internal error: RuntimeError: no header: Bearer ***" in said
    canary.unseen("the traceback", said)


def test_what_runs_on_has_no_secret_and_leaves_no_dump(well: Planted) -> None:
    found = well.processes()
    assert len(found) == 3
    for process in found:
        environment = process.environ()
        assert not environment.keys() & {*SILENT, "SSH_AUTH_SOCK", "LLMCTL_TRACEBACK"}
        canary.unseen("an environment", str(environment))
        assert process.rlimit(psutil.RLIMIT_CORE)[0] == 0
    brought = {line.split()[0] for line in well.witnessed("environment") if len(line.split()) > 1}
    # git's credential helpers and the user's askpass need theirs; bash and the engine are only asked for a version.
    assert brought <= {"git", "ssh-keygen", "bash", "llmctl.providers.local.engine"}


def _filled(project: Planted, words: Sequence[str]) -> list[str]:
    """A command with what only the project can tell."""
    place = {"tmp": str(project.temporary), "remote": f"http://tess:{PASSWORD}@{project.api.place}/acme.git"}
    if "{rejected}" in words:
        (rejected,) = json.loads(project.git("show", "llmctl/dev:state.json"))["rejections"]
        place["rejected"] = rejected["revision"]
    if "{engine}" in words:
        place["engine"] = next(e["key"] for e in project.status()["endpoints"] if e["key"].startswith("support@"))
    return [word.format(**place) for word in words]
