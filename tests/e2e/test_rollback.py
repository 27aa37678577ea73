"""Back to an earlier entry: at once, without a gate, and what was left stays refused until somebody says why not."""

from __future__ import annotations

import time

import pytest

from tests.e2e.project import MODEL, ONE_SENTENCE, SYSTEM, Project, wait_until

pytestmark = pytest.mark.e2e
SMALL = True
BACK_S = 5.0  # 0.98 s were measured on a busy machine with two cores


def test_the_first_answers_are_back_and_the_abandoned_revision_is_refused(project: Project) -> None:
    project.apply()
    first = project.answers().revision
    project.edit(SYSTEM, ONE_SENTENCE)
    project.edit(MODEL, f"{MODEL}\n    adapters: [{{source: models/tone-lora.gguf, scale: 0.01}}]")
    project.apply()
    second = project.answers().revision
    assert second != first
    evidence = project.git("ls-tree", "-r", "--name-only", "llmctl/dev", "evidence/")

    begun = time.monotonic()
    rollback = project.start("rollback", "--to", "1", "--yes", "--reason", "it sounds too short")
    wait_until(lambda: project.ask().revision == first, "the first answers")
    seconds = time.monotonic() - begun
    back = rollback.communicate()[1]
    assert rollback.returncode == 0, back
    print(f"the first answers were back after {seconds:.2f} s")
    assert seconds < BACK_S
    assert project.answers().revision == first
    assert "gate:" not in back, "no gate ran"
    assert "gate.faq PASS" not in back
    assert project.git("ls-tree", "-r", "--name-only", "llmctl/dev", "evidence/") == evidence
    trailers = project.git("log", "--format=%(trailers)", "llmctl/dev^1..llmctl/dev")
    assert "Llmctl-Gate" not in trailers
    assert "Llmctl-Outcome: rolled back" in trailers
    assert project.status()["routes"][0]["weights"] == {first: 100}
    assert len(project.one_of_each()) == 3
    assert project.ok("drift").code == 0

    refs = project.refs()
    plan = project.llmctl("plan")
    assert plan.code == 3
    assert f"revision {second[:8]} was rejected by the rollback of serial 3" in plan.out
    assert "it sounds too short" in plan.out
    refused = project.llmctl("apply", "--yes")
    assert refused.code == 3
    assert f"llmctl unreject {second[:8]}" in refused.err
    assert project.refs() == refs
    assert project.answers().revision == first

    assert project.llmctl("unreject", "00000000", "--reason", "no such one").code == 1
    project.ok("unreject", second[:8], "--reason", "short is what we want")
    project.apply()
    assert project.answers().revision == second
    assert project.plan_code() == 0
    outcomes = [(e["serial"], e["outcome"]) for e in project.ok("audit", "log", "--json").json()["entries"]]
    assert outcomes == [(5, "applied"), (4, "applied"), (3, "rolled back"), (2, "applied"), (1, "applied")]
    shown = project.ok("audit", "show", "4").out
    assert "short is what we want" in shown
    assert project.ok("audit", "verify").code == 0


def test_rollback_without_a_serial_goes_to_the_last_good_one(project: Project) -> None:
    project.apply()
    first = project.answers().revision
    assert project.llmctl("rollback", "--yes").code == 1, "there is nothing to go back to"
    assert project.llmctl("rollback", "--to", "7", "--yes").code == 1
    project.edit(SYSTEM, ONE_SENTENCE)
    project.apply()
    project.ok("rollback", "--yes")
    assert project.answers().revision == first


def test_rollback_after_a_killed_apply_goes_to_what_was_before_that(project: Project) -> None:
    """What the killed one had promoted is recorded first; only then is it known which entry is the last good one."""
    project.apply()
    project.edit(SYSTEM, ONE_SENTENCE)
    project.apply()
    before = project.answers().revision
    project.edit(ONE_SENTENCE, f"{SYSTEM} Be brief.")
    process = project.start("apply", "--yes")
    assert process.stderr
    for said in process.stderr:
        if "… retire:route" in said:
            process.kill()
    process.communicate()
    assert project.answers().revision != before
    project.ok("rollback", "--yes")
    assert project.answers().revision == before
    outcomes = [e["outcome"] for e in project.ok("audit", "log", "--json", "-n", "2").json()["entries"]]
    assert outcomes == ["rolled back", "interrupted"]
