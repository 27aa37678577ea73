"""The properties of plan and apply over many routes, whose edits go out in groups, each as if it were alone.

As ``tests/plan/test_properties.py``, but with more routes than one publication has, in the plan's own order too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from typing import Any
from unittest.mock import patch

from hypothesis import event, given, note
from hypothesis import strategies as st

from llmctl.apply import Run, engine
from llmctl.apply.together import swap_together
from llmctl.core.errors import Interrupted, ProviderError
from llmctl.core.gateway_config import GatewayConfig
from tests.apply.fakes import FakeClock
from tests.apply.test_faulty_provider import CALLS, FAULTS, Mischief
from tests.apply.test_faulty_provider import World as FaultyWorld
from tests.plan.applications import App
from tests.plan.world import EXAMPLES, Faults, World, applied, told

NAMES = tuple(f"r{number:02}" for number in range(12))
_ORDERS = st.integers(0, 2**16)


@st.composite
def many(draw: st.DrawFn, like: App | None = None) -> App:
    """An application of up to a dozen routes, each with a prompt of its own, on two endpoints; or an edit of one."""
    names = draw(st.sets(st.sampled_from(NAMES), min_size=4), "routes")
    kept = like.prompts if like else {}
    prompts = {n: kept[n] if n in kept and draw(st.booleans()) else draw(st.integers(0, 2)) for n in sorted(names)}
    endpoints = {n: ("m", draw(st.sampled_from((256, 512))), draw(st.sampled_from((1, 2)))) for n in ("e", "f")}
    chains = st.sampled_from((("e",), ("f",), ("e", "f")))
    routes = {n: (n, draw(chains)) for n in prompts}
    gated = draw(st.sets(st.sampled_from(sorted(prompts)), max_size=3), "gates")
    gates = {n: (n, "d", 80) for n in sorted(gated)}
    canary = draw(st.sampled_from(((100,), (10, 50, 100))))
    return App({"m": (draw(st.integers(0, 1)), False)}, prompts, {"d": 0}, endpoints, routes, gates, {}, canary)


@st.composite
def changed(draw: st.DrawFn, first: App) -> App:
    """An edit, or the same with other names for a few routes, or both."""
    how = draw(st.sampled_from(("edit", "rename", "both")), "how")
    second = first
    if how != "edit":
        for number, old in enumerate(sorted(draw(st.sets(st.sampled_from(sorted(first.routes)), max_size=3), "old"))):
            second = second.renamed("route", old, f"new{number}")
    if how != "rename":
        second = replace(draw(many(second)) if how == "edit" else _other_texts(draw, second), moved=second.moved)
    return second


def _other_texts(draw: st.DrawFn, app: App) -> App:
    return replace(app, prompts={name: draw(st.integers(0, 2)) for name in app.prompts})


@dataclass
class Groups:
    sizes: list[int] = field(default_factory=list)

    def told(self) -> str:
        return f"largest group: {min(max(self.sizes, default=0), 5)}"


@contextmanager
def groups() -> Iterator[Groups]:
    """How many steps went out together, each time."""
    seen = Groups()

    def counted(run: Any, rollout: Any, members: Sequence[Any]) -> None:
        seen.sizes.append(len(members))
        swap_together(run, rollout, members)

    with patch.object(engine, "swap_together", counted):
        yield seen


@EXAMPLES
@given(st.data(), _ORDERS)
def test_whatever_fails_or_dies_what_served_still_serves_and_the_next_apply_converges(
    data: st.DataObject, order: int
) -> None:
    first = data.draw(many(), "first")
    second = data.draw(changed(first), "second")
    numbers = st.frozensets(st.integers(1, 80), max_size=4)
    dies_at = data.draw(st.none() | st.integers(0, 80), "dies at")
    failing = data.draw(st.sets(st.sampled_from(sorted(second.gates))) if second.gates else st.just(set()), "failing")
    faults = Faults(data.draw(numbers, "before"), data.draw(numbers, "after"), dies_at, frozenset(failing))
    world = applied(first, order)
    with groups() as seen:
        result = world.apply(world.plan(second.desired()), order, faults)
    event(seen.told())
    note(told(result))
    world.check()
    world.converge(second.desired(), order)


@EXAMPLES
@given(
    st.data(),
    _ORDERS,
    st.dictionaries(st.integers(1, 60), FAULTS, min_size=1, max_size=6),
    st.none() | st.tuples(CALLS, FAULTS),
)
def test_misbehaviour_of_providers_and_gateway_loses_nothing(
    data: st.DataObject, order: int, by_number: dict[int, str], lasting: tuple[str, str] | None
) -> None:
    first = data.draw(many(), "first")
    second = data.draw(changed(first), "second")
    clock = FakeClock()
    mischief = Mischief(clock, by_number, lasting)
    world = FaultyWorld()
    world.converge(first.desired(), order)
    plan = world.plan(second.desired())
    try:
        with groups() as seen:
            result = world.with_faults(plan, order, mischief)
    finally:
        clock.released.set()
    event(seen.told())
    event(f"ok: {result.ok}, faults: {min(len(mischief.done), 3)}")
    note("\n".join(mischief.done))
    note(told(result))
    world.check()
    assert "defect in llmctl" not in " ".join(r.error.hint for r in result.failed if r.error)
    assert not world.lost() or not result.ok
    world.converge(second.desired(), order)


@EXAMPLES
@given(st.data(), _ORDERS)
def test_each_edit_that_the_gateway_refuses_fails_its_own_route_alone(data: st.DataObject, order: int) -> None:
    first = data.draw(many(), "first")
    texts = {name: text + 3 for name, text in first.prompts.items()}
    second = replace(first, prompts=texts, gates={})
    bad = data.draw(st.sets(st.sampled_from(sorted(second.routes)), min_size=1), "refused")
    want = second.desired()
    revisions = {a.name: r.revision for a, r in want.resources.items() if a.kind == "route"}

    def refuse(config: GatewayConfig) -> ProviderError | None:
        there = [n for n in sorted(bad) if n in config.routes and revisions[n] in config.routes[n].revisions]
        return ProviderError(f"no such template in {there[0]}") if there else None

    world = applied(replace(first, gates={}), order)
    world.gateway.trouble = refuse
    with groups() as seen:
        result = world.apply(world.plan(want), order, Faults())
    event(seen.told())
    world.check()
    assert {r.step.address.name for r in result.failed} == bad
    assert all(r.step.id.startswith("stage:") and r.text.endswith(f"in {r.step.address.name}") for r in result.failed)
    served = {name: route.promoted for name, route in world.gateway.config.routes.items()}
    assert {n for n in served if served[n] == revisions[n]} == set(served) - bad
    world.gateway.trouble = lambda _: None
    world.converge(want, order)


@dataclass
class CtrlC(Faults):
    """Is pressed at the effect ``at``: before it is made, or once it is."""

    at: int = 0
    once_made: bool = False
    pressed: Event = field(default_factory=Event)

    def begin(self) -> int:
        number = super().begin()
        if number == self.at and not self.once_made:
            self.pressed.set()
        return number

    def end(self, number: int) -> None:
        if number == self.at:
            self.pressed.set()


@EXAMPLES
@given(st.data(), _ORDERS, st.integers(1, 30), st.booleans())
def test_ctrl_c_at_any_effect_leaves_what_served_and_the_next_apply_converges(
    data: st.DataObject, order: int, at: int, once_made: bool
) -> None:
    first = data.draw(many(), "first")
    second = data.draw(changed(first), "second")
    world = applied(first, order)
    faults = CtrlC(at=at, once_made=once_made)
    with groups() as seen, patch("tests.plan.world.Run", partial(Run, cancelled=faults.pressed)):
        result = world.apply(world.plan(second.desired()), order, faults)
    event(f"{seen.told()}, in time: {not result.ok}")
    world.check()
    assert result.ok or faults.pressed.is_set()
    assert not result.warnings
    assert {type(r.error) for r in result.failed} <= {Interrupted}
    for address, was in world.recorded.resources.items():
        if address.kind == "route":
            route = world.gateway.config.routes[address.name]
            assert (dict(route.weights), route.promoted) == ({was.revision: 100}, was.revision)
    world.converge(second.desired(), order)


def test_the_groups_are_there() -> None:
    """The properties would hold of anything if each step went out alone."""
    app = App(
        {"m": (0, False)}, dict.fromkeys(NAMES, 0), {}, {"e": ("m", 256, 1)}, {n: (n, ("e",)) for n in NAMES}, {}, {}
    )
    world = World()
    with groups() as seen:
        world.converge(app.desired(), 0)
    assert max(seen.sizes) > len(NAMES) / 2
