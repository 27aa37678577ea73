"""Upstreams are tried in order; what each way of failing leads to."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientSession

from llmctl.core.digests import Json

from .fakes import CANARIES, KEY, TOKEN, GatewayProcess, config, free_port, promoted, revision, to, upstream

CHAT = "/v1/chat/completions"
ASK: Json = {"model": "support", "prompt_variables": {"question": "x"}}


@pytest.mark.parametrize("behaviour", ["500", "503", "429", "401", "404", "drop", "hang", "nonsense"])
async def test_the_next_upstream_takes_over(gateway: GatewayProcess, client: ClientSession, behaviour: str) -> None:
    async with upstream(behaviour) as bad, upstream(text="spare") as spare:
        timeout = 0.2 if behaviour == "hang" else 5.0
        route = f"falls-{behaviour}"
        gateway.publish(
            config(promoted(route, revision("r1", to(bad, timeout_s=timeout), to(spare, endpoint="spare"))))
        )
        async with client.post(CHAT, json={**ASK, "model": route}) as response:
            answer = await response.json()
        assert response.status == 200
        assert answer["choices"][0]["message"]["content"] == "spare"
        assert response.headers["x-llmctl-endpoint"] == "spare@e1"
        assert len(bad.requests) == 1
        assert spare.requests[0]["model"] == "model-of-spare"
        counted = gateway.stats()
        assert counted["routes"][route]["r1"]["errors"] == 0
        assert counted["upstreams"]["spare@e1"]["errors"] == 0
        assert counted["upstreams"]["main@e1"]["in_flight"] == 0
        async with client.get("/metrics") as metrics:
            assert f'fallbacks_total{{revision="r1",route="{route}"}} 1.0' in await metrics.text()


async def test_a_refused_connection_leads_on(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as spare:
        nobody = f"http://127.0.0.1:{free_port()}/v1"
        gateway.publish(config(promoted("support", revision("r1", to(nobody), to(spare, endpoint="spare")))))
        async with client.post(CHAT, json=ASK) as response:
            assert response.status == 200


async def test_the_clients_own_fault_is_passed_on(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream("400") as fake, upstream() as spare:
        gateway.publish(config(promoted("support", revision("r1", to(fake), to(spare, endpoint="spare")))))
        async with client.post(CHAT, json=ASK) as response:
            assert response.status == 400
            assert (await response.json())["error"]["type"] == "x"
        assert response.headers["x-llmctl-endpoint"] == "main@e1"
        assert spare.requests == []


@pytest.mark.parametrize(("first", "second", "status"), [("500", "429", 502), ("429", "429", 429), ("401", "500", 502)])
async def test_when_all_fail_the_client_learns_nothing_of_them(
    gateway: GatewayProcess, client: ClientSession, first: str, second: str, status: int
) -> None:
    async with upstream(first) as one, upstream(second) as two:
        route = promoted(
            "support", revision("r1", to(one, secret="HOSTED"), to(two, endpoint="spare", secret="HOSTED"))
        )
        served = gateway.publish(config(route))
        async with client.post(CHAT, json=ASK) as response:
            text = await response.text()
        assert response.status == status
        assert not any(word in text for word in (*CANARIES, "upstream says", "127.0.0.1", "model-of", "spare"))
        named = [response.headers[f"x-llmctl-{name}"] for name in ("route", "revision", "endpoint", "config")]
        assert named == ["support", "r1", "spare@e1", served]
        assert gateway.stats()["routes"]["support"]["r1"]["errors"] >= 1


async def test_a_missing_key_is_named_and_the_next_upstream_asked(
    gateway: GatewayProcess, client: ClientSession
) -> None:
    async with upstream() as keyed, upstream() as spare:
        route = promoted(
            "support", revision("r1", to(keyed, endpoint="keyed", secret="LOST"), to(spare, endpoint="spare"))
        )
        gateway.publish(config(route))
        assert gateway.admin("GET", "/config")[1]["missing_secrets"] == ["LOST"]
        async with client.post(CHAT, json=ASK) as response:
            assert response.status == 200
        assert keyed.requests == []
        assert "the key LOST is not in secrets.json" in gateway.log.read_text()


async def test_each_publish_reads_the_secrets_again(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as fake:
        route = promoted("support", revision("r1", to(fake, secret="FRESH")))
        try:
            gateway.write_secrets({"gate_token": TOKEN, "keys": {"FRESH": KEY + "-2"}})
            gateway.publish(config(route))
            async with client.post(CHAT, json=ASK) as response:
                assert response.status == 200
            assert fake.headers[0]["Authorization"] == f"Bearer {KEY}-2"
        finally:
            gateway.write_secrets({"gate_token": TOKEN, "keys": {"HOSTED": KEY}})


async def test_a_connection_closed_while_idle_costs_nothing(gateway: GatewayProcess, client: ClientSession) -> None:
    """A server that closes idle connections at once, without a word: the race that llama.cpp has too."""
    asked = 0
    serving: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        serving.add(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(next(line for line in head.lower().split(b"\r\n") if b"content-length" in line).split(b":")[1])
        await reader.readexactly(length)
        asked += 1
        body = b'{"model": "m", "choices": []}'
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()
        await reader.read(1)  # the next request begins: close instead of answering
        writer.transport.abort()
        serving.discard(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        gateway.publish(config(promoted("support", revision("r1", to(url)))))
        for _ in range(5):
            async with client.post(CHAT, json=ASK) as response:
                assert response.status == 200
        assert asked == 5
        for writer in serving:  # the last one waits for a request that never comes
            writer.transport.abort()
        while serving:
            await asyncio.sleep(0)
