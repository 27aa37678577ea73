"""Kinds of plug-ins: one live thing a name, made and changed in place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmctl.core import kinds
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.kinds import Kind, Role
from llmctl.core.resources import Key, Live, Reading, Recorded, RecordState, Resource
from llmctl.core.steps import Action, Destroy, Provision
from llmctl.live import LiveState
from llmctl.plan import Plan, build_plan
from tests.plan.builders import application, desired, live, recorded

INDEX = Address("index", "faq")
COLLECTION = Address("collection", "all")


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Kind("index", "indexes", Role.RESOURCE, ("rows",)), Kind("collection", "cs", Role.RESOURCE, ("x",))):
        monkeypatch.setitem(kinds.BY_NAME, kind.name, kind)


def things(rows: str = "d1", size: int = 1, index: Address = INDEX) -> dict[Address, Resource]:
    """An application with an index over its dataset, and a collection that needs the index."""
    spec = {"rows": rows, "size": size, "protect": False}
    wanted = Resource(index, spec, kinds.kind_of("index").revision(spec), (Address("dataset", "faq"),))
    over = {"x": 1, "protect": False}
    collection = Resource(COLLECTION, over, kinds.kind_of("collection").revision(over), (index,))
    return {**application(rows=rows), COLLECTION: collection, index: wanted}


def seen(resources: dict[Address, Resource]) -> LiveState:
    state = live(resources)
    readings = {**state.readings}
    for kind in ("index", "collection"):
        keys = [(Key(a.name), r) for a, r in resources.items() if a.kind == kind]
        readings[kind] = Reading({key: Live[Json](key, r.spec, r.revision) for key, r in keys})
    return LiveState(readings, state.gateway)


def of_plugins(plan: Plan) -> list[tuple[str, str]]:
    mine = [s for s in plan.steps if isinstance(s, Provision) and s.address.kind in ("index", "collection")]
    return [(s.id.partition("@")[0], s.action.value) for s in mine]


def test_it_is_made_after_what_it_needs_and_then_nothing_is_left_to_do() -> None:
    after = things()
    plan = build_plan(desired(after), recorded({}, 0), LiveState())
    assert of_plugins(plan) == [("provision:index.faq", "create"), ("provision:collection.all", "create")]
    by_id = {s.id.partition("@")[0]: s for s in plan.steps}
    assert by_id["provision:index.faq"].needs == (by_id["provision:dataset.faq"].id,)
    assert by_id["provision:collection.all"].needs == (by_id["provision:index.faq"].id,)
    assert build_plan(desired(after), recorded(after), seen(after)).is_empty


def test_a_new_revision_and_an_operating_field_change_it_in_place() -> None:
    for after in (things(rows="d2"), things(size=2)):
        plan = build_plan(desired(after), recorded(things()), seen(things()))
        assert of_plugins(plan) == [("provision:index.faq", "update")]
    adopted = build_plan(desired(things()), recorded(application()), seen(things()))
    assert {c.action for c in adopted.changes} == {Action.ADOPT}


@pytest.mark.parametrize("state", ["gone", "another revision", "unhealthy"])
def test_drift_is_restored(state: str) -> None:
    resources = things()
    readings = dict(seen(resources).readings)
    key, there = next(iter(readings["index"].found.items()))
    if state == "gone":
        readings["index"] = Reading()
    else:
        ill = replace(there, healthy=False) if state == "unhealthy" else replace(there, revision="feedfacefeedface")
        readings["index"] = Reading({key: ill})
    live_state = LiveState(readings, seen(resources).gateway)
    plan = build_plan(desired(resources), recorded(resources), live_state)
    assert of_plugins(plan) == [("provision:index.faq", "restore")]
    assert [str(d.address) for d in plan.drift] == ["index.faq"]
    changed = build_plan(desired(things(size=2)), recorded(resources), live_state)
    assert of_plugins(changed) == [("provision:index.faq", "update")]


def test_one_that_nobody_recorded_is_not_ours_to_delete() -> None:
    resources = application()
    plan = build_plan(desired(resources), recorded(resources), seen(things()))
    assert plan.is_empty
    assert not plan.drift


def test_it_is_deleted_before_what_it_needs() -> None:
    before = things()
    after = {a: r for a, r in before.items() if a not in (INDEX, COLLECTION)}
    plan = build_plan(desired(after), recorded(before), seen(before))
    assert [str(s.address) for s in plan.steps if isinstance(s, Destroy)] == ["collection.all", "index.faq"]


def test_a_renamed_one_is_made_beside_the_old_one_with_its_history() -> None:
    other = Address("index", "questions")
    before, after = things(rows="d2"), things(rows="d2", index=other)
    state: RecordState = recorded(before)
    was: Recorded = replace(state.resources[INDEX], version=2, revisions=("0" * 16, before[INDEX].revision))
    state = replace(state, resources={**state.resources, INDEX: was})
    plan = build_plan(desired(after, ("index.faq", "index.questions")), state, seen(before))
    created = next(c for c in plan.changes if c.address == other)
    assert (created.action, created.version_after, created.moved_from) == (Action.CREATE, 2, INDEX)
    destroy = next(s for s in plan.steps if isinstance(s, Destroy))
    assert {s.id for s in plan.steps if s.address in (other, COLLECTION)} <= set(destroy.needs)
    assert not plan.denials
    kept = replace(was, spec={**was.spec, "protect": True})
    state = replace(state, resources={**state.resources, INDEX: kept})
    denied = build_plan(desired(after, ("index.faq", "index.questions")), state, seen(before)).denials
    assert [(d.address, d.summary) for d in denied] == [(INDEX, "it is protected, and this plan would delete it")]
    assert denied[0].hint == "Keep the name faq and apply `protect: false` for it; then rename it."


def test_an_unreadable_one_blocks_itself_and_what_needs_it() -> None:
    before, after = things(), things(rows="d2", size=2)
    readings = {**seen(before).readings, "index": Reading(unreadable={Key("faq"): Diagnostic("it hangs")})}
    plan = build_plan(desired(after), recorded(before), LiveState(readings, seen(before).gateway))
    assert [str(d.address) for d in plan.blocked] == ["index.faq"]
    assert of_plugins(plan) == []
    assert "dataset.faq" in {str(c.address) for c in plan.changes}
