"""Break-glass: what it skips, what policy keeps it from skipping, what stays open after it and what closes that."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.app.break_glass import Ended, broken, checked_reason, ended, opening
from llmctl.app.interrupted import close_interrupted
from llmctl.app.status import Status
from llmctl.app.workspace import Workspace
from llmctl.apply import ApplyResult
from llmctl.cli.views.status import render_status
from llmctl.core.address import Address
from llmctl.core.decisions import BreakGlass
from llmctl.core.errors import InvalidInput
from llmctl.core.protocols import Change
from llmctl.core.resources import Desired, Recorded, Resource
from llmctl.core.steps import RunGate
from llmctl.plan import Plan, build_plan, skippable, skipped
from llmctl.record import Attempt, Lock, value
from tests.app.approving import World as People
from tests.plan.applications import applications, renames
from tests.plan.builders import application, desired, live, recorded
from tests.plan.world import EXAMPLES, Faults, World, applied, told, well_formed
from tests.record.helpers import evidence

DAY = date(2026, 11, 21)
WHY = "support is down since ten"
FAQ, SAFETY = Address("gate", "faq"), Address("gate", "safety")
SUPPORT = Address("route", "support")


def opened(*gates: Address, serial: int = 1, approvals: int = 0) -> BreakGlass:
    return BreakGlass(serial, WHY, "Bot <bot@example.org>", "2026-11-21T10:00:00Z", gates, approvals)


def two_gates(**changes: Any) -> dict[Address, Resource]:
    """The application with a second gate on its route."""
    found = application(**changes)
    faq = found[FAQ]
    return {**found, SAFETY: Resource(SAFETY, faq.spec, faq.revision, faq.needs)}


def with_policy(resources: dict[Address, Resource], require: str, **more: Any) -> dict[Address, Resource]:
    address = Address("policy", "glass")
    spec = {"applies_to": "plan", "require": require, "severity": "deny", "message": "no", "waivers": [], **more}
    return {**resources, address: Resource(address, spec, "p" * 16)}


def changed(resources: dict[Address, Resource], before: dict[Address, Resource] | None = None) -> tuple[Plan, Desired]:
    """The plan of a new prompt, when all else is applied."""
    was = before or {**resources, **{a: r for a, r in two_gates().items() if a.kind in ("prompt", "route")}}
    want = desired(resources)
    return build_plan(want, recorded(was), live(was)), want


def runs(made: Plan) -> list[str]:
    return [step.id.partition("@")[0] for step in made.steps if isinstance(step, RunGate)]


@pytest.mark.parametrize("text", ["", "  ", "broken", "   fire!   "])
def test_a_reason_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="needs a reason"):
        checked_reason(text)
    assert checked_reason(" the model is\n gone ") == "the model is gone"
    assert checked_reason("it is \x1b[2J gone \u202e") == "it is \ufffd[2J gone \ufffd"


def test_all_gates_that_could_stop_it_are_skipped_and_nothing_else_changes() -> None:
    made, want = changed(two_gates(system="Be kind."))
    emergency = broken(made, want, WHY, 1, DAY)
    assert (emergency.break_glass, emergency.skipped_gates) == (WHY, (FAQ, SAFETY))
    assert runs(emergency) == []
    assert emergency.gates == ()
    assert [s.id for s in emergency.steps] == [s.id for s in made.steps if not isinstance(s, RunGate)]
    assert emergency.inputs == made.inputs
    assert "gate.faq is skipped" in emergency.impact[0]
    well_formed(emergency)


def test_a_gate_that_has_passed_already_is_not_skipped() -> None:
    made, want = changed(two_gates(system="Be kind."))
    made = replace(made, gates=tuple(replace(g, cached="PASS") if g.gate == FAQ else g for g in made.gates))
    assert broken(made, want, WHY, 0, DAY).skipped_gates == (SAFETY,)
    failed = replace(made, gates=tuple(replace(g, cached="FAIL") for g in made.gates))
    assert broken(failed, want, WHY, 0, DAY).skipped_gates == (FAQ, SAFETY)


def test_where_nothing_has_to_be_skipped_it_is_an_ordinary_apply() -> None:
    made, want = changed(two_gates(system="Be kind."))
    made = replace(made, gates=tuple(replace(g, cached="PASS") for g in made.gates))
    assert broken(made, want, WHY, 0, DAY) is made
    assert broken(made, want, WHY, 2, DAY).break_glass == WHY, "approvals are missing"


def test_a_gate_that_the_change_weakens_is_still_run_as_it_was() -> None:
    made, want = changed(application(system="Be kind.", minimum=0.5), application())
    assert runs(made) == ["gate:faq:route.support", "gate:faq(recorded):route.support"]
    emergency = broken(made, want, WHY, 0, DAY)
    assert runs(emergency) == ["gate:faq(recorded):route.support"]
    assert [g.as_recorded for g in emergency.gates] == [True]
    well_formed(emergency)


@pytest.mark.parametrize(
    ("require", "left"),
    [
        ('!("gate.safety" in plan.skipped_gates)', (FAQ,)),
        ("size(plan.skipped_gates) <= 1", (FAQ,)),
        ('plan.break_glass == "" || plan.break_glass.contains("down")', (FAQ, SAFETY)),
    ],
)
def test_policy_says_which_gates_are_skipped(require: str, left: tuple[Address, ...]) -> None:
    made, want = changed(with_policy(two_gates(system="Be kind."), require))
    emergency = broken(made, want, WHY, 0, DAY)
    assert emergency.skipped_gates == left
    assert not [p for p in emergency.policies if p.denies]
    assert [g.gate for g in emergency.gates] == [g for g in (FAQ, SAFETY) if g not in left]


def test_a_policy_that_forbids_it_denies_it() -> None:
    made, want = changed(with_policy(two_gates(system="Be kind."), 'plan.break_glass == ""'))
    emergency = broken(made, want, WHY, 0, DAY)
    assert [(p.policy, p.ok) for p in emergency.policies if p.denies] == [("glass", False)]


def test_where_policy_lets_nothing_be_skipped_there_is_no_emergency() -> None:
    made, want = changed(with_policy(two_gates(system="Be kind."), "size(plan.skipped_gates) == 0"))
    with pytest.raises(InvalidInput, match=r"skip none of gate\.faq, gate\.safety"):
        broken(made, want, WHY, 0, DAY)
    assert broken(made, want, WHY, 1, DAY).skipped_gates == (), "approvals alone"


def test_an_emergency_does_not_put_another_one_right() -> None:
    resources = two_gates()
    want = desired(resources)
    for still in (opened(FAQ), opened(approvals=1)):
        made = build_plan(want, recorded(resources, break_glass=(still,)), live(resources))
        with pytest.raises(InvalidInput, match="put an earlier break-glass right"):
            broken(made, want, WHY, 1, DAY)


def test_a_policy_that_the_same_change_loosens_still_forbids_it() -> None:
    strict = with_policy(two_gates(), 'plan.break_glass == ""')
    loose = with_policy(two_gates(system="Be kind."), "true")
    made, want = changed(loose, strict)
    found = [p for p in broken(made, want, WHY, 0, DAY).policies if p.denies]
    assert [(p.policy, p.basis) for p in found] == [("glass", "base")]


def test_what_rules_of_another_revision_said_is_not_forgotten() -> None:
    made, want = changed(with_policy(two_gates(system="Be kind."), "true"))
    said = replace(broken(made, want, WHY, 0, DAY).policies[0], policy="old", basis="base", ok=False)
    emergency = broken(replace(made, policies=(said,)), want, WHY, 0, DAY)
    assert [p.policy for p in emergency.policies if p.denies] == ["old"]


# -- what stays open, and what closes it ----------------------------------------------------------


def reconciling(resources: dict[Address, Resource], *still: BreakGlass, **changes: Any) -> Plan:
    """The plan of ``changes`` where ``resources`` serve and these are open."""
    was = application(**changes) if changes else resources
    return build_plan(desired(resources), recorded(was, break_glass=still), live(was))


def test_what_was_skipped_runs_on_what_serves() -> None:
    plan = reconciling(two_gates(), opened(FAQ, serial=7))
    assert runs(plan) == ["gate:faq:route.support"]
    assert plan.gates[0].why == "the break-glass of serial 7 skipped it"
    assert plan.reconciles == (7,)
    assert plan.changes == ()
    assert not plan.is_empty


def test_missing_approvals_alone_leave_a_plan_without_steps_that_is_not_empty() -> None:
    plan = reconciling(application(), opened(serial=7, approvals=2))
    assert (plan.steps, plan.reconciles, plan.is_empty) == ((), (7,), False)


def test_a_new_revision_proves_itself_and_that_is_enough() -> None:
    after = application(system="Be kind.")
    plan = build_plan(desired(after), recorded(application(), break_glass=(opened(FAQ),)), live(application()))
    assert runs(plan) == ["gate:faq:route.support"]
    assert plan.gates[0].why == "proves the new revision of route.support"


@pytest.mark.parametrize("gone", [False, True])
def test_a_gate_that_was_skipped_is_not_weakened_or_deleted_before_it_has_passed(gone: bool) -> None:
    before = application()
    after = application(minimum=0.5)
    if gone:
        del after[FAQ]
    plan = build_plan(desired(after), recorded(before, break_glass=(opened(FAQ),)), live(before))
    proof = f"gate:faq(recorded):route.support@{before[SUPPORT].revision}"
    assert proof in {step.id for step in plan.steps}
    assert [proof in step.needs for step in plan.steps if step.address == FAQ and not isinstance(step, RunGate)] == [
        True
    ]
    well_formed(plan)


def test_a_rollback_and_a_plan_of_other_targets_do_not_run_it() -> None:
    was = recorded(application(), break_glass=(opened(FAQ),))
    seen = live(application())
    back = build_plan(desired(application()), was, seen, action="rollback", gated=False, rollback_to=1)
    assert (back.steps, back.reconciles) == ((), ())
    narrow = build_plan(desired(application()), was, seen, targets=(Address("dataset", "faq"),))
    assert (narrow.steps, narrow.reconciles, narrow.is_empty) == ((), (), True)


def test_a_destroy_ends_everything() -> None:
    was = recorded(application(), break_glass=(opened(FAQ, approvals=2),))
    made = build_plan(desired({}), was, live(application()), action="destroy", gated=False)
    assert ended(made, ApplyResult((), {}), (), None, finished=True) == Ended((), (1,))
    assert ended(made, None, (), None, finished=False).still_open == was.break_glass


def test_approvals_are_made_good_by_a_whole_apply_that_has_them() -> None:
    was = recorded(application(), break_glass=(opened(approvals=2),))
    made = build_plan(desired(application()), was, live(application()))
    done = ApplyResult((), dict(was.resources))
    assert ended(made, done, (), None, finished=True) == Ended((), (1,))
    for other in (replace(made, break_glass=WHY), replace(made, targets=(FAQ,))):
        assert ended(other, done, (), None, finished=True).still_open == was.break_glass
    assert ended(made, done, (), None, finished=False).still_open == was.break_glass


def test_an_emergency_that_changed_nothing_leaves_nothing_open() -> None:
    made, want = changed(application(system="Be kind."), application())
    emergency = broken(made, want, WHY, 2, DAY)
    own = opened(FAQ, serial=2, approvals=2)
    unchanged = ApplyResult((), dict(emergency.recorded.resources))
    assert ended(emergency, unchanged, (), own, finished=False).still_open == ()
    route = emergency.recorded.resources[SUPPORT]
    half = {**emergency.recorded.resources, SUPPORT: replace(route, revision="f" * 16)}
    assert ended(emergency, ApplyResult((), half), (), own, finished=False).still_open == (own,)


def test_a_rollback_to_what_was_proven_closes_it_and_to_what_was_not_does_not() -> None:
    was = recorded(application(system="Be kind."), break_glass=(opened(FAQ, serial=2),))
    back = build_plan(desired(application()), was, live(application(system="Be kind.")), action="rollback", gated=False)
    after = {a: _as_recorded(r) for a, r in application().items()}
    proof = _evidence(application())
    assert ended(back, ApplyResult((), after), (proof,), None, finished=True) == Ended((), (2,))
    assert ended(back, ApplyResult((), after), (), None, finished=True).still_open == was.break_glass
    old_gate = replace(proof, gate_revision="0" * 16)
    assert ended(back, ApplyResult((), after), (old_gate,), None, finished=True).closed == (2,), "as it was then"
    made = replace(back, action="apply")
    assert ended(made, ApplyResult((), after), (old_gate,), None, finished=True).still_open == was.break_glass


def _as_recorded(resource: Resource) -> Recorded:
    return Recorded(resource.address, resource.spec, resource.revision, 1, resource.needs, (resource.revision,))


def _evidence(resources: dict[Address, Resource]) -> Any:
    gate, route = resources[FAQ], resources[SUPPORT]
    return replace(evidence("faq"), gate_revision=gate.revision, route_revision=route.revision)


@pytest.mark.parametrize("changed", [False, True])
def test_an_emergency_that_was_killed_is_open_and_keeps_what_was_decided(world: People, changed: bool) -> None:
    """The plan is interpreted by hand, up to where the process dies. Traffic may have moved before that, whatever the
    record of the resources says."""
    world.record("apply")
    with world.acting("bot"):
        workspace = world.workspace()
        begun = _begin(workspace)
        actor = workspace.repository.actor()
        own = BreakGlass(begun.serial, WHY, actor, "2026-11-21T09:00:00Z", (FAQ,), 2)
        begun.decide({"reason": "OPS-1", "approvals": {"required": 2, "given": []}, "break_glass": own.to_json()})
        begun.commit(opening(own))
        if changed:
            begun.commit(Change("promote", {SUPPORT: _as_recorded(application()[SUPPORT])}))
        del begun
    with world.acting("ann"):
        workspace = world.workspace()
        said: list[str] = []
        with Lock(workspace.repository, "dev").acquire("test") as held:
            close_interrupted(workspace, held, said.append)
        state = workspace.reader.state()
        entry = workspace.reader.entry(2)
        closer = workspace.repository.actor()
    assert said[1:] == ["It is recorded as serial 2, interrupted."]
    assert state.break_glass == (own,)
    assert entry.entry.subject == "apply (break-glass) interrupted"
    assert value(entry.entry.trailers, "Break-Glass") == WHY
    assert (entry.decisions["reason"], entry.decisions["closed_by"]) == ("OPS-1", closer)
    assert entry.decisions["approvals"] == {"required": 2, "given": []}
    assert closer != actor


def _begin(workspace: Workspace) -> Attempt:
    state = workspace.recorded()
    return Attempt.begin(
        workspace.repository,
        "dev",
        state,
        fence=state.serial + 1,
        action="apply",
        plan_digest="sha256:" + "a" * 64,
        source_commit=workspace.repository.head_commit(),
        project="acme",
        actor=workspace.repository.actor(),
    )


@EXAMPLES
@given(st.data(), st.integers(0, 2**16))
def test_after_an_emergency_one_ordinary_apply_puts_all_right(data: st.DataObject, order: int) -> None:
    first = data.draw(applications(), "first")
    second = data.draw(applications(first), "second")
    world = applied(first, order)
    plan = world.plan(second.desired())
    chosen = tuple(g for g in skippable(plan) if data.draw(st.booleans(), f"skip {g}"))
    emergency = skipped(plan, chosen, WHY)
    well_formed(emergency)
    assert not {s.address for s in emergency.steps if isinstance(s, RunGate) and not s.as_recorded} & set(chosen)
    result = world.apply(emergency, order, Faults())
    assert result.ok, told(result)
    world.check()
    _left(world, emergency, result, opened(*chosen, serial=world.recorded.serial, approvals=1))
    assert {g for b in world.recorded.break_glass for g in b.gates} == set(chosen)

    third = data.draw(st.one_of(st.just(second), applications(second), renames(second)), "third")
    want = third.desired()
    to = dict(third.moved)
    plan = world.plan(want)
    well_formed(plan)
    assert plan.reconciles
    assert not plan.is_empty
    runs = {s.address for s in plan.steps if isinstance(s, RunGate) and not s.as_recorded}
    assert {to.get(g, g) for g in chosen} & want.resources.keys() <= runs
    failing = data.draw(st.sampled_from((None, *sorted(runs))), "failing")
    if failing is not None:
        _apply(world, plan, order, Faults(failing_gates=frozenset((failing.name,))))
        open_gates = {g for b in world.recorded.break_glass for g in b.gates}
        kept = {to.get(g, g) for g in chosen}
        if failing in kept and failing in world.recorded.resources:
            assert failing in open_gates
        plan = world.plan(want)
    _apply(world, plan, order, Faults())
    world.check()
    assert world.recorded.break_glass == ()
    assert world.plan(want).is_empty


def _apply(world: World, plan: Plan, order: int, faults: Faults) -> None:
    result = world.apply(plan, order, faults)
    _left(world, plan, result, None)


def _left(world: World, plan: Plan, result: ApplyResult, own: BreakGlass | None) -> None:
    found = ended(plan, result, (), own, finished=result.ok)
    world.recorded = replace(world.recorded, break_glass=found.still_open)


def test_nothing_is_open_in_a_record_that_had_no_emergency() -> None:
    assert build_plan(desired(application()), recorded(application()), live(application())).reconciles == ()


def test_a_policy_keeps_a_gate_from_being_skipped_under_a_new_name() -> None:
    rule = '!("gate.faq" in plan.skipped_gates)'
    before = with_policy(application(), rule)
    new = Address("gate", "questions")
    now = with_policy(application(system="Be kind."), rule)
    now[new] = replace(now.pop(FAQ), address=new)
    want = replace(desired(now), moved=((FAQ, new),))
    made = build_plan(want, recorded(before), live(before))
    assert skippable(made) == (new,)
    with pytest.raises(InvalidInput, match=r"skip none of gate\.questions"):
        broken(made, want, WHY, 0, DAY)


def test_status_shows_what_people_wrote_without_what_steers_a_terminal() -> None:
    glass = replace(opened(FAQ), reason="gone \x1b[2J\u202e", actor="Bot \x07<bot@example.org>")
    status = Status(
        environment="dev",
        target="local",
        serial=1,
        base_url="",
        gateway="down",
        gateway_note="",
        elsewhere="",
        routes=(),
        endpoints=(),
        resources=(),
        processes=(),
        drift=(),
        unreadable=("nothing \x9b31m",),
        lock="Eve \x1b]0;x",
        interrupted="",
        break_glass=(glass,),
    )
    text = click.unstyle(render_status(status))
    assert "gone " in text
    assert not set(text) & set("\x1b\x07\x9b\u202e")
