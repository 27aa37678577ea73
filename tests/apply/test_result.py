"""What the result says: what happened, what did not, and why."""

from __future__ import annotations

from llmctl.core.errors import ProviderError
from tests.apply.world import World, applied, planned
from tests.plan.builders import application


def test_each_step_that_was_skipped_names_the_failure_at_the_bottom() -> None:
    world, state = applied()
    world.target.providers["model"].trouble = lambda verb, _: ProviderError("no room") if verb != "read" else None
    wanted = application(weights="w2", system="Be kind.", rows="d2")
    result, _ = world.run(planned(wanted, state, world), 2)
    [failed] = result.failed
    assert (failed.step.id.partition("@")[0], failed.tries) == ("provision:model.tiny", 1)
    assert failed.seconds >= 0
    skipped = {r.step.id.partition("@")[0]: r for r in result.skipped}
    assert {"provision:endpoint.main", "stage:route.support", "promote:route.support"} <= skipped.keys()
    for each in skipped.values():
        assert (each.because, each.tries) == (failed.step.id, 0)
        assert each.text == f"needs {failed.step.id}, which failed"
    assert {r.step.id.partition("@")[0] for r in result.done} == {"provision:dataset.faq"}
    assert {r.step.id.partition("@")[0] for r in result.undone} == {"provision:prompt.answer"}
    assert sorted(map(id, result.results)) == sorted(
        id(r) for part in (result.done, result.failed, result.skipped, result.undone) for r in part
    )


def test_what_an_interruption_left_out_blames_nothing() -> None:
    world, state = applied()
    run = world.begin(planned(application(weights="w2"), state, world), 2)
    run.cancelled.set()
    result = World.go(world, run)
    assert {(r.text, r.because) for r in result.skipped} == {("interrupted", "")}
    assert len(result.skipped) == len(result.results)
