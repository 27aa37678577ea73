"""Several clones share one record: they take turns, finish what another one began, and say what went wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.clones import Hub, hub, smallest
from tests.e2e.project import MODEL, TONE, Project
from tests.e2e.test_crash import KILLED

pytestmark = pytest.mark.e2e
OTHER_MODEL = f"{MODEL}\n    adapters: [{{source: models/tone-lora.gguf, scale: 0.01}}]"
CANARY = "glpat-canary-5e4d3c2b"
RECORD = "refs/heads/llmctl/dev"


@pytest.fixture
def tiny() -> Iterator[Project]:
    with smallest() as project:
        yield project


@pytest.fixture
def shared(tiny: Project) -> Iterator[Hub]:
    with hub(tiny) as found:
        yield found


def change(project: Project, text: str) -> None:
    before = project.file.read_text()
    start = before.index('content: "') + len('content: "')
    project.file.write_text(before[:start] + text + before[before.index('"', start) :])


def outcomes(project: Project) -> list[str]:
    return [entry["outcome"] for entry in project.ok("audit", "log", "--json").json()["entries"]]


def test_two_clones_take_turns(tiny: Project, shared: Hub) -> None:
    tiny.apply()
    assert shared.refs() == {RECORD}
    runner = shared.clone("--depth", "1")  # as CI has it, which stands on no branch
    runner.git("checkout", "-q", "--detach")
    change(runner, "two")
    assert "v1 → v2" in runner.ok("plan").out
    runner.apply()
    change(tiny, "two")
    assert "to update" not in tiny.ok("plan").out  # the other clone has recorded it
    assert tiny.serial() == 2
    assert tiny.ok("rollback", "--to", "1", "--yes").code == 0
    assert runner.status()["serial"] == 3
    assert runner.ok("audit", "log", "--json").json()["entries"][0]["serial"] == 3
    for project in (tiny, runner):
        project.ok("destroy", "--yes")
    assert runner.serial() == 5
    assert runner.ok("audit", "verify").code == 0
    assert tiny.serial() == 4  # audit asks nobody
    tiny.ok("status")
    assert tiny.serial() == 5
    assert shared.refs() == {RECORD}


def test_without_the_remote(tiny: Project, shared: Hub) -> None:
    tiny.apply()
    change(tiny, "two")
    away = shared.path.rename(shared.path.with_name("away"))
    plan = tiny.llmctl("plan")
    assert plan.code == 1
    assert "cannot be fetched from the git remote origin" in plan.err
    assert "llmctl plan --offline" in plan.err
    assert "v1 → v2" in tiny.ok("plan", "--offline").out
    for command in (("apply", "--yes"), ("drift",), ("rollback", "--yes"), ("unlock",), ("destroy", "--yes")):
        refused = tiny.llmctl(*command)
        assert refused.code == 1, refused.text
        assert "cannot be fetched from the git remote origin" in refused.err
    status = tiny.ok("status", "--json").json()
    assert status["serial"] == 1
    assert "what this clone knows" in status["unreadable"][0]
    assert tiny.ok("audit", "verify").code == 0
    away.rename(shared.path)
    tiny.apply()
    assert outcomes(tiny) == ["applied", "applied"]


def test_no_token_of_a_remotes_address_is_said(tiny: Project, shared: Hub) -> None:
    tiny.apply()
    tiny.git("remote", "set-url", "origin", f"http://robot:{CANARY}@127.0.0.1:9/{CANARY}.git")
    said = [tiny.llmctl(*c).text for c in (("plan",), ("apply", "--yes"), ("status",), ("unlock",), ("doctor",))]
    assert all("origin" in text for text in said[:4])
    assert not any(CANARY in text or "robot" in text for text in said)
    assert shared.refs() == {RECORD}


def test_a_remote_that_refuses_the_record_loses_nothing(tiny: Project, shared: Hub) -> None:
    tiny.apply()
    hook = shared.path / "hooks" / "pre-receive"
    hook.write_text(f"#!/bin/sh\nif grep -q {RECORD}; then echo 'only the owners may' >&2; exit 1; fi\n")
    hook.chmod(0o755)
    change(tiny, "two")
    refused = tiny.llmctl("apply", "--yes")
    assert refused.code == 1
    assert "apply 2 of dev is over, and could not be recorded" in refused.err
    assert "only the owners may" in refused.err
    assert "allow whoever applies to push" in refused.err
    assert shared.refs() == {RECORD, "refs/llmctl/dev/attempt/2"}
    assert "is over (applied)" in tiny.llmctl("plan").text
    assert tiny.status()["interrupted"]
    again = tiny.llmctl("apply", "--yes")
    assert again.code == 1  # and still
    hook.unlink()
    done = tiny.apply()
    assert "apply 2 of dev" in done.err
    assert "is over (applied), and was interrupted before it could be recorded" in done.err
    assert outcomes(tiny) == ["applied", "applied"]
    assert tiny.plan_code() == 0
    assert tiny.ok("audit", "verify").code == 0
    assert shared.refs() == {RECORD}


def test_a_rewritten_record_stops_every_command(tiny: Project, shared: Hub) -> None:
    tiny.apply()
    change(tiny, "two")
    tiny.apply()
    shared.git("update-ref", RECORD, f"{RECORD}^")
    for command in (("plan",), ("apply", "--yes"), ("status",)):
        refused = tiny.llmctl(*command)
        assert refused.code == 1
        assert "ends before the one of this clone" in refused.err
    tiny.git("push", "-q", "origin", RECORD)
    assert tiny.plan_code() == 0


def test_a_runner_that_vanished_is_finished_by_another_clone(project: Project) -> None:
    project.make_small()
    project.edit("dev: {target: local}", "dev: {target: local, record: {remote: origin}}")
    project.commit("the record is on a remote")
    with hub(project) as shared:
        project.apply()
        project.edit(MODEL, OTHER_MODEL)
        project.commit("another model")
        project.git("push", "-q")
        process = project.start("apply", "--yes")
        assert process.stderr
        for line in process.stderr:
            if "… gate:" in line:
                process.kill()
        process.communicate()
        assert process.returncode == KILLED
        shared.vanish(lapsed=False)
        other = shared.clone()
        waiting = other.llmctl("apply", "--yes")
        assert waiting.code == 5
        assert "on runner-17" in waiting.err
        assert "It is held for" in waiting.err
        assert "runner-17" in other.status()["lock"]
        held = other.llmctl("unlock")
        assert held.code == 5
        shared.vanish(lapsed=True)
        assert "apply 2 of dev by Tess Tester" in other.llmctl("plan").text
        applied = other.apply()
        assert "apply 2 of dev by Tess Tester" in applied.err
        assert "was interrupted" in applied.err
        assert outcomes(other) == ["applied", "interrupted", "applied"]
        assert other.plan_code() == 0
        assert other.answers().status == 200
        assert other.ok("audit", "verify").code == 0
        assert shared.refs() == {RECORD}
        # And back comes the first machine, with its own journal of the same serial.
        assert project.llmctl("plan").code == 0
        back = project.apply()
        assert "was closed by another machine meanwhile" in back.err
        assert project.plan_code() == 0
        assert project.ok("audit", "verify").code == 0
        assert outcomes(project)[-3:] == ["applied", "interrupted", "applied"]
        project.one_of_each()
        assert project.refs().keys() >= {RECORD}
        assert not [ref for ref in project.refs() if ref.startswith(("refs/llmctl/", "refs/llmctl-remotes/"))]


def test_unlocked_by_force_from_another_clone(tiny: Project, shared: Hub) -> None:
    tiny.apply()
    other = shared.clone()
    assert "Nobody holds the lock." in other.ok("unlock").out
    # A lock that a machine left behind which nobody can ask.
    change(tiny, "two")
    hook = shared.path / "hooks" / "pre-receive"
    hook.write_text(f"#!/bin/sh\nif grep -q {RECORD}; then kill -9 $(cat {tiny.base}/pid); exit 1; fi\n")
    hook.chmod(0o755)
    process = tiny.start("apply", "--yes")
    (tiny.base / "pid").write_text(str(process.pid))
    process.communicate()
    assert process.returncode == KILLED
    hook.unlink()
    shared.vanish(lapsed=False)
    assert other.llmctl("unlock").code == 5
    assert "on runner-17" in other.ok("unlock", "--force").out
    assert "apply 2 of dev" in other.apply().err
    assert other.ok("audit", "verify").code == 0
    assert TONE not in other.file.read_text()
