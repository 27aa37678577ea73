"""The kinds of plug-ins: one live thing a name, made, changed and deleted in place, and put back after a failure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmctl.apply import ApplyResult, Run, run_destroy
from llmctl.core import kinds
from llmctl.core.address import Address
from llmctl.core.errors import Conflict, LlmctlError, ProviderError
from llmctl.core.kinds import Kind, Role, kind_of
from llmctl.core.resources import Desired, Key, Live, RecordState, Resource
from llmctl.plan import build_plan
from tests.apply.fakes import MemoryProvider, MemoryTarget
from tests.apply.world import World, recorded_by
from tests.plan.builders import desired, recorded

INDEX, VIEW = Address("index", "docs"), Address("view", "docs")
DOCS = Key("docs")


@pytest.fixture(autouse=True)
def plugin_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("index", "view"):
        monkeypatch.setitem(kinds.BY_NAME, name, Kind(name, f"{name}s", Role.RESOURCE, ("dimensions",)))


@pytest.fixture
def world() -> World:
    """A target with two plug-ins, whose things have a revision of their own."""
    made = MemoryTarget()
    made.providers = {**made.providers, **{k: _provider(k) for k in ("index", "view")}}
    return World(made)


def _provider(kind: str) -> MemoryProvider:
    return MemoryProvider(kind, revision_of=lambda _, want: kind_of(kind).revision(want))


def things(dimensions: int = 8, owner: str = "ann", view: int | None = None) -> Desired:
    """An index, and a view on it when ``view`` says of which size."""
    index = {"dimensions": dimensions, "owner": owner}
    found = {INDEX: Resource(INDEX, index, kind_of("index").revision(index))}
    if view is not None:
        spec = {"dimensions": view}
        found[VIEW] = Resource(VIEW, spec, kind_of("view").revision(spec), (INDEX,))
    return desired(found)


def apply(world: World, want: Desired, state: RecordState, action: str = "apply") -> tuple[ApplyResult, Run]:
    return world.run(build_plan(want, state, world.read(), action=action), state.serial + 1)


def first(world: World, **more: Any) -> RecordState:
    result, run = apply(world, things(**more), recorded({}, 0))
    assert result.ok, [r.text for r in result.failed]
    return recorded_by(run)


def live(world: World, kind: str = "index") -> Live[object] | None:
    return world.target.providers[kind].found.get(DOCS)


def calls(world: World, kind: str = "index") -> list[str]:
    return [verb for verb, _ in world.target.providers[kind].calls]


def refuse(world: World, verb: str, error: LlmctlError, kind: str = "view") -> None:
    world.target.providers[kind].trouble = lambda called, _: error if called == verb else None


def test_one_thing_a_name_is_made_changed_in_place_and_deleted(world: World) -> None:
    state = first(world)
    for want in (things(owner="bob"), things(dimensions=16, owner="bob")):
        result, run = apply(world, want, state)
        assert result.ok
        state = recorded_by(run)
        assert set(world.target.providers["index"].found) == {DOCS}
        there = live(world)
        assert there is not None
        assert (there.state, there.revision) == (want.resources[INDEX].spec, want.resources[INDEX].revision)
    assert calls(world) == ["create", "update", "update"]
    assert state.resources[INDEX].version == 2
    result, run = apply(world, desired({}), state)
    assert result.ok
    assert live(world) is None
    assert INDEX not in run.resources


@pytest.mark.parametrize("gone", [True, False])
def test_drift_is_restored(world: World, gone: bool) -> None:
    state = first(world)
    was = live(world)
    assert was is not None
    found = world.target.providers["index"].found
    found.pop(DOCS)
    if not gone:
        found[DOCS] = replace(was, state={"dimensions": 3}, revision="3")
    result, run = apply(world, things(), state)
    assert result.ok
    assert live(world) == was
    assert run.resources == state.resources
    assert build_plan(things(), recorded_by(run), world.read()).is_empty


def test_what_was_made_in_vain_is_deleted_and_what_was_changed_in_vain_is_changed_back(world: World) -> None:
    refuse(world, "create", ProviderError("no room"))
    result, run = apply(world, things(view=8), recorded({}, 0))
    assert [str(r.step.address) for r in result.undone] == ["index.docs"]
    assert live(world) is None
    assert not run.resources
    world.target.providers["view"].trouble = lambda *_: None
    state = first(world, view=8)
    refuse(world, "update", ProviderError("no room"))
    for changed in (things(dimensions=16, view=16), things(owner="bob", view=16)):
        result, run = apply(world, changed, state)
        assert [r.text for r in result.failed] == ["no room"]
        there = live(world)
        assert there is not None
        assert there.state == state.resources[INDEX].spec
        assert run.resources[INDEX].spec == state.resources[INDEX].spec
        assert not result.warnings


def test_what_is_somebody_elses_is_left_alone(world: World) -> None:
    """A conflict says so of a thing that is there; and what was only adopted is not ours to delete."""
    state = first(world, view=8)
    other = Live[object](DOCS, {"dimensions": 99}, "99")

    def meddle(verb: str, _: Key) -> LlmctlError | None:
        if verb != "update":
            return None
        world.target.providers["index"].found[DOCS] = other
        return Conflict("it is no longer what was read")

    world.target.providers["index"].trouble = meddle
    result, _ = apply(world, things(dimensions=16, view=8), state)
    assert not result.ok
    assert live(world) == other
    world.target.providers["index"].trouble = lambda *_: None

    wanted = things(view=8)
    mine = Live[object](DOCS, wanted.resources[INDEX].spec, wanted.resources[INDEX].revision)
    world.target.providers["index"].found[DOCS] = mine
    world.target.providers["view"].found.clear()
    refuse(world, "create", ProviderError("no room"))
    result, run = apply(world, wanted, recorded({}, 0))
    assert not result.ok
    there = live(world)
    assert there is not None
    assert there.state == mine.state
    assert INDEX not in run.resources


def test_a_reading_that_lists_half_does_not_lose_the_other_half(world: World) -> None:
    state = first(world)
    provider = world.target.providers["index"]
    provider.answer = lambda verb, made: replace(made, found={}) if verb == "read" else made
    result, run = apply(world, desired({}), state)
    assert result.ok
    assert INDEX not in run.resources
    assert not provider.found, "deleted, although it was not listed"


@pytest.mark.parametrize("error", [None, ProviderError("it is in use")])
def test_what_plug_ins_have_goes_before_the_target_ends(world: World, error: ProviderError | None) -> None:
    """Or leaves the target, when one of them cannot go."""
    state = first(world, view=8)
    run = world.begin(build_plan(desired({}), state, world.read(), action="destroy"), 2)
    ends: list[object] = []
    if error is not None:
        refuse(world, "delete", error)
    result = run_destroy(run, world.reporter, lambda: ends.append(live(world)))
    if error is None:
        assert result.ok
        assert ends == [None]
        assert (live(world, "view"), run.resources) == (None, {})
    else:
        assert [r.error for r in result.failed] == [error]
        assert not ends
        assert run.resources == state.resources
