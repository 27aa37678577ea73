"""Two clones apply at once against one bare remote: exactly one of them does each time. LLMCTL_RACES says how often."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.clones import Hub, hub, rounds, smallest
from tests.e2e.project import Project
from tests.e2e.test_crash import Zygote, _zygote
from tests.results import Result

pytestmark = pytest.mark.e2e
ROUNDS = rounds(10)


def test_of_two_clones_that_apply_at_once_exactly_one_does() -> None:
    with smallest() as one, hub(one) as shared:
        two = shared.clone()
        with _zygote(one) as first, _zygote(two) as second:
            first.ok("apply", "--yes")
            wins: Counter[int] = Counter()
            codes: Counter[int] = Counter()
            for number in range(ROUNDS):
                winner, code = _race((one, two), (first, second), f"round {number}")
                wins[winner] += 1
                codes[code] += 1
                _one_entry_more(shared, (one, two), number + 2)
            print(f"{ROUNDS} races: won {dict(wins)}, the other one exited {dict(codes)}")
            for zygote in (first, second):
                assert zygote.run("status").code == 0
                assert zygote.run("audit", "verify").code == 0
            assert one.serial() == 1 + ROUNDS


def _race(projects: tuple[Project, Project], zygotes: tuple[Zygote, Zygote], text: str) -> tuple[int, int]:
    """Plan the same change in both, and apply both plans at once; returns who won, and the other's exit code."""
    for project, zygote in zip(projects, zygotes, strict=True):
        before = project.file.read_text()
        start = before.index('content: "') + len('content: "')
        project.file.write_text(before[:start] + text + before[before.index('"', start) :])
        zygote.ok("plan", "--out", "plan.json")
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(_apply, zygotes))
    codes = [result.code for result in ended]
    assert codes.count(0) == 1, [result.text for result in ended]
    winner = codes.index(0)
    assert codes[1 - winner] in (5, 6), ended[1 - winner].text
    return winner, codes[1 - winner]


def _apply(zygote: Zygote) -> Result:
    return zygote.run("apply", "plan.json", "--yes")


def _one_entry_more(shared: Hub, projects: tuple[Project, Project], serial: int) -> None:
    assert shared.refs() == {"refs/heads/llmctl/dev"}
    recorded = shared.git("log", "-1", "--format=%(trailers:key=Llmctl-Serial,valueonly)", "llmctl/dev")
    assert recorded == str(serial)
    for project in projects:
        assert not list((project.root / ".git" / "llmctl").glob("*/attempt-*"))
