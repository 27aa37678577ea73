"""Which revision answers: weights, stickiness, leases."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping

from aiohttp import ClientSession
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.digests import Json
from llmctl.core.gateway_config import Lease, Route
from llmctl.gateway.routing import choose, effective_weights

from .fakes import GatewayProcess, config, promoted, revision, split, to, upstream

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
        gateway.publish(config(split("support", {"old": 50, "new": 50}, 60, *revisions)))
        seen = await _answers(client, 100)
        assert min(seen["old"], seen["new"]) > 20
        assert len(await _answers(client, 20, user="anna")) == 1
        gateway.publish(config(split("support", {"old": 0, "new": 100}, 60, *revisions)))
        assert await _answers(client, 20) == {"new": 20}


async def test_a_lapsed_lease_gives_the_promoted_revision_everything(
    gateway: GatewayProcess, client: ClientSession
) -> None:
    async with upstream(text="old") as old, upstream(text="new") as new:
        revisions = revision("old", to(old)), revision("new", to(new))
        shifting = config(split("support", {"old": 0, "new": 100}, 0.4, *revisions))
        gateway.publish(shifting)
        assert gateway.admin("GET", "/config")[1]["effective"] == {"support": {"old": 0, "new": 100}}
        assert await _answers(client, 1) == {"new": 1}
        lease = shifting.routes["support"].lease
        assert lease is not None
        await asyncio.sleep(max(0.0, lease.expires_at - time.time()) + 0.01)
        assert await _answers(client, 20) == {"old": 20}
        _, read = gateway.admin("GET", "/config")
        assert read["effective"] == {"support": {"old": 100}}
        assert read["config"] == shifting.to_json()
        assert read["revision"] == shifting.revision


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


async def test_nothing_fails_while_configurations_are_swapped(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream(text="old") as old, upstream(text="new") as new:
        revisions = revision("old", to(old)), revision("new", to(new))
        there, back = config(promoted("support", *revisions)), config(promoted("support", *reversed(revisions)))
        gateway.publish(there)
        seen: Counter[str] = Counter()

        async def load() -> None:
            for _ in range(50):
                seen.update(await _answers(client, 1))

        async def swap() -> None:
            for number in range(20):
                await asyncio.to_thread(gateway.publish, back if number % 2 else there)
                await asyncio.sleep(0.01)

        await asyncio.gather(swap(), *(load() for _ in range(10)))
        assert seen.total() == 500
        assert seen["old"] > 0
        assert seen["new"] > 0
