"""Renames: the same thing under another name, without an outage, and whole after a crash at any point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from llmctl.apply import ApplyResult, Run
from llmctl.core.address import Address
from llmctl.core.errors import LlmctlError, ProviderError, RecordError
from llmctl.core.kinds import kind_of
from llmctl.core.resources import Key, RecordState, Resource
from llmctl.core.steps import Move
from tests.apply.world import ENDPOINT, PROMPT, ROUTE, World, applied, planned, recorded_by
from tests.plan.builders import application

REPLY = Address("prompt", "reply")
HELP = Address("route", "help")
MOVED = ((PROMPT, REPLY), (ROUTE, HELP))


def renamed(resources: Mapping[Address, Resource]) -> dict[Address, Resource]:
    """The application with its prompt and its route under other names."""
    names = dict(MOVED)

    def named(resource: Resource, **fields: Any) -> Resource:
        address = names.get(resource.address, resource.address)
        spec = {**resource.spec, **fields}
        needs = tuple(names.get(n, n) for n in resource.needs)
        return Resource(address, spec, kind_of(address.kind).revision(spec), needs)

    found = {names.get(a, a): named(r) for a, r in resources.items()}
    found[HELP] = named(resources[ROUTE], prompt="reply", aliases=["support"])
    found.pop(Address("gate", "faq"))
    return found


def apply_rename(world: World, state: RecordState, **change: Any) -> tuple[ApplyResult, Run]:
    plan = planned(renamed(application(**change)), state, world, moved=MOVED)
    return world.run(plan, state.serial + 1)


def is_renamed(world: World, run: Run, state: RecordState) -> None:
    revision = state.resources[ROUTE].revision
    route = world.target.gateway.config.routes["help"]
    assert set(world.target.gateway.config.routes) == {"help"}
    assert (dict(route.weights), route.promoted, route.aliases) == ({revision: 100}, revision, ("support",))
    prompt = state.resources[PROMPT]
    assert set(world.target.providers["prompt"].found) == {Key("reply", prompt.revision)}
    assert run.resources[REPLY] == replace(prompt, address=REPLY)
    assert run.resources[HELP].revisions == state.resources[ROUTE].revisions
    assert not {PROMPT, ROUTE} & run.resources.keys()
    again = planned(renamed(application()), recorded_by(run), world, moved=MOVED)
    assert again.is_empty
    assert not again.changes


def test_a_rename_keeps_content_revision_and_traffic() -> None:
    world, state = applied()
    world.target.gateway.history.clear()
    world.journal.changes.clear()
    result, run = apply_rename(world, state)
    assert result.ok
    assert world.target.gateway.history, "one swap at the least"
    for config in world.target.gateway.history:
        [route] = config.routes.values()
        assert route.name == "help", "no moment without the route, and none with two"
        assert (sum(route.weights.values()), route.aliases) == (100, ("support",))
    moves = sorted((c for c in world.journal.changes if c.subject.startswith("move ")), key=lambda c: c.subject)
    assert [c.subject for c in moves] == ["move prompt.answer to prompt.reply", "move route.support to route.help"]
    prompt, helped = state.resources[PROMPT], state.resources[ROUTE]
    assert [dict(c.resources) for c in moves] == [
        {REPLY: replace(prompt, address=REPLY), PROMPT: None},
        # What the gateway answers to from that moment: a crash right after it must not lose a name.
        {HELP: replace(helped, address=HELP, spec={**helped.spec, "aliases": ["support"]}), ROUTE: None},
    ]
    is_renamed(world, run, state)


@pytest.mark.parametrize(
    ("verb", "begins"),
    [("done", "move:prompt.reply"), ("done", "move:route.help"), ("commit", "move prompt"), ("commit", "move route")],
)
def test_what_a_crash_left_half_renamed_is_finished_by_the_next_apply(verb: str, begins: str) -> None:
    world, state = applied()

    def trouble(called: str, what: str) -> LlmctlError | None:
        return RecordError("the disk is full") if called == verb and what.startswith(begins) else None

    world.journal.trouble = trouble
    result, run = apply_rename(world, state)
    assert [r.text for r in result.failed] == ["the disk is full"]
    world.journal.trouble = lambda *_: None
    result, run = apply_rename(world, recorded_by(run))
    assert result.ok
    is_renamed(world, run, state)


def test_a_rename_stays_when_what_came_with_it_fails() -> None:
    world, state = applied()
    endpoint = world.target.providers["endpoint"]
    endpoint.trouble = lambda verb, _: ProviderError("corrupt GGUF") if verb == "create" else None
    result, run = apply_rename(world, state, weights="w2")
    assert not result.ok
    assert {r.step.address for r in result.done if isinstance(r.step, Move)} == {REPLY, HELP}
    route = world.target.gateway.config.routes["help"]
    assert (dict(route.weights), route.aliases) == ({state.resources[ROUTE].revision: 100}, ("support",))
    endpoint.trouble = lambda *_: None
    result, run = apply_rename(world, recorded_by(run))
    assert result.ok
    is_renamed(world, run, state)


def test_a_renamed_route_that_drifted_is_right_after_one_apply() -> None:
    world, state = applied()
    world.target.gateway.config = replace(world.target.gateway.config, routes={})
    result, run = apply_rename(world, state)
    assert result.ok
    is_renamed(world, run, state)


def test_a_renamed_artifact_goes_on_counting_its_versions() -> None:
    world, state = applied()
    _, run = apply_rename(world, state, system="Be kind.")
    assert [(r.version, len(r.revisions)) for r in (run.resources[REPLY], run.resources[HELP])] == [(2, 2), (2, 2)]
    assert world.target.gateway.config.routes["help"].aliases == ("support",)


def test_what_runs_under_its_name_is_not_moved() -> None:
    world, state = applied()
    plan = planned(application(), state, world)
    step = Move("move:endpoint.big", Address("endpoint", "big"), (), ENDPOINT, state.resources[ENDPOINT].revision)
    result, run = world.run(replace(plan, steps=(step,)), 2)
    assert [r.text for r in result.failed] == ["endpoint.main runs under its name and cannot be moved to endpoint.big"]
    assert run.resources == state.resources
