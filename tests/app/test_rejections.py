"""Which revisions a rollback rejects: those that it really left."""

from __future__ import annotations

from llmctl.app.applying import Request, _rejections
from llmctl.apply import ApplyResult, Collected, State, StepResult
from llmctl.core.address import Address
from llmctl.core.steps import Action, Promote
from llmctl.plan import build_plan
from tests.plan.builders import application, desired, live, recorded

ROUTE = Address("route", "support")


def rejected(action: Action, state: State) -> list[str]:
    """The revisions rejected by a rollback whose only promotion had this action and ended in this state."""
    old, new = application(), application(system="Be kind.")
    plan = build_plan(desired(old), recorded(new, serial=2), live(new), action="rollback", gated=False, rollback_to=1)
    request = Request(lambda _: True, Collected(), lambda _: None, rollback_to=1, reason="wrong tone")
    step = Promote("p", ROUTE, (), plan.desired.resources[ROUTE].revision, action)
    result = ApplyResult((StepResult(step, state),), plan.recorded.resources)
    found = _rejections(plan, request, result, "Ann")
    assert all((r.address, r.serial, r.reason) == (ROUTE, 3, "wrong tone") for r in found)
    assert all(r.revision == new[ROUTE].revision for r in found)
    return [r.revision for r in found]


def test_what_was_left_is_rejected() -> None:
    assert len(rejected(Action.REPLACE, State.DONE)) == 1


def test_what_still_serves_is_not_rejected() -> None:
    assert rejected(Action.REPLACE, State.FAILED) == []
    assert rejected(Action.RESTORE, State.DONE) == []
