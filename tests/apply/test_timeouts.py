"""How long a step may take is what the revision's own spec says."""

from __future__ import annotations

from typing import Any

import pytest

from llmctl.core.address import Address
from llmctl.core.resources import Resource
from tests.apply.fakes import BusyGateway, MemoryTarget
from tests.apply.world import ENDPOINT, ROUTE, World, planned, recorded_by, with_fields
from tests.plan.builders import application, recorded


def with_timeouts(weights: str, **timeouts: Any) -> dict[Address, Resource]:
    """The application with timeouts of its endpoint, in the route's chain as well."""
    resources = with_fields(application(weights=weights), ENDPOINT, timeouts=timeouts)
    link = {**resources[ROUTE].spec["chain"][0], "spec": resources[ENDPOINT].spec}
    return with_fields(resources, ROUTE, chain=[link])


@pytest.mark.parametrize(("timeouts", "allowed"), [({"ready_s": 42.0}, 42.0), ({}, 180.0)])
def test_an_engine_has_its_own_time_to_get_ready(timeouts: dict[str, float], allowed: float) -> None:
    world = World()
    result, _ = world.run(planned(with_timeouts("w1", **timeouts), recorded({}, 0), world), 1)
    assert result.ok
    op = world.target.providers["endpoint"].ops[0]
    assert op.deadline_s - world.clock.now() == pytest.approx(allowed)


@pytest.mark.parametrize(("timeouts", "drained"), [({"drain_s": 7.0}, 7.0), ({}, 30.0)])
def test_an_old_engine_is_drained_as_long_as_its_own_revision_says(timeouts: dict[str, float], drained: float) -> None:
    world = World(MemoryTarget(gateway=BusyGateway()))
    result, run = world.run(planned(with_timeouts("w1", **timeouts), recorded({}, 0), world), 1)
    state = recorded_by(run)
    result, _ = world.run(planned(with_timeouts("w2", drain_s=99.0), state, world), 2)
    assert result.ok
    assert world.clock.passed == pytest.approx(drained, abs=0.1)
    assert len(world.target.providers["endpoint"].found) == 1


def test_an_interruption_ends_the_draining_and_the_old_engine_is_left_for_the_next_apply() -> None:
    world = World(MemoryTarget(gateway=BusyGateway()))
    _, first = world.run(planned(with_timeouts("w1"), recorded({}, 0), world), 1)
    run = world.begin(planned(with_timeouts("w2"), recorded_by(first), world), 2)
    world.clock.during = lambda _: run.cancelled.set()
    result = world.go(run)
    assert [r.step.id.split(":")[0] for r in result.failed] == ["retire"]
    assert run.resources[ROUTE].revision == with_timeouts("w2")[ROUTE].revision
    again = planned(with_timeouts("w2"), recorded_by(run), world)
    world.clock.during = lambda _: None
    assert world.run(again, 3)[0].ok
    assert len(world.target.providers["endpoint"].found) == 1
