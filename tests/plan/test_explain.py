"""Why a plan does with one resource what it does, and why it does nothing with another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.policies import PolicyResult
from llmctl.core.resources import ALL, Reading
from llmctl.live import LiveState
from llmctl.plan import Explanation, Plan, build_plan, explain
from tests.plan.builders import application, desired, live, recorded


def told(plan: Plan, address: str) -> Explanation:
    found = explain(plan, Address.parse(address))
    assert found is not None
    return found


def planned(before: object = None, after: object = None, **more: object) -> Plan:
    was, want = before or application(), after or application()
    return build_plan(desired(want), recorded(was), live(was), **more)  # type: ignore[arg-type]


def test_a_chain_of_causes_goes_down_to_the_root() -> None:
    plan = planned(after=application(weights="w2", system="Be kind."))
    route = told(plan, "route.support")
    assert route.summary == "replace: prompt, endpoint changed"
    assert [(str(c.address), c.depth, c.reason) for c in route.causes] == [
        ("prompt.answer", 1, "messages changed"),
        ("endpoint.main", 1, "model changed"),
        ("model.tiny", 2, "weights changed"),
    ]
    assert [str(a) for a in route.dependents] == ["gate.faq"]
    assert [str(a) for a in route.gates] == ["gate.faq"]
    assert [str(g.gate) for g in route.runs] == ["gate.faq"]
    numbered = dict(route.steps)
    assert [plan.steps[n - 1] for n in numbered] == list(numbered.values())
    assert [s.id.partition(":")[0] for s in numbered.values()] == ["stage", "gate", "shift", "promote", "retire"]


def test_a_root_has_no_cause_and_names_what_depends_on_it() -> None:
    model = told(planned(after=application(weights="w2")), "model.tiny")
    assert model.causes == ()
    assert [str(a) for a in model.dependents] == ["endpoint.main", "gate.faq", "route.support"]
    assert [str(a) for a in model.gates] == ["gate.faq"]


def test_what_follows_a_change_in_place_names_it() -> None:
    route = told(planned(after=application(replicas=2)), "route.support")
    assert [(str(c.address), c.reason) for c in route.causes] == [
        ("endpoint.main", "changed in place; the revision stays")
    ]


def test_what_does_not_change_says_why() -> None:
    plan = planned(after=application(license="Apache-2.0"))
    assert told(plan, "prompt.answer").summary == "nothing: it is declared as serial 1 recorded it"
    assert told(plan, "endpoint.main").summary == (
        "nothing: it is declared as serial 1 recorded it; model.tiny changes, and nothing of that decides what it does"
    )
    assert told(plan, "endpoint.main").steps == ()
    assert explain(plan, Address("prompt", "other")) is None


def test_what_is_left_out_what_waits_and_what_is_blocked_say_so() -> None:
    after = application(weights="w2", policy={"message": "other"})
    left = told(planned(after=after, targets=(Address("policy", "open"),)), "route.support")
    assert (left.left_out, left.summary) == (True, "it would change, and is left out: no target asks for it")
    before = application()
    seen = live(before)
    hangs = Reading[object](unreadable={ALL: Diagnostic("it hangs")})
    seen = LiveState({**seen.readings, "endpoint": hangs}, seen.gateway)
    plan = build_plan(desired(after), recorded(before), seen)
    route, endpoint = told(plan, "route.support"), told(plan, "endpoint.main")
    assert route.waiting
    assert route.summary == "it waits, as it is recorded, until endpoint.main can be read"
    assert [str(d.address) for d in route.blocked] == ["endpoint.main"]
    assert endpoint.summary == "it cannot be read, so that it is neither changed nor taken for absent"


@pytest.mark.parametrize("name", ["support", "help"])
def test_a_rename_is_explained_under_both_names(name: str) -> None:
    before, after = application(), application(names={"route.support": "help"}, aliases=("support",))
    plan = build_plan(desired(after, ("route.support", "route.help")), recorded(before), live(before))
    found = told(plan, f"route.{name}")
    assert found.summary == {"support": "it becomes route.help", "help": "move: renamed from route.support"}[name]
    assert found.steps[0][1].id == "move:route.help"


def test_drift_denials_policies_and_weakening_are_told() -> None:
    before = application(protected=("endpoint.main",))
    seen = live(before)
    seen = LiveState({**seen.readings, "dataset": Reading()}, seen.gateway)
    plan = build_plan(desired(application(weights="w2", minimum=0.5)), recorded(before), seen)
    broken = PolicyResult("open", "deny", Address("model", "tiny"), False, "no")
    plan = replace(plan, policies=(broken,))
    assert told(plan, "dataset.faq").summary == "restore: what runs is not what is recorded: it is gone"
    assert [d.summary for d in told(plan, "endpoint.main").denials] == [
        "it is protected, and this plan would replace it"
    ]
    assert told(plan, "model.tiny").policies == (broken,)
    assert told(plan, "policy.open").policies == (broken,)
    assert [w.what for w in told(plan, "gate.faq").weakened] == [("exact_match min 0.9 → 0.5",)]
    assert sorted(g.as_recorded for g in told(plan, "gate.faq").runs) == [False, True]
