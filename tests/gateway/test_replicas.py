"""An endpoint with several replicas: requests are spread over them, and one that is gone costs nothing."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientSession

from llmctl.core.digests import Json

from .fakes import GatewayProcess, config, free_port, promoted, revision, to, until, upstream

CHAT = "/v1/chat/completions"
ASK: Json = {"model": "support", "prompt_variables": {"question": "x"}}


async def _ask(client: ClientSession, **more: Json) -> int:
    async with client.post(CHAT, json={**ASK, **more}) as response:
        await response.read()
        return response.status


async def test_requests_go_to_the_replica_with_the_fewest_in_flight(
    gateway: GatewayProcess, client: ClientSession
) -> None:
    async with upstream("hang") as one, upstream("hang") as two, upstream("hang") as three:
        fakes = (one, two, three)
        gateway.publish(config(promoted("support", revision("r1", to(*fakes, endpoint="spread")))))
        waiting = [asyncio.ensure_future(_ask(client)) for _ in range(9)]
        await until(lambda: sum(len(fake.requests) for fake in fakes) == 9, "nine requests in flight")
        assert [len(fake.requests) for fake in fakes] == [3, 3, 3]
        assert gateway.stats()["upstreams"]["spread@e1"]["in_flight"] == 9
        two.go_on.set()
        await until(lambda: gateway.stats()["upstreams"]["spread@e1"]["in_flight"] == 6, "one replica to be idle")
        two.go_on.clear()
        # The same through a new configuration: what is in flight still counts.
        gateway.publish(config(promoted("support", revision("r2", to(*fakes, endpoint="spread")))))
        waiting += [asyncio.ensure_future(_ask(client)) for _ in range(3)]
        await until(lambda: len(two.requests) == 6, "the idle replica to get the next three")
        for fake in fakes:
            fake.go_on.set()
        assert set(await asyncio.gather(*waiting)) == {200}


async def test_idle_replicas_take_turns(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as one, upstream() as two:
        gateway.publish(config(promoted("support", revision("r1", to(one, two)))))
        assert [await _ask(client) for _ in range(10)] == [200] * 10
        assert (len(one.requests), len(two.requests)) == (5, 5)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_replica_that_is_gone_leads_to_the_next_before_any_fallback(
    gateway: GatewayProcess, client: ClientSession, stream: bool
) -> None:
    async with upstream() as alive, upstream() as spare:
        gone = f"http://127.0.0.1:{free_port()}/v1"
        route = f"gone-{stream}".lower()
        chain = to(gone, alive, endpoint=route), to(spare, endpoint="spare")
        gateway.publish(config(promoted(route, revision("r1", *chain))))
        assert [await _ask(client, model=route, stream=stream) for _ in range(8)] == [200] * 8
        assert (len(alive.requests), len(spare.requests)) == (8, 0)
        counted = gateway.stats()
        assert counted["routes"][route]["r1"]["errors"] == 0
        assert counted["upstreams"][f"{route}@e1"]["errors"] > 0
        async with client.get("/metrics") as metrics:
            assert f'fallbacks_total{{revision="r1",route="{route}"}}' not in await metrics.text()


async def test_a_replica_that_is_still_loading_leads_to_the_next(
    gateway: GatewayProcess, client: ClientSession
) -> None:
    async with upstream("503") as loading, upstream() as alive, upstream() as spare:
        gateway.publish(config(promoted("support", revision("r1", to(loading, alive), to(spare, endpoint="spare")))))
        assert [await _ask(client) for _ in range(4)] == [200] * 4
        assert (len(alive.requests), len(spare.requests)) == (4, 0)


@pytest.mark.parametrize("behaviour", ["500", "nonsense"])
async def test_a_replica_that_saw_the_request_is_not_asked_to_repeat_it_by_another(
    gateway: GatewayProcess, client: ClientSession, behaviour: str
) -> None:
    async with upstream(behaviour) as one, upstream(behaviour) as two, upstream(text="spare") as spare:
        gateway.publish(config(promoted("support", revision("r1", to(one, two), to(spare, endpoint="spare")))))
        assert await _ask(client) == 200
        assert len(one.requests) + len(two.requests) == 1
        assert len(spare.requests) == 1


async def test_a_replica_that_goes_away_under_a_request_leads_to_one_other_and_not_to_all(
    gateway: GatewayProcess, client: ClientSession
) -> None:
    async with upstream("drop") as one, upstream("drop") as two, upstream("drop") as three, upstream() as spare:
        chain = to(one, two, three), to(spare, endpoint="spare")
        gateway.publish(config(promoted("support", revision("r1", *chain))))
        assert await _ask(client) == 200  # it may be the request that they die of
        assert sum(len(replica.requests) for replica in (one, two, three)) == 2
        assert len(spare.requests) == 1
    async with upstream("drop") as dying, upstream() as alive:
        gateway.publish(config(promoted("lively", revision("r1", to(dying, alive, endpoint="lively")))))
        assert [await _ask(client, model="lively") for _ in range(6)] == [200] * 6
        assert len(alive.requests) == 6


async def test_when_all_replicas_are_gone_the_fallback_answers(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as spare:
        nowhere = [f"http://127.0.0.1:{free_port()}/v1" for _ in range(2)]
        gateway.publish(config(promoted("support", revision("r1", to(*nowhere), to(spare, endpoint="spare")))))
        assert await _ask(client) == 200
        assert len(spare.requests) == 1
