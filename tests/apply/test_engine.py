"""The engine: order, parallelism, failure, compensation, interruption."""

from __future__ import annotations

from dataclasses import replace
from threading import Barrier, BrokenBarrierError

from llmctl.apply import Collected, Run, State, run_steps
from llmctl.core.errors import LeaseLost, LlmctlError, ProviderError, TransientError
from llmctl.core.resources import Key
from llmctl.plan import build_plan
from llmctl.plan.drift import observe
from tests.apply.fakes import MemoryJournal, MemoryTarget
from tests.apply.world import ENDPOINT, ROUTE, World, applied, established, planned, without_gates
from tests.plan.builders import NOTHING, application, desired, live, recorded


def test_everything_is_created_promoted_and_recorded() -> None:
    world, state = applied()
    route = world.target.gateway.config.routes["support"]
    revision = state.resources[ROUTE].revision
    assert (route.promoted, dict(route.weights), route.lease) == (revision, {revision: 100}, None)
    assert [c.subject for c in world.journal.changes][-1] == "promote route.support v1"
    assert {str(a) for a in state.resources} == {
        "dataset.faq", "model.tiny", "prompt.answer", "endpoint.main", "route.support", "policy.open",
    }  # fmt: skip
    assert len(world.journal.intents) == len(world.journal.outcomes)


def test_a_new_model_takes_over_and_the_old_one_goes() -> None:
    world, state = applied()
    old = state.resources[ENDPOINT].revision
    plan = build_plan(without_gates(desired(application(weights="w2"))), state, live(application()))
    result, run = world.run(plan, 2)
    assert result.ok
    assert set(world.target.providers["endpoint"].found) == {Key("main", run.resources[ENDPOINT].revision)}
    assert ("delete", f"main@{old}") in world.target.providers["endpoint"].calls
    weights = [dict(c.routes["support"].weights) for c in world.target.gateway.history]
    assert all(sum(w.values()) in (0, 100) for w in weights)


def test_an_engine_that_does_not_start_leaves_what_serves() -> None:
    world, state = applied()
    serving = world.target.gateway.config
    endpoint = world.target.providers["endpoint"]
    endpoint.trouble = lambda verb, _: ProviderError("corrupt GGUF") if verb == "create" else None
    plan = build_plan(without_gates(desired(application(weights="w2"))), state, live(application()))
    result, run = world.run(plan, 2)
    states = {r.step.id.split("@")[0]: r.state for r in result.results}
    assert states["provision:endpoint.main"] is State.FAILED
    assert states["stage:route.support"] is State.SKIPPED
    assert world.target.gateway.config == serving
    assert run.resources[ENDPOINT] == state.resources[ENDPOINT]
    assert run.resources[ROUTE] == state.resources[ROUTE]


def test_a_shift_that_fails_is_taken_back_engine_included() -> None:
    world, state = applied()
    before = world.target.gateway.config.routes
    new = application(weights="w2")[ROUTE].revision
    world.target.gateway.trouble = lambda config: (
        TransientError("no answer") if config.routes["support"].weights.get(new) else None
    )
    plan = build_plan(without_gates(desired(application(weights="w2"))), state, live(application()))
    result, run = world.run(plan, 2)
    assert not result.ok
    assert world.target.gateway.config.routes == before
    assert set(world.target.providers["endpoint"].found) == {Key("main", state.resources[ENDPOINT].revision)}
    undone = [r.step.id.split("@")[0] for r in result.results if r.state is State.UNDONE]
    assert undone == ["provision:model.tiny", "provision:endpoint.main", "stage:route.support"]
    taken_back = run.resources[ENDPOINT]
    assert (taken_back.revision, taken_back.version) == (state.resources[ENDPOINT].revision, 1)
    assert len(taken_back.revisions) == 2, "the number that the failed revision had is never given again"


def test_a_conflict_on_the_gateway_is_tried_again_on_what_is_there() -> None:
    world, state = applied()
    world.target.gateway.conflicts = 2
    plan = build_plan(without_gates(desired(application(system="Be kind."))), state, live(application()))
    result, _ = world.run(plan, 2)
    assert result.ok


def test_a_lost_lease_stops_every_further_effect() -> None:
    world, state = applied()
    calls = len(world.target.gateway.history)

    def lost() -> None:
        raise LeaseLost("taken over")

    plan = build_plan(without_gates(desired(application(weights="w2"))), state, live(application()))
    result, _ = world.run(plan, 2, lease=lost)
    assert all(r.state in (State.FAILED, State.SKIPPED) for r in result.results)
    assert len(world.target.gateway.history) == calls
    assert not [c for c in world.target.providers["endpoint"].calls if c[0] == "delete"]


def test_interrupted_steps_are_skipped_and_what_was_made_is_taken_back() -> None:
    world, state = applied()
    plan = build_plan(without_gates(desired(application(weights="w2"))), state, live(application()))
    run = Run(
        plan=plan,
        target=world.target,
        journal=world.journal,
        serial=2,
        fence=2,
        check_lease=lambda: None,
        on_gate=lambda report: None,  # noqa: ARG005
        resources=dict(state.resources),
    )
    endpoint = world.target.providers["endpoint"]

    def interrupt(verb: str, _: Key) -> None:
        if verb == "create":
            run.cancelled.set()

    endpoint.trouble = interrupt
    result = run_steps(run, Collected())
    states = {r.step.id.split("@")[0]: r.state for r in result.results}
    assert states["provision:endpoint.main"] is State.UNDONE
    assert states["promote:route.support"] is State.SKIPPED
    now = {a: (r.revision, r.version, r.spec) for a, r in run.resources.items()}
    assert now == {a: (r.revision, r.version, r.spec) for a, r in state.resources.items()}
    assert set(endpoint.found) == {Key("main", state.resources[ENDPOINT].revision)}


def test_independent_steps_run_at_the_same_time() -> None:
    world = World(MemoryTarget(), MemoryJournal())
    together = Barrier(2, timeout=10)

    def meet(verb: str, _: Key) -> ProviderError | None:
        try:
            together.wait()
        except BrokenBarrierError:
            return ProviderError(f"{verb} ran alone")
        return None

    world.target.providers["prompt"].trouble = meet
    world.target.providers["model"].trouble = meet
    plan = build_plan(without_gates(desired(application())), recorded({}, 0), NOTHING)
    result, _ = world.run(plan, 1)
    assert result.ok


def test_a_drifted_engine_comes_back_and_its_route_follows_it() -> None:
    world, state = applied()
    world.target.providers["endpoint"].found.clear()
    seen = live(application())
    seen = replace(seen, readings={**seen.readings, "endpoint": world.target.providers["endpoint"].read_all()})
    plan = build_plan(without_gates(desired(application())), state, seen)
    assert observe(state, seen, frozenset()).drift
    result, run = world.run(plan, 2)
    assert result.ok
    assert run.resources == state.resources
    assert [c.subject for c in world.journal.changes][-2:] == ["restore endpoint.main", "restore route.support"]


def test_an_engine_that_cannot_be_brought_back_is_a_failure_unless_nothing_needs_it_any_more() -> None:
    old = application(fallback=True)
    alone = {a: r for a, r in old.items() if a != ROUTE}
    for resources, needed in ((alone, True), (old, True), (application(weights="w2", fallback=True), False)):
        world, state = established(alone if resources is alone else old)
        endpoint = world.target.providers["endpoint"]
        lost = next(key for key in endpoint.found if key.name == "main")
        del endpoint.found[lost]

        def trouble(verb: str, key: Key, lost: Key = lost) -> LlmctlError | None:
            return ProviderError("its weights are gone") if (verb, key) == ("create", lost) else None

        endpoint.trouble = trouble
        result, run = world.run(planned(resources, state, world), 2)
        assert result.ok is not needed
        assert (lost.revision == run.resources[ENDPOINT].revision) is needed
        assert bool(result.warnings) is not needed
