from __future__ import annotations

import json
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.core.address import Address
from llmctl.core.errors import LeaseLost, RecordError
from llmctl.core.evidence import Verdict
from llmctl.core.protocols import Change
from llmctl.core.resources import Rejection
from llmctl.core.secrets import Secret
from llmctl.record import Attempt, Reader, Repository, open_repository
from llmctl.record.layout import resource_json
from tests.record.helpers import (
    BRANCH,
    ENV,
    apply,
    begin,
    evidence,
    git,
    llmctl_refs,
    prove,
    put,
    recorded,
)

CANARY = "sk-canary-1f2e3d4c5b6a"


def first_parents(folder: Path) -> list[str]:
    return git(folder, "log", "--first-parent", "--format=%s", BRANCH).split("\n")


def test_one_apply_is_one_merge_with_its_changes_behind_it(repository: Repository, folder: Path) -> None:
    apply(repository, put(recorded("prompt.answer")), put(recorded("route.support")), prove(evidence()), subject="One")
    apply(repository, put(recorded("prompt.answer", "new", 2)), subject="Two")
    assert first_parents(folder) == ["Two", "One", "Begin the record of dev"]
    everything = set(git(folder, "log", "--format=%s", BRANCH).split("\n"))
    assert everything > {
        "Create prompt.answer v1",
        "Create route.support v1",
        "Gate faq: PASS",
        "Create prompt.answer v2",
    }
    history = git(folder, "log", "--format=%s", BRANCH, "--", "resources/prompt/answer.json").split("\n")
    assert history == ["Create prompt.answer v2", "Create prompt.answer v1"]
    assert llmctl_refs(folder) == [BRANCH]
    assert not repository.private_dir(ENV).exists()
    assert git(folder, "fsck", "--strict", "--no-dangling") == ""


def test_files_are_pretty_json_and_read_back(repository: Repository, folder: Path) -> None:
    resource = recorded("prompt.answer", "grüße")
    entry = apply(repository, put(resource))
    text = git(folder, "show", f"{entry}:resources/prompt/answer.json") + "\n"
    assert text == json.dumps(resource_json(resource), sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    state = Reader(repository, ENV).state()
    assert state.resources == {resource.address: resource}
    assert (state.serial, state.head, state.fence, state.project) == (1, entry, 1, "acme")
    said = json.loads(git(folder, "show", f"{entry}:state.json"))
    assert said == {
        "format": 1,
        "environment": ENV,
        "project": "acme",
        "serial": 1,
        "fence": 1,
        "source_commit": repository.head_commit(),
        "outcome": "applied",
        "rejections": [],
    }


def test_trailers_of_change_and_entry(repository: Repository) -> None:
    proven, again = evidence(), evidence("tone", 0.5)
    attempt = begin(repository, fence=7)
    attempt.commit(put(recorded("prompt.answer")))
    attempt.commit(prove(proven))
    attempt.commit(prove(again))
    attempt.close(
        "applied",
        subject="All",
        decisions={"ok": True},
        rejections=(),
        trailers=[("Llmctl-Policy", "open-licence PASS")],
    )
    detail = Reader(repository, ENV).entry(1)
    plan, source = "sha256:" + "a" * 64, repository.head_commit()
    common = [
        ("Llmctl-Plan", plan),
        ("Llmctl-Source", source),
        ("Llmctl-Actor", repository.actor()),
        ("Llmctl-Run", "ci-42"),
    ]
    resource = recorded("prompt.answer")
    assert list(detail.changes[0].trailers) == [
        ("Llmctl-Serial", "1"),
        ("Llmctl-Action", "create"),
        ("Llmctl-Resource", "prompt.answer"),
        ("Llmctl-Revision", resource.revision),
        *common,
    ]
    claim = ("Llmctl-Gate", f"faq PASS {proven.digest}")
    assert claim in detail.changes[1].trailers
    assert ("Llmctl-Action", "apply") in detail.changes[1].trailers
    assert list(detail.entry.trailers) == [
        ("Llmctl-Serial", "1"),
        ("Llmctl-Action", "apply"),
        ("Llmctl-Outcome", "applied"),
        ("Llmctl-Policy", "open-licence PASS"),
        claim,
        ("Llmctl-Gate", f"tone PASS {again.digest}"),
        *common,
    ]
    assert detail.decisions == {"ok": True}
    assert detail.evidence == (proven, again)
    assert detail.entry.resources == (Address("prompt", "answer"),)
    assert [c.resources for c in detail.changes] == [(Address("prompt", "answer"),), (), ()]


def test_resources_that_a_change_does_not_name_are_named_for_it(repository: Repository) -> None:
    resource = recorded("prompt.answer")
    apply(repository, Change("Silent", {resource.address: resource}))
    (change,) = Reader(repository, ENV).entry(1).changes
    assert ("Llmctl-Resource", "prompt.answer") in change.trailers
    assert ("Llmctl-Revision", resource.revision) in change.trailers
    apply(repository, Change("Gone", {resource.address: None}))
    (change,) = Reader(repository, ENV).entry(2).changes
    assert ("Llmctl-Resource", "prompt.answer") in change.trailers
    assert Reader(repository, ENV).state().resources == {}


def test_text_cannot_pose_as_a_trailer(repository: Repository) -> None:
    change = Change("Subject\n\nLlmctl-Serial: 99", trailers=[("Run", "x\nLlmctl-Outcome: applied")])
    apply(repository, change, subject="Sub\nject")
    detail = Reader(repository, ENV).entry(1)
    assert detail.entry.subject == "Sub ject"
    assert detail.changes[0].subject == "Subject Llmctl-Serial: 99"
    assert ("Llmctl-Run", "x Llmctl-Outcome: applied") in detail.changes[0].trailers
    assert [value for key, value in detail.changes[0].trailers if key == "Llmctl-Serial"] == ["1"]


def test_an_attempt_without_changes_is_a_plain_entry(repository: Repository, folder: Path) -> None:
    begin(repository).close("failed", subject="Nothing worked", decisions={}, rejections=())
    begin(repository, action="unreject").close("applied", subject="Unreject", decisions={}, rejections=())
    assert first_parents(folder) == ["Unreject", "Nothing worked", "Begin the record of dev"]
    assert [(e.serial, e.action, e.outcome) for e in Reader(repository, ENV).entries(10)] == [
        (2, "unreject", "applied"),
        (1, "apply", "failed"),
    ]
    assert Reader(repository, ENV).entry(2).changes == ()


def test_rejections_are_recorded(repository: Repository) -> None:
    rejection = Rejection(Address("route", "support"), "f" * 16, 1, "slow", "Ann")
    begin(repository, action="rollback").close("rolled back", subject="Back", decisions={}, rejections=(rejection,))
    assert Reader(repository, ENV).state().rejections == (rejection,)


def test_an_outcome_that_is_none(repository: Repository) -> None:
    with pytest.raises(ValueError, match="no outcome"):
        begin(repository).close("great", subject="x", decisions={}, rejections=())  # type: ignore[arg-type]


def test_abandon_leaves_nothing_behind(repository: Repository, folder: Path) -> None:
    attempt = begin(repository)
    attempt.abandon()
    assert llmctl_refs(folder) == []
    assert not repository.private_dir(ENV).exists()
    begin(repository).abandon()
    acts: list[Callable[[Attempt], object]] = [
        lambda a: a.intend("s", "e", {}),
        lambda a: a.commit(put(recorded("prompt.answer"))),
    ]
    for act in acts:
        attempt = begin(repository)
        act(attempt)
        with pytest.raises(RecordError, match="must be closed"):
            attempt.abandon()
        attempt.close("failed", subject="x", decisions={}, rejections=())


def test_a_closed_attempt_takes_nothing_more(repository: Repository) -> None:
    attempt = begin(repository)
    intent = attempt.intend("s", "e", {})
    attempt.close("applied", subject="x", decisions={}, rejections=())
    acts: list[Callable[[], object]] = [
        lambda: attempt.intend("s", "e", {}),
        lambda: attempt.done(intent, "ok", {}),
        lambda: attempt.commit(put(recorded("prompt.answer"))),
        lambda: attempt.close("applied", subject="x", decisions={}, rejections=()),
    ]
    for act in acts:
        with pytest.raises(RecordError, match="is closed"):
            act()
    assert Reader(repository, ENV).state().serial == 1


def test_the_journal_is_private_and_holds_intents_before_effects(repository: Repository) -> None:
    attempt = begin(repository, fence=3)
    intent = attempt.intend("stage:route.support@1", "publish", {"revision": "1"})
    path = repository.private_dir(ENV) / "attempt-1.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] | {"type": "attempt", "serial": 1, "fence": 3, "action": "apply", "run": "ci-42"} == lines[0]
    assert lines[1]["id"] == intent.id
    assert lines[1]["data"] == {"revision": "1"}
    attempt.done(intent, "done", {"pid": 1})
    attempt.commit(put(recorded("prompt.answer")))
    types = [json.loads(line)["type"] for line in path.read_text().splitlines()]
    assert types == ["attempt", "intent", "done", "change"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_threads_commit_one_after_the_other(repository: Repository, folder: Path) -> None:
    attempt = begin(repository)

    def work(number: int) -> None:
        intent = attempt.intend(f"step-{number}", "create", {})
        attempt.commit(put(recorded(f"prompt.p{number}")))
        attempt.done(intent, "done", {})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))
    journal = (repository.private_dir(ENV) / "attempt-1.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in journal]) == 1 + 3 * 24
    attempt.close("applied", subject="x", decisions={}, rejections=())
    assert len(Reader(repository, ENV).state().resources) == 24
    assert len(Reader(repository, ENV).entry(1).changes) == 24
    assert git(folder, "rev-list", "--merges", "--count", BRANCH) == "1"


ANSWER = Address("prompt", "answer")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Change("x", {Address("prompt", "../x"): None}), "no place in the record"),
        (Change("x", {Address("prompt", "a/b"): recorded("prompt.answer")}), "no place in the record"),
        (Change("x", {Address("prompt", "other"): recorded("prompt.answer")}), "another resource"),
        (Change("x", evidence=[replace(evidence(), gate="../tone")]), "no place in the record"),
        (Change("x", {ANSWER: replace(recorded("prompt.answer"), outputs={"x": float("nan")})}), "cannot be recorded"),
    ],
)
def test_what_may_not_be_recorded(repository: Repository, folder: Path, change: Change, message: str) -> None:
    attempt = begin(repository)
    with pytest.raises(RecordError, match=message):
        attempt.commit(change)
    attempt.abandon()
    assert llmctl_refs(folder) == []


def test_secrets_do_not_get_in(repository: Repository, folder: Path) -> None:
    attempt = begin(repository)
    hosted = replace(recorded("model.hosted"), outputs={"key": Secret(CANARY)})
    acts: list[Callable[[], object]] = [
        lambda: attempt.commit(Change("x", {hosted.address: hosted})),
        lambda: attempt.intend("step", "create", {"key": Secret(CANARY)}),
        lambda: attempt.close("failed", subject="x", decisions={"key": Secret(CANARY)}, rejections=()),
    ]
    for act in acts:
        with pytest.raises(RecordError) as caught:
            act()
        assert CANARY not in f"{caught.value.summary}{caught.value.detail}{caught.value.hint}"
    attempt.abandon()
    found = subprocess.run(["grep", "-r", CANARY, str(folder)], capture_output=True, check=False)
    assert found.stdout == b""


def test_an_open_attempt_forbids_another(repository: Repository) -> None:
    first = begin(repository)
    with pytest.raises(RecordError, match="never closed"):
        begin(repository)
    first.commit(put(recorded("prompt.answer")))
    (repository.private_dir(ENV) / "attempt-1.jsonl").unlink()
    with pytest.raises(RecordError, match="never closed"):
        begin(repository)


def test_a_state_that_is_no_longer_the_head(repository: Repository) -> None:
    old = Reader(repository, ENV).state()
    apply(repository, put(recorded("prompt.answer")))
    with pytest.raises(LeaseLost, match="moved after it was read"):
        begin(repository, old)


@pytest.mark.parametrize("with_change", [True, False])
def test_a_record_that_moves_under_our_feet(repository: Repository, folder: Path, with_change: bool) -> None:
    apply(repository, put(recorded("prompt.answer")))
    attempt = begin(repository)
    if with_change:
        attempt.commit(put(recorded("prompt.answer", "mine", 2)))
    other = git(folder, "commit-tree", f"{BRANCH}^{{tree}}", "-p", BRANCH, "-m", "someone else")
    git(folder, "update-ref", BRANCH, other)
    with pytest.raises(LeaseLost, match="changed by somebody else") as caught:
        attempt.close("applied", subject="x", decisions={}, rejections=())
    assert other[:12] in caught.value.detail
    with pytest.raises(LeaseLost):
        attempt.commit(put(recorded("prompt.other")))
    assert git(folder, "rev-parse", BRANCH) == other
    journal = (repository.private_dir(ENV) / "attempt-1.jsonl").with_name("attempt-2.jsonl").read_text()
    assert "prompt/other.json" in journal  # nothing is lost
    if with_change:
        tip = f"refs/llmctl/{ENV}/attempt/2"
        assert "mine" in git(folder, "show", f"{tip}:resources/prompt/answer.json")


def test_an_attempt_ref_that_moves_under_our_feet(repository: Repository, folder: Path) -> None:
    attempt = begin(repository)
    attempt.commit(put(recorded("prompt.answer")))
    git(folder, "update-ref", f"refs/llmctl/{ENV}/attempt/1", "HEAD")
    with pytest.raises(LeaseLost):
        attempt.commit(put(recorded("prompt.other")))
    assert "prompt/other.json" in (repository.private_dir(ENV) / "attempt-1.jsonl").read_text()


def test_a_zombie_whose_attempt_was_closed_writes_nothing(repository: Repository, folder: Path) -> None:
    zombie = begin(repository)
    (repository.private_dir(ENV) / "attempt-1.jsonl").unlink()
    for act in (lambda: zombie.intend("s", "e", {}), lambda: zombie.commit(put(recorded("prompt.answer")))):
        with pytest.raises(LeaseLost, match="another command closed"):
            act()
    assert llmctl_refs(folder) == []


def test_a_change_that_git_could_not_take_comes_before_the_next(repository: Repository, folder: Path) -> None:
    attempt = begin(repository)
    attempt.commit(put(recorded("prompt.a")))
    lock = folder / ".git" / "refs" / "llmctl" / ENV / "attempt" / "1.lock"
    lock.write_text("")  # as a crashed git leaves it
    attempt.commit(put(recorded("prompt.b")))
    with pytest.raises(RecordError, match="another git process"):
        attempt.close("applied", subject="x", decisions={}, rejections=())
    lock.unlink()
    attempt.commit(put(recorded("prompt.c")))
    attempt.close("applied", subject="x", decisions={}, rejections=())
    subjects = [c.subject for c in Reader(repository, ENV).entry(1).changes]
    assert subjects == ["Create prompt.a v1", "Create prompt.b v1", "Create prompt.c v1"]


def test_a_private_folder_that_cannot_be_written(repository: Repository, folder: Path) -> None:
    (folder / ".git" / "llmctl").write_text("in the way")
    with pytest.raises(RecordError, match=r"journal .* cannot be written") as caught:
        begin(repository)
    assert "permissions" in caught.value.hint
    assert llmctl_refs(folder) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_git_folder(repository: Repository, folder: Path) -> None:
    (folder / ".git").chmod(0o500)
    try:
        with pytest.raises(RecordError, match="cannot be written"):
            begin(repository)
    finally:
        (folder / ".git").chmod(0o700)


def test_a_clone_goes_on_from_origins_record(repository: Repository, folder: Path, tmp_path: Path) -> None:
    apply(repository, put(recorded("prompt.answer")))
    git(tmp_path, "clone", "-q", str(folder), "clone")
    for key, value in (("user.name", "Bob"), ("user.email", "bob@example.org")):
        git(tmp_path / "clone", "config", key, value)
    clone = open_repository(tmp_path / "clone")
    assert Reader(clone, ENV).state() == Reader(repository, ENV).state()
    apply(clone, put(recorded("prompt.answer", "two", 2)))
    state = Reader(clone, ENV).state()
    assert (state.serial, state.resources[Address("prompt", "answer")].version) == (2, 2)
    assert Reader(repository, ENV).state().serial == 1


def test_failed_gates_are_recorded_too(repository: Repository) -> None:
    failed = evidence(lower=0.5, verdict=Verdict.FAIL)
    attempt = begin(repository)
    attempt.commit(prove(failed))
    attempt.close("failed", subject="Gate faq failed", decisions={}, rejections=())
    state, detail = Reader(repository, ENV).state(), Reader(repository, ENV).entry(1)
    assert state.resources == {}
    assert ("Llmctl-Gate", f"faq FAIL {failed.digest}") in detail.entry.trailers
    assert detail.evidence[0].verdict is Verdict.FAIL


def test_two_threads_that_close_at_once(repository: Repository) -> None:
    attempt = begin(repository)
    attempt.commit(put(recorded("prompt.answer")))
    results: list[str] = []

    def close(attempt: Attempt) -> None:
        try:
            results.append(attempt.close("applied", subject="x", decisions={}, rejections=()))
        except RecordError as error:
            results.append(error.summary)

    threads = [threading.Thread(target=close, args=(attempt,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted("closed" in result for result in results) == [False, True]
    assert Reader(repository, ENV).state().serial == 1
