"""Which revisions a rollback rejects: those that it really left."""

from __future__ import annotations

from llmctl.app.applying import Request, _rejections
from llmctl.apply import ApplyResult, Collected, State, StepResult
from llmctl.core.address import Address
from llmctl.core.resources import Resource
from llmctl.core.steps import Action, Destroy, Promote, Step
from llmctl.plan import build_plan
from tests.plan.builders import application, desired, live, recorded

ROUTE = Address("route", "support")


NEW = application(system="Be kind.")


def rejected(step: Step, state: State, old: dict[Address, Resource]) -> list[str]:
    """The revisions rejected by a rollback from ``NEW`` to ``old`` whose only step ended in this state."""
    new = NEW
    plan = build_plan(desired(old), recorded(new, serial=2), live(new), action="rollback", gated=False, rollback_to=1)
    request = Request(lambda _: True, Collected(), lambda _: None, rollback_to=1, reason="wrong tone")
    result = ApplyResult((StepResult(step, state),), plan.recorded.resources)
    found = _rejections(plan, request, result, "Ann")
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
