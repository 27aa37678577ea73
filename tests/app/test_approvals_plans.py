"""What an approval is for, how many are needed, and how it travels: real keys, real git, no engine."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from llmctl.app.approvals import (
    LASTS,
    approvable,
    approve,
    require_approvals,
)
from llmctl.app.planning import nothing_desired, plan_for
from llmctl.app.saved_plan import refuse_if_stale, with_base
from llmctl.core.address import Address
from llmctl.core.errors import Denied, InvalidInput, RecordError, StalePlan
from llmctl.core.policies import PolicyResult
from llmctl.core.resources import RecordState
from llmctl.plan import Weakening, plan_digest
from llmctl.record import open_repository
from llmctl.record.approvals import read_approvals, remove_approvals
from tests.app.approving import NOW, World
from tests.people import Person
from tests.record.helpers import git


def test_an_approval_expires(world: World) -> None:
    world.approve("ann", lasts=timedelta(hours=1))
    assert world.given(now=NOW + timedelta(minutes=59)) == ["ann@example.org"]
    assert "it expired on 2026-11-21T13:00:00Z" in world.refusal(now=NOW + timedelta(hours=1))
    world.approve("ann", lasts=timedelta(days=2))
    assert world.given(now=NOW + timedelta(hours=1)) == ["ann@example.org"], "approved again"
    assert len(read_approvals(open_repository(world.root), "dev")) == 1


@pytest.mark.parametrize(("field", "said"), [("Environment", "environment prod"), ("Project", "it is for other")])
def test_an_approval_is_for_one_place(world: World, field: str, said: str) -> None:
    found = world.approve("ann")
    message = git(world.root, "log", "-1", "--format=%B", found.ref)
    value = {"Environment": "dev", "Project": "acme"}[field]
    message = message.replace(
        f"Llmctl-{field}: {value}", f"Llmctl-{field}: {'prod' if field == 'Environment' else 'other'}"
    )
    tree = git(world.root, "rev-parse", f"{found.ref}^{{tree}}")
    with world.acting("ann"):
        signed = git(world.root, "commit-tree", "-S", "-F", "-", tree, stdin=message.encode())
    git(world.root, "update-ref", found.ref, signed)
    assert said in world.refusal()


def test_a_changed_plan_withdraws_its_approvals(world: World) -> None:
    world.approve("ann")
    world.approve("bob")
    world.write(text="Good day")
    found = world.count()
    assert (found.given, found.refused, len(found.others)) == ((), (), 2)
    with pytest.raises(Denied) as denied:
        require_approvals(world.made(), found, None, " -e dev")
    assert denied.value.exit_code == 3
    assert denied.value.summary == "2 approvals of this plan are missing: it needs 2 and has 0"
    assert "for another plan of this environment: ann@example.org approved sha256:" in denied.value.detail
    assert "llmctl plan --out plan.json -e dev" in denied.value.hint


def test_what_rules_of_another_revision_said_is_approved_with_the_plan(world: World) -> None:
    """Who applies has not got the revision of --base: the file alone knows what stood against the plan."""
    made = world.made()
    result = PolicyResult("open", "deny", Address("prompt", "hello"), False, "no", basis="base")
    weaker = Weakening(Address("gate", "faq"), ("min 0.9 → 0.5",), "main")
    saved = world.saved(replace(made, policies=(result,), weakened=(weaker,)))
    again = with_base(made, saved)
    assert (again.policies, again.weakened) == ((result,), (weaker,))
    refuse_if_stale(Path("plan.json"), saved, again)
    with world.acting("ann"):
        approve(world.workspace(), saved, LASTS, NOW)
    assert [a.signer for a in world.count(made=again).given] == ["ann@example.org"]
    edited = with_base(made, world.saved(made))  # the refusal was cut out of the file, and its digests were made anew
    found = world.count(made=edited)
    assert (found.given, len(found.others)) == ((), 1)


def test_a_plan_of_other_rules_is_stale_and_says_why(world: World) -> None:
    made = world.made()
    saved = world.saved(replace(made, impact=("nothing happens",)))
    with pytest.raises(StalePlan) as stale:
        refuse_if_stale(Path("plan.json"), saved, made)
    assert stale.value.detail == "its impact: not as it was planned"


def test_to_lower_the_number_needs_as_many_as_before_once_more(world: World) -> None:
    world.record("apply", approvals={"required": 2, "declared": 2, "given": []}, applied_source="")
    world.write(approvals=0, text="Good day")
    world.commit("dora")
    found = world.count()
    assert (found.required, found.declared) == (2, 0)
    with pytest.raises(Denied, match="it needs 2 and has 0") as denied:
        require_approvals(world.made(), found, None, "")
    assert "The file asks for 0; 2 were needed before" in denied.value.detail


def test_an_empty_plan_needs_none(world: World) -> None:
    made = world.made()
    empty = replace(made, steps=(), changes=())
    assert world.count(made=empty).consent.missing == 0
    with world.acting("ann"), pytest.raises(InvalidInput, match="does nothing"):
        approvable(world.workspace(), Path("plan.json"), world.saved(empty))


def test_a_plan_for_elsewhere_an_offline_one_and_an_old_one_are_not_approved(world: World) -> None:
    made, file = world.made(), Path("plan.json")
    with world.acting("ann"):
        workspace = world.workspace()
        with pytest.raises(InvalidInput, match="is an offline plan"):
            approvable(workspace, file, world.saved(replace(made, offline=True)))
        other = replace(made, desired=replace(made.desired, project="other"))
        with pytest.raises(InvalidInput, match="is a plan for other, environment dev"):
            approvable(workspace, file, world.saved(other))
    saved = world.saved(made)
    world.record("apply")
    with world.acting("ann"), pytest.raises(StalePlan, match=r"plan\.json is stale"):
        approvable(world.workspace(), file, saved)


def test_an_approval_travels_by_the_remote_and_goes_when_its_plan_is_closed(world: World) -> None:
    bare = world.folder / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    git(world.root, "remote", "add", "origin", str(bare))
    world.write(record=", record: {remote: origin}")
    world.commit("dora")
    git(world.root, "push", "-q", "origin", "main")
    clone = world.folder / "clone"
    git(world.folder, "clone", "-q", str(bare), str(clone))
    made, here = world.made(), world.root
    world.root = clone
    assert plan_digest(world.made("ann")) == plan_digest(made), "the same plan in another clone"
    found = world.approve("ann", made)
    assert found.pushed
    world.approve("ann", made, lasts=timedelta(days=8))  # again: in place of the first
    assert git(bare, "for-each-ref", "--format=%(refname)", "refs/llmctl") == found.ref
    world.root = here
    assert world.given() == ["ann@example.org"]
    assert read_approvals(open_repository(here), "dev") == [], "it is known by what was fetched alone"
    with world.acting("bot"):
        remove_approvals(world.workspace().repository, "dev")
    assert git(bare, "for-each-ref", "refs/llmctl") == ""


def test_a_remote_that_is_away_is_told_and_the_approval_stays(world: World) -> None:
    bare = world.folder / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    git(world.root, "remote", "add", "origin", str(bare))
    world.write(record=", record: {remote: origin}")
    made = world.made()
    bare.rename(world.folder / "away.git")
    with pytest.raises(RecordError, match="the approval is signed, and origin has not got it") as error:
        world.approve("ann", made)
    assert "git push origin refs/llmctl/dev/approvals/" in error.value.hint
    assert [a.plan for a in read_approvals(open_repository(world.root), "dev")] == [plan_digest(made)]


def test_all_are_cleared_away_once_an_entry_is_made(world: World) -> None:
    world.approve("ann")
    world.write(text="Good day")
    world.approve("bob")
    repository = open_repository(world.root)
    assert len(read_approvals(repository, "dev")) == 2
    remove_approvals(repository, "dev")
    assert read_approvals(repository, "dev") == []


def test_refs_that_are_no_approvals_are_left_aside(world: World) -> None:
    blob = git(world.root, "hash-object", "-w", "--stdin", stdin=b"nonsense")
    for name, there in (("a/b", blob), ("c/d", git(world.root, "rev-parse", "HEAD"))):
        git(world.root, "update-ref", f"refs/llmctl/dev/approvals/{name}", there)
    assert read_approvals(open_repository(world.root), "dev") == []
    assert world.count().refused == ()


def test_a_record_that_is_not_there_asks_for_what_the_file_asks(world: World) -> None:
    assert world.made().recorded == RecordState("dev")
    assert world.count().required == 2


def test_a_commit_that_somebody_signed_for_another_end_is_no_approval(world: World) -> None:
    """Ann picks a commit of a stranger, whose text says that it approves the plan."""
    world.people["eve"] = Person.make(world.folder / "people", "eve", signs=False)
    world.write(text="Good day")
    world.commit("dora")
    world.record("apply", applied_source=git(world.root, "rev-parse", "HEAD"))
    message = git(world.root, "log", "-1", "--format=%B", world.approve("bob").ref)
    git(world.root, "switch", "-q", "-c", "side")
    world.commit("eve", message)
    git(world.root, "switch", "-q", "-c", "picked", "main")
    with world.acting("ann"):
        git(world.root, "cherry-pick", "--allow-empty", "-S", "side")
    git(world.root, "switch", "-q", "main")
    git(world.root, "update-ref", "refs/llmctl/dev/approvals/a/b", "picked")
    assert world.given() == ["bob@example.org"]


def test_a_destroy_needs_approvals_also_where_nothing_is_recorded(world: World) -> None:
    """`llmctl state rm` forgets what runs, and asks for no approval; what runs then is destroyed all the same."""
    with world.acting("bot"):
        workspace = world.workspace()
        made = plan_for(workspace, nothing_desired(workspace), action="destroy")
    assert made.is_empty
    assert world.count(made=made).required == 2
    world.approve("ann", made)
    assert [a.signer for a in world.count(made=made).given] == ["ann@example.org"]
    approvable(world.workspace(), world.folder / "plan.json", world.saved(made))
