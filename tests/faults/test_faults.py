"""The harness in small: no effect is outside of its points, one of each kind is broken, and it notices what it is for.

All of it runs with ``python -m tests.faults``; ``docs/faults.md`` says what that does.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.operations import OPERATIONS
from tests.faults.points import Fault, normal
from tests.faults.rig import Rig
from tests.faults.sweep import Found, found
from tests.faults.trial import Trial, try_fault, unannounced

pytestmark = pytest.mark.e2e
# So many points at least: with fewer, something is no longer seen.
LEAST = {"create": 200, "update": 80, "replace": 160, "prompt": 110, "delete": 70, "rollback": 130, "destroy": 100}
LEAST |= {"behind": 90, "shared": 130}


@pytest.fixture(scope="module")
def seen() -> dict[str, Found]:
    """What every operation does when nothing is broken."""

    def half(names: list[str]) -> list[Found]:
        seen = []
        for name in names:
            with Rig.made() as rig:
                seen.append(found(rig, OPERATIONS[name]))
        return seen

    names = list(OPERATIONS)
    with ThreadPoolExecutor(2) as pool:
        return {one.operation: one for some in pool.map(half, (names[::2], names[1::2])) for one in some}


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig.made() as made:
        yield made


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_effect_is_outside_of_the_points(seen: dict[str, Found], name: str) -> None:
    assert seen[name].uncovered == ()
    assert len(seen[name].points) >= LEAST[name]


def test_one_of_each_kind_of_point_is_broken(seen: dict[str, Found]) -> None:
    chosen = _one_of_each(seen)
    assert len(chosen) >= 30
    with ThreadPoolExecutor(2) as pool:
        lost = [trial for some in pool.map(_broken, (seen, seen), (chosen[::2], chosen[1::2])) for trial in some]
    assert not lost, "\n".join(f"{t.operation} {t.fault}: {t.losses}" for t in lost)


def _one_of_each(seen: dict[str, Found]) -> list[tuple[str, Fault]]:
    """To be killed before it and to have it raise, one point of each kind, the operations by turns."""
    chosen: dict[tuple[str, str], tuple[str, Fault]] = {}
    for name in ("replace", "destroy", "create", "delete", "rollback", "update", "prompt"):
        stable = [point for point in seen[name].points if point.name not in seen[name].unstable]
        for point in reversed(stable):  # the last of a kind: then most is at stake
            for mode in {"kill-before", "raise"} & {*point.modes()}:
                chosen.setdefault((point.kind, mode), (name, Fault(point.name, mode)))
    return sorted(chosen.values(), key=lambda one: (one[0], one[1].mode, one[1].point))


def _broken(seen: dict[str, Found], chosen: list[tuple[str, Fault]]) -> list[Trial]:
    with Rig.made() as rig:
        trials = [try_fault(rig, OPERATIONS[name], fault, seen[name].points) for name, fault in chosen]
    for trial in trials:
        trial.must(trial.met, "the point was not met")
    return [trial for trial in trials if trial.losses]


def test_it_notices_an_effect_that_no_point_covers(rig: Rig) -> None:
    rig.plant = "effect_nobody_knows"
    told = found(rig, OPERATIONS["update"]).uncovered
    assert [what for what in told if "os.mkdir" in what]
    assert [what for what in told if "os.rmdir" in what]


def test_it_notices_an_effect_that_the_journal_does_not_speak_of(rig: Rig) -> None:
    rig.plant = "effect_not_announced"
    told = found(rig, OPERATIONS["update"]).uncovered
    assert [what for what in told if "journal" in what and "provider endpoint.update" in what]


@pytest.mark.parametrize(
    ("plant", "mode", "what"),
    [
        ("engine_twice", "lost", "not one of each"),
        ("route_away_for_a_moment", "passing", "a client was not served"),
        ("error_nobody_explains", "raise", "not explained"),
    ],
)
def test_it_notices_what_must_not_be(seen: dict[str, Found], rig: Rig, plant: str, mode: str, what: str) -> None:
    operation, points = OPERATIONS["replace"], seen["replace"].points
    rig.plant = plant
    gateway = next(p for p in points if p.name.startswith("shift:") and p.kind == "gateway")
    trial = try_fault(rig, operation, Fault(gateway.name, mode), points)
    assert trial.met
    assert any(what in loss for loss in trial.losses), trial.losses


def test_what_a_failed_write_left_goes_also_where_nothing_is_to_do_any_more(seen: dict[str, Found], rig: Rig) -> None:
    points = seen["replace"].points
    name = next(
        p.name for p in points if p.name.startswith("retire:endpoint") and "> open" in p.name and ".tmp" in p.name
    )
    trial = try_fault(rig, OPERATIONS["replace"], Fault(name, "lost"), points)
    assert (trial.met, trial.losses) == (True, [])


def test_a_point_that_is_not_met_is_not_counted(rig: Rig) -> None:
    trial = try_fault(rig, OPERATIONS["prompt"], Fault("no such point #1", "raise"), ())
    assert not trial.met
    assert trial.losses == []


def test_names_are_the_same_in_every_run() -> None:
    text = "open /project/.llmctl/dev/artifacts/3f/.tmp-a1_b2 of endpoint.support@614bcf66b837a1f9.2 at 4711"
    assert normal(text) == "open /project/.llmctl/dev/artifacts/*/.tmp-* of endpoint.support@* at 0"
    assert unannounced(()) == []
