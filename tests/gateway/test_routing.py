"""Which revision answers: weights, stickiness, leases."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from aiohttp import ClientSession
from benchmarks import gateway_swaps
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.digests import Json
from llmctl.core.gateway_config import Lease, Route
from llmctl.core.secrets import Secret
from llmctl.gateway.routing import by_load, choose, effective_weights
from llmctl.gateway.state import Secrets, Snapshot

from .fakes import GatewayProcess, config, revision, split, to, until, upstream

CHAT = "/v1/chat/completions"


def route(weights: Mapping[str, int], live: str = "old", expires_at: float | None = None) -> Route:
    lease = None if expires_at is None else Lease(1, 1, expires_at)
    return Route("support", {}, weights, live, lease)


def test_a_lease_counts_until_it_lapses() -> None:
    shifting = route({"old": 90, "new": 10}, expires_at=100.0)
    assert effective_weights(shifting, 100.0) == {"old": 90, "new": 10}
    assert effective_weights(shifting, 100.1) == {"old": 100}
    assert effective_weights(route({"new": 100}, live="", expires_at=100.0), 101.0) == {}
    assert effective_weights(route({"old": 100}), 1e12) == {"old": 100}


@given(share=st.integers(0, 100), chance=st.floats(0, 1, exclude_max=True))
def test_chance_gets_what_the_weights_say(share: int, chance: float) -> None:
    weights = {"new": share, "old": 100 - share}
    got = choose(route(weights), weights, None, chance)
    assert got == ("new" if 100 * chance < share else "old")


@given(user=st.text(), small=st.integers(1, 99), more=st.integers(0, 99))
def test_a_user_keeps_the_canary_while_it_grows(user: str, small: int, more: int) -> None:
    large = min(100, small + more)
    first = {"old": 100 - small, "new": small}
    later = {"old": 100 - large, "new": large}
    before = choose(route(first), first, user, 0.0)
    assert before == choose(route(first), first, user, 0.99)
    if before == "new":
        assert choose(route(later), later, user, 0.5) == "new"


def test_users_spread_as_the_weights_say_and_anew_for_each_canary() -> None:
    weights, again = {"old": 90, "new": 10}, {"old": 90, "newer": 10}
    users = [f"user-{n}" for n in range(5000)]
    first = {u for u in users if choose(route(weights), weights, u, 0.0) == "new"}
    second = {u for u in users if choose(route(again), again, u, 0.0) == "newer"}
    assert 400 < len(first) < 600
    assert len(first & second) < len(first) / 2


async def _answers(client: ClientSession, count: int, **more: Json) -> Counter[str]:
    async def one() -> str:
        body = {"model": "support", "prompt_variables": {"question": "x"}, **more}
        async with client.post(CHAT, json=body) as response:
            assert response.status == 200
            answer = await response.json()
            assert answer["choices"][0]["message"]["content"] == response.headers["x-llmctl-revision"]
            return response.headers["x-llmctl-revision"]

    return Counter(await asyncio.gather(*(one() for _ in range(count))))


async def test_public_traffic_is_split(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream(text="old") as old, upstream(text="new") as new:
        revisions = revision("old", to(old)), revision("new", to(new))
        gateway.publish(config(split("support", {"old": 90, "new": 10}, 60, *revisions)))
        seen = await _answers(client, 1000)
        assert 50 < seen["new"] < 150  # 100 ± 5 standard deviations
        assert len(await _answers(client, 20, user="anna")) == 1
        gateway.publish(config(split("support", {"old": 0, "new": 100}, 60, *revisions)))
        assert await _answers(client, 20) == {"new": 20}


async def test_a_lapsed_lease_gives_the_promoted_revision_everything(
    gateway: GatewayProcess, client: ClientSession
) -> None:
    async with upstream(text="old") as old, upstream(text="new") as new:
        revisions = revision("old", to(old)), revision("new", to(new))
        lapsed = config(split("support", {"old": 0, "new": 100}, -1, *revisions))
        gateway.publish(lapsed)
        assert await _answers(client, 20) == {"old": 20}
        _, read = gateway.admin("GET", "/config")
        assert read["effective"] == {"support": {"old": 100}}
        assert read["config"] == lapsed.to_json()
        assert read["revision"] == lapsed.revision


async def test_renewing_a_lease_keeps_the_split_and_the_requests_in_flight(
    gateway: GatewayProcess, client: ClientSession
) -> None:
    async with upstream(text="old") as old, upstream("hang", text="new") as new:
        revisions = revision("old", to(old)), revision("new", to(new))
        gateway.publish(config(split("support", {"old": 0, "new": 100}, 60, *revisions)))
        waiting = asyncio.ensure_future(_answers(client, 5))
        await until(lambda: len(new.requests) == 5, "five requests in flight")
        await asyncio.to_thread(gateway.publish, config(split("support", {"old": 0, "new": 100}, 600, *revisions)))
        assert gateway.admin("GET", "/config")[1]["effective"] == {"support": {"old": 0, "new": 100}}
        new.go_on.set()
        assert await waiting == {"new": 5}
        assert await _answers(client, 5) == {"new": 5}


def _snapshot(expires_at: float, before: Snapshot | None = None) -> Snapshot:
    only = {name: revision(name, to("http://127.0.0.1:1/v1")) for name in ("old", "new")}
    shifting = Route("support", only, {"old": 90, "new": 10}, "old", Lease(1, 1, expires_at))
    return Snapshot.of(config(shifting), Secrets(Secret("t")), before)


def test_a_clock_that_jumps_never_prolongs_a_split(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, steady = 1_000_000.0, 500.0
    monkeypatch.setattr("llmctl.gateway.state.time.time", lambda: wall)
    monkeypatch.setattr("llmctl.gateway.state.time.monotonic", lambda: steady)
    split_, all_old = {"old": 90, "new": 10}, {"old": 100}
    serving = _snapshot(wall + 60)
    assert serving.weights("support") == split_
    wall += 86_400
    assert serving.weights("support") == all_old  # forward: it ends early
    wall -= 2 * 86_400
    steady += 59
    assert serving.weights("support") == split_
    steady += 2
    assert serving.weights("support") == all_old  # backward: it ends when it was to end
    again = _snapshot(1_000_060.0, serving)
    assert again.weights("support") == all_old  # another publish of the same lease gives it no more time
    renewed = _snapshot(wall + 60, again)
    assert renewed.weights("support") == split_


def test_replicas_are_tried_by_load_and_in_turn() -> None:
    assert by_load("abc", {"a": 2, "b": 1}, 0) == ["c", "b", "a"]
    assert [by_load("abc", {}, turn)[0] for turn in range(6)] == ["a", "b", "c", "a", "b", "c"]
    assert [by_load("abc", {"b": 1}, turn)[0] for turn in range(3)] == ["a", "c", "c"]


async def test_a_first_revision_whose_lease_lapsed_serves_nobody(
    gateway: GatewayProcess, client: ClientSession
) -> None:
    async with upstream() as fake:
        only = revision("new", to(fake))
        lapsed = Route("support", {"new": only}, {"new": 100}, "", Lease(1, 1, time.time() - 1))
        gateway.publish(config(lapsed))
        async with client.post(CHAT, json={"model": "support", "prompt_variables": {"question": "x"}}) as response:
            assert response.status == 503
        async with client.get("/v1/models") as response:
            assert (await response.json())["data"] == []


async def test_no_request_is_lost_through_swaps_that_alternate(tmp_path: Path) -> None:
    """The benchmark, made small: both revisions are seen after each swap, and every request is answered."""
    outcome = await gateway_swaps.run(tmp_path, requests=500, swaps=10, clients=8)
    assert (outcome.answered, outcome.lost, outcome.swaps, outcome.unseen) == (500, 0, 10, 0)
