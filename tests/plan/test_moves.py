"""Renames: the record goes along, traffic does not stop, and nothing is proven that did not change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmctl.core.address import Address
from llmctl.core.resources import Recorded, RecordState, Resource
from llmctl.core.steps import Action, Destroy, Move, Promote, Provision, Retire, RunGate, Stage
from llmctl.live import LiveState
from llmctl.plan import Plan, as_recorded, back_to, build_plan, undone
from tests.plan.builders import ENVIRONMENT, application, desired, live, recorded

ROUTE = ("route.support", "route.help")


def moved_to(name: str) -> dict[str, str]:
    return {"route.support": name}


def ids(plan: Plan) -> list[str]:
    return [step.id.partition("@")[0] for step in plan.steps]


def test_a_renamed_prompt_is_one_step_and_its_route_only_follows() -> None:
    before, after = application(), application(names={"prompt.answer": "reply"})
    plan = build_plan(desired(after, ("prompt.answer", "prompt.reply")), recorded(before), live(before))
    by_address = {str(c.address): c for c in plan.changes}
    assert set(by_address) == {"prompt.reply", "route.support"}
    change = by_address["prompt.reply"]
    assert (change.action, change.moved_from) == (Action.MOVE, Address("prompt", "answer"))
    assert (change.version_before, change.version_after, change.reason) == (1, 1, "renamed from prompt.answer")
    assert by_address["route.support"].action is Action.UPDATE
    assert by_address["route.support"].reason == "follows the rename of prompt.answer to prompt.reply"
    assert ids(plan) == ["move:prompt.reply", "provision:route.support"]
    move = plan.steps[0]
    assert isinstance(move, Move)
    assert (move.origin, move.revision) == (Address("prompt", "answer"), change.before)
    assert plan.impact == ("prompt.answer becomes prompt.reply: nothing else of it changes",)


def test_a_renamed_route_serves_on_and_its_gate_is_not_asked_again() -> None:
    before, after = application(), application(names=moved_to("help"), aliases=("support",))
    plan = build_plan(desired(after, ROUTE), recorded(before), live(before))
    assert {str(c.address): c.action for c in plan.changes} == {
        "route.help": Action.MOVE,
        "gate.faq": Action.UPDATE,
    }
    assert ids(plan) == ["move:route.help", "provision:route.help", "provision:gate.faq"]
    assert not plan.weakened
    assert plan.impact == ("route.support becomes route.help without an outage, and still answers to its old name",)
    assert as_recorded(plan, Address("route", "help")) == recorded(before).resources[Address("route", "support")]


def test_a_renamed_and_changed_route_rolls_out_under_its_new_name_alone() -> None:
    before, after = application(), application(names=moved_to("help"), aliases=("support",), system="Be kind.")
    plan = build_plan(desired(after, ROUTE), recorded(before), live(before))
    change = next(c for c in plan.changes if c.address.kind == "route")
    assert (change.action, change.reason) == (Action.REPLACE, "renamed from route.support; prompt changed")
    stage = next(s for s in plan.steps if isinstance(s, Stage))
    gate = next(s for s in plan.steps if isinstance(s, RunGate))
    assert "move:route.help" in stage.needs
    assert gate.baseline == change.before
    assert [str(s.address) for s in plan.steps if isinstance(s, Retire | Promote)] == ["route.help", "route.help"]
    assert not [s for s in plan.steps if isinstance(s, Destroy)]


def test_a_drifted_route_is_put_right_before_it_is_renamed() -> None:
    before, after = application(), application(names=moved_to("help"), aliases=("support",))
    seen = live(before)
    config = seen.gateway.configs["local"]
    seen = LiveState(seen.readings, replace(seen.gateway, configs={"local": replace(config, routes={})}))
    plan = build_plan(desired(after, ROUTE), recorded(before), seen)
    restore, move = plan.steps[0], plan.steps[1]
    assert isinstance(restore, Promote)
    assert isinstance(move, Move)
    assert (restore.address, restore.action) == (Address("route", "support"), Action.RESTORE)
    assert move.after == (restore.id,)


def test_a_renamed_endpoint_runs_beside_the_old_one_until_its_route_has_left_that() -> None:
    before, after = application(), application(names={"endpoint.main": "primary"})
    plan = build_plan(desired(after, ("endpoint.main", "endpoint.primary")), recorded(before), live(before))
    by_address = {str(c.address): c for c in plan.changes}
    assert {a: c.action.value for a, c in by_address.items()} == {
        "endpoint.main": "delete",
        "endpoint.primary": "create",
        "route.support": "replace",
    }
    assert by_address["endpoint.primary"].version_after == 1
    assert by_address["endpoint.primary"].moved_from == Address("endpoint", "main")
    assert "goes when nothing uses it any more" in by_address["endpoint.main"].reason
    destroy = next(s for s in plan.steps if isinstance(s, Destroy))
    assert {s.id for s in plan.steps if isinstance(s, Retire | Promote)} <= set(destroy.needs)
    assert [s.address.name for s in plan.steps if isinstance(s, Provision)] == ["primary"]
    history = as_recorded(plan, Address("endpoint", "primary"))
    assert history is not None
    assert history.address == Address("endpoint", "main")


@pytest.mark.parametrize("kind", ["dataset", "model", "gate", "policy"])
def test_what_refers_to_a_new_name_follows_and_nothing_runs(kind: str) -> None:
    old = {"dataset": "faq", "model": "tiny", "gate": "faq", "policy": "open"}[kind]
    before, after = application(), application(names={f"{kind}.{old}": "renamed"})
    plan = build_plan(desired(after, (f"{kind}.{old}", f"{kind}.renamed")), recorded(before), live(before))
    change = next(c for c in plan.changes if c.address.kind == kind)
    assert (change.action, change.after) == (Action.MOVE, change.before)
    assert not [s for s in plan.steps if not isinstance(s, Move | Provision)]
    assert all("follows the rename" in c.reason for c in plan.changes if c is not change)


@pytest.mark.parametrize("after", ["stays", "changes", "goes"])
def test_an_old_name_is_given_up_when_the_route_that_takes_it_serves(after: str) -> None:
    before = application(names=moved_to("help"), aliases=("support",))
    taker = application(system="Be kind.")
    kept = {"stays": application(names=moved_to("help")), "changes": application(names=moved_to("help"), weights="w2")}
    wanted = {**kept.get(after, {}), **taker}
    plan = build_plan(desired(wanted), recorded(before), live(before))
    step = {"stays": "provision:route.help", "changes": "stage:route.help", "goes": "destroy:route.help"}[after]
    (gives_up,) = (s for s in plan.steps if s.id.partition("@")[0] == step)
    (serves,) = (s for s in plan.steps if isinstance(s, Promote) and s.address == Address("route", "support"))
    assert serves.id in gives_up.needs


def test_a_rename_that_was_made_or_was_never_needed_is_nothing() -> None:
    after = application(names=moved_to("help"), aliases=("support",))
    assert build_plan(desired(after, ROUTE), recorded(after), live(after)).is_empty
    first = build_plan(desired(after, ROUTE), recorded({}, 0), LiveState())
    assert not [s for s in first.steps if isinstance(s, Move)]
    both = {**application(), **after}
    plan = build_plan(desired(after, ROUTE), recorded(both), live(both))
    assert [s.address for s in plan.steps if isinstance(s, Destroy)] == [Address("route", "support")]


def test_a_chain_of_renames_is_followed_to_its_end() -> None:
    before, after = application(), application(names=moved_to("ask"), aliases=("help", "support"))
    plan = build_plan(desired(after, ROUTE, ("route.help", "route.ask")), recorded(before), live(before))
    assert plan.desired.moved == ((Address("route", "support"), Address("route", "ask")),)


def back(before: dict[Address, Resource], after: dict[Address, Resource]) -> Plan:
    """The plan of a rollback from what is recorded ``after`` to what was recorded ``before``."""
    then, now = recorded(before), recorded(after, serial=2)
    history = {  # as a rename leaves it: the new name goes on where the old one stopped
        a: replace(was, revisions=(first,) if first == was.revision else (first, was.revision))
        for (a, was), first in zip(now.resources.items(), (r.revision for r in before.values()), strict=True)
    }
    now = replace(now, resources=history)
    want = back_to(then, now, ENVIRONMENT, "/project")
    return build_plan(want, now, live(after, 2), action="rollback", gated=False, rollback_to=1)


def test_a_rollback_across_a_rename_is_a_move_back_and_no_name_stops_answering() -> None:
    renamed = application(names=moved_to("help"), aliases=("support",))
    plan = back(application(), renamed)
    assert {str(c.address): c.action for c in plan.changes} == {"route.support": Action.MOVE, "gate.faq": Action.UPDATE}
    assert ids(plan) == ["move:route.support", "provision:route.support", "provision:gate.faq"]
    assert plan.desired.resources[Address("route", "support")].spec["aliases"] == ["help"]
    assert not plan.weakened
    assert plan.impact == ("route.help becomes route.support without an outage, and still answers to its old name",)


def test_a_rollback_across_a_rename_and_a_change_takes_both_back() -> None:
    renamed = application(names=moved_to("help") | {"prompt.answer": "reply"}, aliases=("support",), system="Be kind.")
    plan = back(application(), renamed)
    by_address = {str(c.address): c for c in plan.changes}
    assert by_address["route.support"].moved_from == Address("route", "help")
    assert by_address["prompt.answer"].moved_from == Address("prompt", "reply")
    assert not [s for s in plan.steps if isinstance(s, Destroy)]
    assert not plan.weakened


def test_a_rollback_after_that_rollback_keeps_the_name_too() -> None:
    """To the same entry, or to one with other content: who learned the newer name still asks by it."""
    for then in (application(), application(system="Be kind.")):
        want = back_to(recorded(then), recorded(application(aliases=("help",)), 3), ENVIRONMENT, "/project")
        assert want.resources[Address("route", "support")].spec["aliases"] == ["help"]
    other = application(names=moved_to("ask"), aliases=("help",))
    both = application() | {a: r for a, r in other.items() if a.kind == "route"}
    want = back_to(recorded(both), recorded(application(aliases=("help",)), 3), ENVIRONMENT, "/project")
    assert want.resources[Address("route", "support")].spec["aliases"] == []


def test_what_is_protected_under_its_new_name_keeps_it_in_a_rollback() -> None:
    """Nobody can write anything at the name that it had then."""
    renamed = application(names={"endpoint.main": "primary"}, weights="w2", protected=("endpoint.main",))
    plan = back(application(), renamed)
    assert [(str(d.address), d.hint) for d in plan.denials] == [
        ("endpoint.primary", "Apply `protect: false` for it first, in a change of its own.")
    ]
    assert not back(
        application(), application(names={"endpoint.main": "primary"}, protected=("endpoint.main",))
    ).denials


def test_a_name_that_another_route_had_then_is_given_back_to_it() -> None:
    """And the route whose alias it is now still answers to its own."""
    both = application() | {
        a: r for a, r in application(names=moved_to("ask"), system="Be kind.").items() if a.kind == "route"
    }
    now = application(names=moved_to("help"), aliases=("ask", "support"))
    want = back_to(recorded(both), recorded(now, 2), ENVIRONMENT, "/project")
    assert want.moved == ((Address("route", "help"), Address("route", "support")),)
    assert want.resources[Address("route", "support")].spec["aliases"] == ["help"]


def test_what_was_declared_anew_since_is_no_rename() -> None:
    now = application(names=moved_to("help"), system="Be kind.")
    assert undone(recorded(application()), recorded(now, 2)) == ()


def histories(kind: str, **revisions: str) -> RecordState:
    """Resources by name, with a letter for each revision that they had; after ``=`` the aliases of a route."""
    found = {}
    for name, said in revisions.items():
        had, _, aliases = said.partition("=")
        spec = {"aliases": aliases.split()} if kind == "route" else {}
        found[Address(kind, name)] = Recorded(Address(kind, name), spec, had[-1], len(had), (), tuple(had))
    return replace(recorded({}), resources=found)


@pytest.mark.parametrize(
    ("kind", "then", "now", "found"),
    [
        ("model", {"x": "a", "y": "ab"}, {"p": "ab", "q": "a"}, "q→x p→y"),
        ("model", {"x": "ab", "y": "a"}, {"p": "a", "q": "abc"}, "q→x p→y"),
        ("model", {"x": "a"}, {"p": "ab", "q": "a"}, "q→x"),
        ("model", {"x": "a", "y": "a"}, {"p": "a", "q": "a"}, "p→x q→y"),
        ("model", {"x": "ab"}, {"p": "a", "q": "b", "r": "ba"}, ""),
        ("model", {"x": "a", "y": "b"}, {"x": "ba", "y": "ab"}, ""),
        ("route", {"x": "a", "y": "a"}, {"p": "ab=y", "q": "ac"}, "q→x p→y"),
        ("route", {"x": "a", "y": "ab"}, {"p": "abc=x", "q": "ab"}, "p→x q→y"),
    ],
)
def test_whose_history_goes_on_under_which_name(
    kind: str, then: dict[str, str], now: dict[str, str], found: str
) -> None:
    pairs = undone(histories(kind, **then), histories(kind, **now))
    assert " ".join(f"{here.name}→{before.name}" for here, before in pairs) == found


def test_a_rejected_revision_stays_rejected_under_another_name() -> None:
    before, after = application(), application(names=moved_to("help"), system="Be kind.")
    wanted = after[Address("route", "help")].revision
    from llmctl.core.resources import Rejection

    state: RecordState = recorded(before, rejections=(Rejection(Address("route", "support"), wanted, 3, "wrong"),))
    plan = build_plan(desired(after, ROUTE), state, live(before))
    assert [d.address for d in plan.denials] == [Address("route", "help")]
