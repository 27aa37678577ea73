"""Many steps that change one gateway: what waits goes out together, and nobody pays for another's mistake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import monotonic

import pytest

from llmctl.apply.clock import Clock
from llmctl.apply.rollout import Rollout, Wish
from llmctl.core import gateway_config as gw
from llmctl.core.address import Address
from llmctl.core.errors import Conflict, ProviderError
from llmctl.core.protocols import Op
from llmctl.core.steps import Stage
from tests.apply.fakes import MemoryGateway

MANY = 20


def step(number: int) -> Stage:
    return Stage(f"stage:route.r{number}", Address("route", f"r{number}"), (), "1")


def staging(number: int) -> Callable[[gw.GatewayConfig], gw.GatewayConfig]:
    revision = gw.RouteRevision("1", (), {}, {}, ())
    return lambda config: gw.staged(config, f"r{number}", revision)


def together(
    gateway: MemoryGateway,
    edits: list[Callable[[gw.GatewayConfig], gw.GatewayConfig]],
    seconds: Mapping[int, float] | None = None,
) -> list[object]:
    """The outcome of each edit, when all come while the first is being published; ``seconds`` are left to some."""
    rollout = Rollout(gateway, "dev", Clock())
    first, go = Event(), Event()
    read = gateway.read

    def slow() -> gw.GatewayConfig:
        first.set()
        assert go.wait(60)
        gateway.read = read  # type: ignore[method-assign]
        return read()  # type: ignore[return-value]

    gateway.read = slow  # type: ignore[assignment,method-assign]

    def change(number: int) -> object:
        try:
            deadline = monotonic() + (seconds or {}).get(number, 600)
            wish = Wish(step(number), Op("x", deadline, serial=1, fence=1), edits[number])
            rollout.change([wish])
            return wish.changed if wish.error is None else wish.error
        except Exception as error:  # noqa: BLE001 - the outcome is what is asked for
            return error

    with ThreadPoolExecutor(len(edits)) as pool:
        leader = pool.submit(change, 0)
        assert first.wait(60)
        others = [pool.submit(change, number) for number in range(1, len(edits))]
        while len(rollout._waiting) < len(edits) - 1:
            Event().wait(0.001)
        go.set()
        return [future.result() for future in (leader, *others)]


def test_what_waits_is_published_at_once() -> None:
    gateway = MemoryGateway()
    assert together(gateway, [staging(number) for number in range(MANY)]) == [True] * MANY
    assert len(gateway.history) == 2
    assert set(gateway.config.routes) == {f"r{number}" for number in range(MANY)}


def test_an_edit_that_changes_nothing_says_so_beside_others() -> None:
    gateway = MemoryGateway()
    outcomes = together(gateway, [staging(0), lambda config: config, staging(2)])
    assert outcomes == [True, False, True]


@pytest.mark.parametrize("where", ["edit", "gateway"])
def test_a_mistake_is_told_to_its_step_alone(where: str) -> None:
    gateway = MemoryGateway()
    edits = [staging(number) for number in range(5)]
    if where == "edit":

        def broken(config: gw.GatewayConfig) -> gw.GatewayConfig:
            raise KeyError(config.environment)

        edits[2] = broken
    else:
        gateway.trouble = lambda config: ProviderError("no such upstream") if "r2" in config.routes else None
    outcomes = together(gateway, edits)
    assert isinstance(outcomes[2], KeyError if where == "edit" else ProviderError)
    assert [outcome for number, outcome in enumerate(outcomes) if number != 2] == [True] * 4
    assert set(gateway.config.routes) == {"r0", "r1", "r3", "r4"}


def test_a_conflict_makes_all_edits_again_on_what_is_there() -> None:
    gateway = MemoryGateway(conflicts=1)
    assert together(gateway, [staging(number) for number in range(6)]) == [True] * 6
    assert len(gateway.config.routes) == 6


def test_who_has_no_time_left_takes_none_from_the_others() -> None:
    gateway = MemoryGateway()
    late = dict.fromkeys(range(1, 6), -1.0)
    assert together(gateway, [staging(number) for number in range(7)], late) == [True] * 7
    gateway.conflicts = 1_000_000
    outcomes = together(gateway, [staging(number) for number in range(7, 10)], dict.fromkeys((0, 1), -1.0))
    assert [type(outcome) for outcome in outcomes] == [ProviderError, ProviderError, Conflict]


def test_who_comes_while_many_are_refused_does_not_wait_for_the_last_of_them() -> None:
    """A lease lapses after a minute, and hundreds of edits may be refused one by one."""
    gateway, came = MemoryGateway(), Event()
    refusals: list[str] = []
    rollout = Rollout(gateway, "dev", Clock())
    bad = [Wish(step(n), Op("x", monotonic() + 600, serial=1, fence=1), staging(n)) for n in range(MANY)]
    late = Wish(step(MANY), Op("x", monotonic() + 600, serial=1, fence=1), staging(MANY))

    def refuse(config: gw.GatewayConfig) -> ProviderError | None:
        if not refusals:
            came.set()
            while not rollout._waiting:
                Event().wait(0.001)
        there = config.routes.keys() - {f"r{MANY}"}
        if there:
            refusals.append("late" if late.changed and f"r{MANY}" in gateway.config.routes else "before")
        return ProviderError("no such upstream") if there else None

    gateway.trouble = refuse
    with ThreadPoolExecutor(2) as pool:
        many = pool.submit(rollout.change, bad)
        assert came.wait(60)
        pool.submit(rollout.change, [late]).result(60)
        many.result(60)
    assert all(isinstance(wish.error, ProviderError) for wish in bad)
    assert (late.error, late.changed) == (None, True)
    assert set(gateway.config.routes) == {f"r{MANY}"}
    assert "late" in refusals
