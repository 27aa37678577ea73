"""From nothing to an answer, a prompt edit, and back to nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import psutil
import pytest

from tests.e2e.project import ONE_SENTENCE, SYSTEM, Project, tree

pytestmark = pytest.mark.e2e


def _work_tree(project: Project) -> dict[str, str]:
    """The user's files and git's own for them, byte by byte; the record's refs and objects left aside."""
    kept = (
        "HEAD",
        "index",
        "config",
        "ORIG_HEAD",
        "packed-refs",
        "logs/HEAD",
        "refs/heads/main",
        "logs/refs/heads/main",
    )
    files = {k: v for k, v in tree(project.root).items() if not k.startswith((".git/", ".llmctl"))}
    return files | {k: v for k, v in tree(project.root).items() if k in {f".git/{name}" for name in kept}}


def test_apply_answers_and_a_second_one_changes_nothing(project: Project) -> None:
    (project.root / "draft.txt").write_text("not added\n")
    (project.root / "staged.txt").write_text("added\n")
    project.git("add", "staged.txt")
    project.file.write_text(project.file.read_text() + "# a note of mine\n")
    before, status = _work_tree(project), project.git("status", "--porcelain=v2", "--branch", "--untracked-files=all")

    first = project.apply()
    assert "recorded as serial 1 on branch llmctl/dev" in first.out
    question, answer = project.a_row()
    chat = project.ok("chat", "support", question)
    assert chat.out.strip() == answer
    assert "support@" in chat.err
    assert project.plan_code() == 0

    refs, census = project.refs(), project.census()
    second = project.apply()
    assert "Nothing changes" in second.out
    assert project.refs() == refs
    assert project.census() == census
    assert not list((project.root / ".git/llmctl/dev").glob("attempt-*"))

    assert project.git("status", "--porcelain=v2", "--branch", "--untracked-files=all") == status
    assert _work_tree(project) == before
    assert project.refs().keys() == {"refs/heads/main", "refs/heads/llmctl/dev"}


def test_a_prompt_edit_is_planned_proven_and_promoted(project: Project) -> None:
    project.apply()
    old = project.answers().revision
    project.edit(SYSTEM, ONE_SENTENCE)

    plan = project.llmctl("plan", "--detailed-exitcode")
    assert plan.code == 2
    for expected in (
        "-You are Acme's support assistant.",
        "+You are Acme's support assistant. Answer in one sentence.",
        "gate.faq on route.support@",
        f"compared with {old[:8]}",
        "Blast radius",
        "prompt.answer changed: gate.faq runs; route.support rolls out a new revision",
    ):
        assert expected in plan.out
    new = json.loads(project.llmctl("plan", "--json").out)["gates"][0]["revision"]

    engine = project.one_of_each()["engine"]
    applied = project.apply()
    assert "gate.faq PASS" in applied.err
    assert project.plan_code() == 0
    assert project.answers().revision == new != old
    assert project.one_of_each()["engine"] == engine, "a prompt needs no new engine"
    assert project.status()["routes"][0]["weights"] == {new: 100}


def test_destroy_leaves_only_the_record(project: Project) -> None:
    def sockets() -> set[tuple[object, ...]]:
        pids = {p.pid for p in project.processes()}
        found = psutil.net_connections("inet")
        return {c.laddr[:2] for c in found if c.status == psutil.CONN_LISTEN and c.pid in pids}

    def temporary() -> set[str]:
        own = hashlib.sha256(str(project.state()).encode()).hexdigest()[:16]  # others run on this machine too
        return {p.name for folder in ("/tmp", "/dev/shm") for p in Path(folder).iterdir() if own in p.name}

    def files() -> dict[str, str]:
        found = tree(project.base)
        return {k: v for k, v in found.items() if not k.startswith("project/.git/")}

    before, refs = files(), project.refs()
    project.apply()
    ports = sockets()
    assert len(ports) == 2, "gateway and engine listen"
    assert all(ip == "127.0.0.1" for ip, _ in ports)
    assert files() != before
    project.edit(SYSTEM, ONE_SENTENCE)
    project.apply()
    project.restore_file()

    destroyed = project.ok("destroy", "--yes")
    assert "Destroy done" in destroyed.out
    assert project.processes() == []
    listening = {c.laddr[:2] for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert not ports & listening
    assert files() == before
    assert temporary() == set()
    after = project.refs()
    assert {name: after[name] for name in refs} == refs
    assert after.keys() - refs.keys() == {"refs/heads/llmctl/dev"}
    leftovers = project.root / ".git" / "llmctl"
    assert not [p for p in leftovers.rglob("*") if p.is_file()] if leftovers.exists() else True
    assert project.ok("audit", "verify").code == 0
    assert [e["action"] for e in project.ok("audit", "log", "--json").json()["entries"]] == [
        "destroy",
        "apply",
        "apply",
    ]
    status = project.status()
    assert (status["gateway"], status["routes"], status["processes"]) == ("down", [], [])

    again = project.ok("destroy", "--yes")
    assert "Nothing to destroy" in again.out
    assert project.serial() == 3
