"""Many routes at once: their steps go out in a few publications, and each still ends as if it were alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from unittest.mock import patch

import pytest

from llmctl.apply import PARALLELISM, ApplyResult, State
from llmctl.apply.effects import QUICK_S, Effects
from llmctl.core.address import Address
from llmctl.core.errors import LeaseLost, LlmctlError, ProviderError, RecordError, TransientError
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import GatewayReading, Op
from llmctl.core.resources import Key, RecordState, Resource
from llmctl.core.steps import RunGate
from llmctl.plan import build_plan
from tests.apply.fakes import FakeClock, MemoryGateway, MemoryTarget
from tests.apply.world import World, established, planned, recorded_by, without_gates
from tests.plan.builders import NOTHING, application, desired, recorded

MANY = 40


def routes(system: str = "Be brief.", count: int = MANY) -> dict[Address, Resource]:
    """So many routes, each with a prompt of its own, on one endpoint."""
    found: dict[Address, Resource] = {}
    for number in range(count):
        names = {"route.support": f"r{number:02}", "prompt.answer": f"p{number:02}"}
        found |= application(system=f"{system} {number}", names=names)
    return found


def first_apply(world: World, **more: int) -> ApplyResult:
    run = world.begin(build_plan(without_gates(desired(routes())), recorded({}, 0), NOTHING), 1)
    return world.go(run, **more)


def changed() -> tuple[World, RecordState]:
    """A world in which these routes serve, and no publication is counted yet."""
    world, state = established(routes())
    world.target.gateway.history.clear()
    return world, state


def promoted(world: World) -> set[str]:
    return {name for name, route in world.target.gateway.config.routes.items() if route.promoted}


@pytest.mark.parametrize("parallelism", [1, PARALLELISM])
def test_new_routes_go_out_in_a_few_publications_and_each_is_a_commit(parallelism: int) -> None:
    world = World()
    assert first_apply(world, parallelism=parallelism).ok
    # Staged, shifted, promoted; each prompt that was still being stored when the first group went may make one more.
    assert len(world.target.gateway.history) <= 3 + parallelism
    assert len(promoted(world)) == MANY
    subjects = [change.subject for change in world.journal.changes if change.subject.startswith("promote")]
    assert sorted(subjects) == [f"promote route.r{number:02} v1" for number in range(MANY)]


def test_each_edit_is_intended_before_it_is_published_and_its_outcome_comes_after() -> None:
    world = World()

    def watch(config: GatewayConfig) -> None:
        intended = {(i.effect, i.data.get("gateway")) for i in world.journal.intents}
        assert world.journal.shared == len(world.journal.intents)
        ended = {step for step, _ in world.journal.outcomes}
        for name in config.routes.keys() - world.target.gateway.config.routes.keys():
            assert ("stage", f"route.{name}") in intended
            assert not any(step.startswith(f"stage:route.{name}@") for step in ended)

    world.target.gateway.trouble = watch
    assert first_apply(world).ok
    assert len(world.journal.intents) == len(world.journal.outcomes)
    assert {word for _, word in world.journal.outcomes} == {"ok"}


def test_intents_of_a_group_are_shared_at_once() -> None:
    world = World()
    shares: list[str] = []

    def count(verb: str, _: str) -> None:
        shares.extend([verb] * (verb == "share"))

    world.journal.trouble = count
    assert first_apply(world).ok
    alone = sum(i.effect not in ("stage", "shift", "promote") for i in world.journal.intents)
    assert alone < len(shares) <= alone + len(world.target.gateway.history) + 1


def test_a_group_that_cannot_be_shared_is_not_published() -> None:
    world, state = changed()
    before = world.target.gateway.config
    gone = RecordError("the remote cannot be reached")
    world.journal.trouble = lambda verb, _: gone if verb == "share" else None
    result, _ = world.run(planned(routes("Be kind."), state, world), 2)
    assert not result.ok
    assert {r.error for r in result.failed} == {gone}
    assert world.target.gateway.config.routes == before.routes


def test_what_the_gateway_refuses_of_one_fails_that_step_alone() -> None:
    world, state = changed()
    bad = routes("Be kind.")[Address("route", "r07")].revision
    asked: list[GatewayConfig] = []

    def trouble(config: GatewayConfig) -> LlmctlError | None:
        asked.append(config)
        return ProviderError("no such upstream") if bad in config.routes["r07"].revisions else None

    world.target.gateway.trouble = trouble
    result, run = world.run(planned(routes("Be kind."), state, world), 2)
    assert [(r.step.id, r.text) for r in result.failed] == [(f"stage:route.r07@{bad}", "no such upstream")]
    assert {r.step.address.name for r in result.skipped} == {"r07"}
    assert len([r for r in result.done if r.step.id.startswith("promote:")]) == MANY - 1
    served = world.target.gateway.config.routes
    assert {n for n, r in served.items() if r.promoted != state.resources[Address("route", n)].revision} == {
        f"r{number:02}" for number in range(MANY) if number != 7
    }
    assert len(asked) <= 4 + PARALLELISM + 2 * MANY.bit_length(), "found by halving, and not one by one"
    world.target.gateway.trouble = lambda _: None
    again = planned(routes("Be kind."), recorded_by(run), world)
    assert {s.address.name for s in again.steps if s.address.kind == "route"} == {"r07"}
    assert world.run(again, 3)[0].ok


def test_what_may_pass_is_tried_again_together() -> None:
    world, state = changed()
    asked: list[GatewayConfig] = []

    def trouble(config: GatewayConfig) -> LlmctlError | None:
        asked.append(config)
        return TransientError("no answer") if len(asked) <= 2 else None

    world.target.gateway.trouble = trouble
    result, _ = world.run(planned(routes("Be kind."), state, world), 2)
    assert result.ok
    assert len(asked) <= 2 + 3 + PARALLELISM
    assert {r.tries for r in result.results if r.step.id.startswith("stage:")} >= {3}
    assert world.clock.pauses == [0.5, 1.0]


def test_a_gateway_that_stays_silent_fails_every_step_after_four_tries_and_no_more() -> None:
    world, state = changed()
    before = world.target.gateway.config.routes
    asked: list[GatewayConfig] = []

    def trouble(config: GatewayConfig) -> LlmctlError:
        asked.append(config)
        return TransientError("no answer")

    world.target.gateway.trouble = trouble
    result, run = world.run(planned(routes("Be kind."), state, world), 2)
    assert {(r.text, r.tries) for r in result.failed} == {("no answer", 4)}
    assert len(result.failed) == MANY
    assert len(asked) <= 4 * (1 + PARALLELISM) + 4
    assert world.target.gateway.config.routes == before
    assert {a: r for a, r in run.resources.items() if a.kind == "route"} == {
        a: r for a, r in state.resources.items() if a.kind == "route"
    }


def test_an_edit_of_the_gateway_waits_for_no_place() -> None:
    """The only place is taken by an endpoint that starts for long; a route goes on to serve meanwhile."""
    world, state = established(routes(count=2))
    serves = Event()
    new = routes("Be kind.", count=2)
    spare = Address("endpoint", "spare")
    new[spare] = application(fallback=True)[spare]
    world.target.providers["endpoint"].trouble = lambda verb, _: (
        None if verb != "create" or serves.wait(30) else ProviderError("the route waited for the endpoint")
    )

    def watch(config: GatewayConfig) -> None:
        if all(route.promoted == new[Address("route", name)].revision for name, route in config.routes.items()):
            serves.set()

    world.target.gateway.trouble = watch
    run = world.begin(planned(new, state, world), 2)
    assert world.go(run, parallelism=1).ok
    assert Key("spare", new[spare].revision) in world.target.providers["endpoint"].found


def test_ctrl_c_leaves_out_what_is_not_published_and_takes_back_the_rest_at_once() -> None:
    world, state = changed()
    before = world.target.gateway.config.routes
    run = world.begin(planned(routes("Be kind."), state, world), 2)

    def trouble(config: GatewayConfig) -> None:
        if config.routes["r00"].lease:
            run.cancelled.set()

    world.target.gateway.trouble = trouble
    result = world.go(run, parallelism=1)
    assert not result.failed
    assert {r.text for r in result.skipped} == {"interrupted"}
    assert {r.step.id.partition(":")[0] for r in result.undone} >= {"stage"}
    assert world.target.gateway.config.routes == before
    assert len(world.target.gateway.history) <= 4, "staged, staged and shifted, and all taken back in one"
    assert {a: r.revision for a, r in run.resources.items()} == {a: r.revision for a, r in state.resources.items()}


def test_without_the_lock_nothing_of_a_group_is_published() -> None:
    world, state = changed()

    def lease() -> None:
        if world.journal.intents[-1].step.startswith(f"stage:route.r{MANY // 2}"):
            raise LeaseLost("taken over")

    result, _ = world.run(planned(routes("Be kind."), state, world), 2, lease)
    assert not world.target.gateway.history
    assert {type(r.error) for r in result.failed} == {LeaseLost}
    assert not [r for r in result.results if r.state is State.DONE and r.step.address.kind == "route"]


def test_an_edit_of_the_gateway_does_not_wait_for_those_before_it_when_what_runs_takes_long() -> None:
    """One engine that starts for long has the only place, others wait for it; routes go on to serve meanwhile."""
    world, state = established(routes(count=2))
    serves = Event()
    new = routes("Be kind.", count=2)
    for number in range(3):
        new |= {a: r for a, r in application(names={"endpoint.main": f"a{number}"}).items() if a.kind == "endpoint"}
    world.target.providers["endpoint"].trouble = lambda verb, _: (
        None if verb != "create" or serves.wait(10) else ProviderError("the route waited for the endpoint")
    )

    def watch(config: GatewayConfig) -> None:
        if all(route.promoted == new[Address("route", name)].revision for name, route in config.routes.items()):
            serves.set()

    world.target.gateway.trouble = watch
    assert world.go(world.begin(planned(new, state, world), 2), parallelism=1).ok


def test_a_long_gate_of_one_route_delays_no_other() -> None:
    """Also the other's own gate, as long as there is a place for it."""
    both: dict[Address, Resource] = {}
    for name in ("a", "b"):
        names = {"route.support": name, "prompt.answer": f"p-{name}", "gate.faq": f"g-{name}"}
        both |= application(system=name, names=names)
    serves = Event()

    def watch(config: GatewayConfig) -> None:
        if config.routes["b"].promoted:
            serves.set()

    def gate(self: Effects, step: RunGate, op: Op) -> str:  # noqa: ARG001
        if step.address.name == "g-a" and not serves.wait(10):
            raise ProviderError("route b waited for the gate of route a")
        return "PASS"

    world = World()
    world.target.gateway.trouble = watch
    run = world.begin(build_plan(desired(both), recorded({}, 0), NOTHING), 1)
    with patch.object(Effects, "_run_gate", gate):
        result = world.go(run, parallelism=2)
    assert result.ok, [(r.step.id, r.text) for r in result.failed]
    assert promoted(world) == {"a", "b"}


@pytest.mark.parametrize("down", [True, False], ids=["gone", "garbage"])
def test_a_gateway_that_goes_away_is_not_asked_again_for_each_step(down: bool) -> None:
    world, state = changed()
    plan = planned(routes("Be kind."), state, world)
    reads: list[object] = []

    def gone(_: GatewayReading) -> object:
        reads.append(None)
        return GatewayReading(False) if down else "nonsense"

    def trouble(_: GatewayConfig) -> LlmctlError:
        world.target.gateway.answer = gone
        return TransientError("no answer")

    world.target.gateway.trouble = trouble
    result, _ = world.run(plan, 2)
    assert len(result.failed) == MANY
    assert {type(r.error) for r in result.failed} == {ProviderError}
    assert len(reads) <= 2 * (1 + PARALLELISM), "once for a group, and once to take it back"


@dataclass
class PunctualGateway(MemoryGateway):
    """Goes by the clock of the tests: refuses when the time of a publication is over."""

    clock: FakeClock = field(default_factory=FakeClock)

    def publish(self, op: Op, config: GatewayConfig, expected: str) -> GatewayReading:
        if self.clock.now() > op.deadline_s:
            raise ProviderError("the time allowed for this step is over")
        return super().publish(op, config, expected)


def test_a_slow_disk_under_the_journal_leaves_a_large_group_time_to_be_published() -> None:
    clock = FakeClock()
    world = World(target=MemoryTarget(gateway=PunctualGateway(clock=clock)), clock=clock)
    line_s, many = 0.15, 480
    assert many * line_s > QUICK_S

    def slow(verb: str, what: str) -> None:
        clock.passed += line_s if verb == "intend" and "route." in what else 0.0

    world.journal.trouble = slow
    run = world.begin(build_plan(without_gates(desired(routes(count=many))), recorded({}, 0), NOTHING), 1)
    assert world.go(run).ok


def test_a_disk_that_is_full_in_the_middle_of_a_group_stops_the_rest_and_the_next_apply_converges() -> None:
    """What was published and could not be noted is no success, and is not lost either."""
    for verb in ("intend", "done", "commit"):
        world, state = changed()
        left = [MANY // 2]

        def full(called: str, what: str, verb: str = verb, left: list[int] = left) -> LlmctlError | None:
            left[0] -= called == verb and "route." in what
            return RecordError("no space left") if left[0] < 0 else None

        world.journal.trouble = full
        result, run = world.run(planned(routes("Be kind."), state, world), 2)
        assert result.failed
        assert all(r.text == "no space left" for r in result.failed)
        done = {r.step.address for r in result.done if r.step.id.startswith("promote:")}
        assert all(run.resources[a].revision == routes("Be kind.")[a].revision for a in done)
        world.journal.trouble = lambda *_: None
        after, then = world.run(planned(routes("Be kind."), recorded_by(run), world), 3)
        assert after.ok, [(r.step.id, r.text) for r in after.failed]
        assert not planned(routes("Be kind."), recorded_by(then), world).steps
