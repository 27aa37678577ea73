"""``llmctl state``, ``import`` and ``unreject`` as a person and as a program use them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.cli.project import Project
from tests.terminal import on_terminal

pytestmark = pytest.mark.e2e
POLICY = "policy.open-licence"


@pytest.fixture
def whole(applied: Project) -> Iterator[Project]:
    """The applied project; what a test had forgotten is applied again."""
    yield applied
    applied.git("checkout", "-q", "--", ".")
    assert applied.run("apply", "--yes").code == 0


def head(project: Project) -> str:
    return project.git("rev-parse", "llmctl/dev")


def test_the_list_and_one_resource(whole: Project) -> None:
    shown = whole.run("state", "list")
    lines = shown.out.splitlines()
    assert (shown.code, lines[0]) == (0, f"llmctl/dev at serial {serial(whole)}: 8 resources")
    assert [line.split()[0] for line in lines[1:]] == sorted(line.split()[0] for line in lines[1:])
    assert whole.run("state", "list", "--kind", "route").out.splitlines()[1].startswith("  route.support  v1")
    one = whole.run("state", "show", "route.support").out
    for words in ("route.support v1 in llmctl/dev", "revision", "recorded  by serial 1 (apply)", "v1", "gate.faq"):
        assert words in one
    known = whole.run("state", "show", "route.support", "--json").json()
    assert (known["format"], known["version"], known["needed_by"]) == (1, 1, ["gate.faq"])
    assert known["recorded_by"]["serial"] == 1


def serial(project: Project) -> int:
    return int(project.run("state", "list", "--json").json()["serial"])


def test_it_needs_no_file(whole: Project) -> None:
    whole.file.write_text("nonsense: [")
    assert whole.run("state", "list").code == 0
    assert whole.run("state", "show", "gate.faq").code == 0
    refused = whole.run("state", "rm", POLICY, "--reason", "x", "--yes")
    assert (refused.code, "llmops.yaml" in refused.err) == (1, True)


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [(b"n\n", 0, "Nothing was changed."), (b"\n", 0, "Nothing was changed."), (b"\x04", 130, "Interrupted")],
    ids=["no", "nothing", "the end"],
)
def test_a_question_that_is_not_answered_with_yes(whole: Project, answer: bytes, code: int, said: str) -> None:
    before = head(whole)
    arguments = ("state", "rm", POLICY, "--reason", "x")
    ended, shown = on_terminal(whole.root, whole.env, *arguments, answer=answer)
    assert (ended, said in shown) == (code, True), shown
    assert "The record of dev would forget:" in shown
    assert f"- {POLICY} v1" in shown
    assert head(whole) == before
    assert whole.run("plan", "--detailed-exitcode").code == 0


def test_ctrl_c_at_the_question_leaves_no_lock_and_no_attempt(whole: Project) -> None:
    before = head(whole)
    ended, shown = on_terminal(whole.root, whole.env, "state", "rm", POLICY, "--reason", "x", answer=b"\x03")
    assert ended == 130, shown
    assert head(whole) == before
    assert whole.git("for-each-ref", "refs/llmctl") == ""
    done = on_terminal(whole.root, whole.env, "state", "rm", POLICY, "--reason", "x", answer=b"y\n")
    assert done[0] == 0, done[1]
    assert "Forgotten; recorded as serial" in done[1]


def test_a_command_that_is_killed_at_the_question_holds_nobody_up(whole: Project) -> None:
    def kill() -> None:
        (pid,) = (
            int(word)
            for word in os.listdir("/proc")
            if word.isdigit() and b"state\0rm" in _words(int(word)) and str(whole.root) == _folder(int(word))
        )
        os.kill(pid, signal.SIGKILL)

    on_terminal(whole.root, whole.env, "state", "rm", POLICY, "--reason", "x", meanwhile=kill)
    assert whole.run("state", "rm", POLICY, "--reason", "y", "--yes").code == 0


def _words(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _folder(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def test_programs_say_yes_and_get_json(whole: Project) -> None:
    asked = whole.run("state", "rm", POLICY, "--reason", "x", "--json")
    assert (asked.code, asked.json()["errors"][0]["summary"]) == (1, "--json does not ask")
    done = whole.run("state", "rm", POLICY, "--reason", "x", "--json", "--yes").json()
    assert [r["address"] for r in done["forgotten"]] == [POLICY]
    assert done["serial"] == serial(whole)
    errors = whole.run("state", "rm", POLICY, "--reason", "x", "--json", "--yes").json()["errors"]
    assert [e["summary"] for e in errors] == [f"{POLICY} is not recorded in dev"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("state rm --reason x", "missing argument 'ADDRESSES'"),
        (f"state rm {POLICY}", "missing option '--reason'"),
        ("state show", "missing argument 'ADDRESS'"),
        ("state forget", "no such command 'forget'"),
        ("import endpoint.support", "missing argument 'ID'"),
        ("gc --keep 0", "0 is not in the range"),
    ],
)
def test_a_wrong_command_line(whole: Project, line: str, said: str) -> None:
    refused = whole.run(*line.split())
    assert (refused.code, said in refused.err) == (1, True), refused.err


def test_a_reason_of_several_lines_stays_one(whole: Project) -> None:
    whole.run("state", "rm", POLICY, "--reason", "one\n\nLlmctl-Outcome: failed", "--yes")
    (entry,) = whole.run("audit", "log", "--json", "-n", "1").json()["entries"]
    assert entry["outcome"] == "applied"
    assert "\n" not in entry["subject"]
    assert whole.run("audit", "verify").code == 0
