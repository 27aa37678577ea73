"""Which revisions a rollback rejects: those that it really left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.app.entry import rejections
from llmctl.app.interrupted import close_interrupted
from llmctl.app.request import Request
from llmctl.app.rollback import find_rejection
from llmctl.app.workspace import open_workspace
from llmctl.apply import ApplyResult, Collected, State, StepResult
from llmctl.core.address import Address
from llmctl.core.errors import InvalidInput
from llmctl.core.protocols import Change
from llmctl.core.resources import Rejection, Resource
from llmctl.core.steps import Action, Destroy, Move, Promote, Step
from llmctl.plan import build_plan
from llmctl.record import Lock
from tests.plan.builders import application, desired, live, recorded
from tests.record.helpers import begin, make_repository

ROUTE = Address("route", "support")


NEW = application(system="Be kind.")


def rejected(step: Step, state: State, old: dict[Address, Resource]) -> list[str]:
    """The revisions rejected by a rollback from ``NEW`` to ``old`` whose only step ended in this state."""
    new = NEW
    plan = build_plan(desired(old), recorded(new, serial=2), live(new), action="rollback", gated=False, rollback_to=1)
    request = Request(lambda _: True, Collected(), lambda _: None, rollback_to=1, reason="wrong tone")
    result = ApplyResult((StepResult(step, state),), plan.recorded.resources)
    found = rejections(plan, request, result, "Ann")
    assert all((r.address, r.serial, r.reason) == (ROUTE, 3, "wrong tone") for r in found)
    assert all(r.revision == new[ROUTE].revision for r in found)
    return [r.revision for r in found]


def promoted(action: Action, state: State) -> list[str]:
    old = application()
    return rejected(Promote("p", ROUTE, (), old[ROUTE].revision, action), state, old)


def test_what_was_left_is_rejected() -> None:
    assert len(promoted(Action.REPLACE, State.DONE)) == 1


def test_what_still_serves_is_not_rejected() -> None:
    assert promoted(Action.REPLACE, State.FAILED) == []
    assert promoted(Action.RESTORE, State.DONE) == []


def test_a_route_that_went_is_rejected_as_well() -> None:
    """It was renamed or declared since: the next apply must not bring back at once what was left."""
    old = application(names={"route.support": "help"})
    destroy = Destroy("d", ROUTE, (), revision=NEW[ROUTE].revision)
    assert rejected(destroy, State.DONE, old) == [NEW[ROUTE].revision]
    assert rejected(destroy, State.FAILED, old) == []


def test_a_rename_takes_what_is_rejected_along() -> None:
    """Otherwise the rejected revision could come back under the new name, in a change of its own."""
    before, help_ = application(), application(names={"route.support": "help"}, aliases=("support",))
    bad = Rejection(ROUTE, NEW[ROUTE].revision, 3, "wrong tone")
    wanted = desired(help_, ("route.support", "route.help"))
    plan = build_plan(wanted, recorded(before, rejections=(bad,)), live(before))
    move = next(step for step in plan.steps if isinstance(step, Move))
    request = Request(lambda _: True, Collected(), lambda _: None)
    for state, name in ((State.DONE, "help"), (State.SKIPPED, "support")):
        result = ApplyResult((StepResult(move, state),), plan.recorded.resources)
        assert rejections(plan, request, result, "Ann") == (replace(bad, address=Address("route", name)),)


def test_of_two_routes_with_one_revision_each_can_be_named() -> None:
    """Routes with the same prompt and endpoint have the same revision."""
    help_, support = Address("route", "help"), Address("route", "support")
    both = tuple(Rejection(a, NEW[ROUTE].revision, 3, "wrong tone") for a in (help_, support))
    short = NEW[ROUTE].revision[:6]
    assert find_rejection(both, f"route.help@{short}").address == help_
    assert find_rejection(both, f"support@{short}").address == support
    assert find_rejection(both[:1], short).address == help_
    with pytest.raises(InvalidInput, match="names several rejected revisions; put the route before it"):
        find_rejection(both, short)
    for nothing in ("", "@", f"other@{short}", "ffffff"):
        with pytest.raises(InvalidInput, match="is not rejected"):
            find_rejection(both, nothing)
    plan = build_plan(desired(NEW), recorded(application(), rejections=both), live(application()))
    assert f"`llmctl unreject route.support@{NEW[ROUTE].revision[:8]} --reason" in plan.denials[0].hint


def test_a_rename_that_was_cut_short_takes_what_is_rejected_along(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "project")
    file = folder / "llmops.yaml"
    file.write_text("apiVersion: llmctl/v1\nproject: acme\nenvironments: {dev: {target: local}}\n")
    workspace = open_workspace(str(file), None)
    bad = Rejection(ROUTE, NEW[ROUTE].revision, 1, "wrong tone")
    was = recorded(application()).resources[ROUTE]
    help_ = Address("route", "help")
    first = begin(workspace.repository, action="rollback")
    first.commit(Change("support", {ROUTE: was}))
    first.close("rolled back", subject="first", decisions={}, rejections=(bad,))
    cut = begin(workspace.repository)
    cut.commit(Change("move", {help_: replace(was, address=help_), ROUTE: None}))
    with Lock(workspace.repository, "dev").acquire("apply") as held:
        close_interrupted(workspace, held, lambda _: None)
    state = workspace.recorded()
    assert list(state.resources) == [help_]
    assert state.rejections == (replace(bad, address=help_),)
