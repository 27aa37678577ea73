"""Shifts that hold: traffic step by step, under a lease that is renewed, and back when anything fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmctl.apply.traffic import LEASE_S
from llmctl.core.address import Address
from llmctl.core.errors import LlmctlError, ProviderError, TransientError
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.resources import Key, RecordState, Resource
from llmctl.core.steps import Shift
from tests.apply.world import ENDPOINT, ROUTE, World, established, planned, with_fields
from tests.plan.builders import application

HOLD_S = 50.0


def canary(**change: Any) -> dict[Address, Resource]:
    return with_fields(application(**change), ROUTE, rollout={"canary": [10, 50, 100], "hold_s": HOLD_S})


def before() -> tuple[World, RecordState, str, str]:
    """A served application, its state, and the old and the new revision of its route."""
    world, state = established(canary())
    world.target.gateway.history.clear()
    return world, state, state.resources[ROUTE].revision, canary(weights="w2")[ROUTE].revision


def weights(config: GatewayConfig) -> dict[str, int]:
    return dict(config.routes["support"].weights)


def serves_as_before(world: World, state: RecordState) -> None:
    route = world.target.gateway.config.routes["support"]
    old = state.resources[ROUTE].revision
    assert (dict(route.weights), route.promoted, route.lease, set(route.revisions)) == ({old: 100}, old, None, {old})
    assert set(world.target.providers["endpoint"].found) == {Key("main", state.resources[ENDPOINT].revision)}


def test_traffic_moves_step_by_step_and_each_split_is_held() -> None:
    world, state, old, new = before()
    plan = planned(canary(weights="w2"), state, world)
    assert [s.hold_s for s in plan.steps if isinstance(s, Shift)] == [HOLD_S, HOLD_S, 0]
    result, _ = world.run(plan, 2)
    assert result.ok
    seen = [weights(c) for c in world.target.gateway.history]
    splits = [w for n, w in enumerate(seen) if n == 0 or w != seen[n - 1]]
    assert splits == [{old: 100}, {old: 90, new: 10}, {old: 50, new: 50}, {new: 100}]
    assert world.clock.passed == pytest.approx(2 * HOLD_S)
    told = world.told("s left")
    assert told[0] == f"90 % {old[:8]}, 10 % {new[:8]}, 50 s left"
    assert [line.rsplit(", ", 1)[1] for line in told[:3]] == ["50 s left", "49 s left", "48 s left"]


def test_the_lease_is_renewed_long_before_it_lapses() -> None:
    world, state, _, _ = before()
    ends: list[float] = []

    def during(_: float) -> None:
        lease = world.target.gateway.config.routes["support"].lease
        assert lease is not None
        ends.append(lease.expires_at - world.clock.wall())

    world.clock.during = during
    assert world.run(planned(canary(weights="w2"), state, world), 2)[0].ok
    assert min(ends) >= LEASE_S * 2 / 3
    leases = {c.routes["support"].lease for c in world.target.gateway.history} - {None}
    assert len(leases) == 2 * 3 + 1  # two holds of 50 s, renewed after 20 and 40, and the last shift
    assert [i.effect for i in world.journal.intents].count("renew lease") == 4


def test_ctrl_c_while_a_split_is_held_shifts_back() -> None:
    world, state, _, _ = before()
    run = world.begin(planned(canary(weights="w2"), state, world), 2)
    world.clock.during = lambda _: run.cancelled.set() if world.clock.passed > HOLD_S + 5 else None
    result = world.go(run)
    assert [(r.step.id.rsplit("@", 1)[0], r.text) for r in result.failed] == [("shift:route.support:50", "interrupted")]
    serves_as_before(world, state)
    assert run.resources[ROUTE] == state.resources[ROUTE]


def test_a_failure_at_half_shifts_all_back_to_the_old_revision() -> None:
    world, state, _, new = before()

    def trouble(config: GatewayConfig) -> LlmctlError | None:
        return ProviderError("out of memory") if weights(config).get(new) == 50 else None

    world.target.gateway.trouble = trouble
    result, run = world.run(planned(canary(weights="w2"), state, world), 2)
    assert [r.text for r in result.failed] == ["out of memory"]
    assert not result.warnings
    serves_as_before(world, state)
    assert run.resources[ROUTE] == state.resources[ROUTE]


@pytest.mark.parametrize("silent_s", [30.0, 600.0])
def test_a_lease_that_cannot_be_renewed_in_time_ends_the_split(silent_s: float) -> None:
    """A gateway that is silent for a while is asked again; once the lease lapses it has reverted by itself."""
    world, state, _, new = before()
    began: list[float] = []

    def trouble(config: GatewayConfig) -> LlmctlError | None:
        if weights(config).get(new) != 10:
            return None
        began.append(world.clock.passed)
        silent = 0 < world.clock.passed - began[0] < silent_s
        return TransientError("no answer") if silent else None

    world.target.gateway.trouble = trouble
    wanted = with_fields(canary(weights="w2"), ROUTE, rollout={"canary": [10, 100], "hold_s": 100.0})
    result, _ = world.run(planned(wanted, state, world), 2)
    if silent_s < LEASE_S:
        assert result.ok
    else:
        assert [r.text for r in result.failed] == ["no answer"]
        serves_as_before(world, state)


def test_what_is_lost_for_good_gets_no_share_and_keeps_no_new_revision_from_taking_over() -> None:
    world, state, _, new = before()
    lost = Key("main", state.resources[ENDPOINT].revision)
    endpoint = world.target.providers["endpoint"]
    endpoint.found.clear()
    world.target.gateway.config = replace(world.target.gateway.config, routes={})
    endpoint.trouble = lambda verb, key: ProviderError("lost") if (verb, key) == ("create", lost) else None
    result, _ = world.run(planned(canary(weights="w2"), state, world), 2)
    assert result.ok
    assert next(weights(c) for c in world.target.gateway.history if weights(c)) == {new: 100}
    for config in world.target.gateway.history:
        assert weights(config).keys() <= config.routes["support"].revisions.keys()
