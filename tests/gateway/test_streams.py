"""Streamed answers: passed on as they come, ended cleanly when either side breaks."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager

import pytest
from aiohttp import ClientResponse, ClientSession

from llmctl.core.digests import Json
from llmctl.gateway.sse import Rewriter

from .fakes import GatewayProcess, config, promoted, revision, to, until, upstream

CHAT = "/v1/chat/completions"
ASK: Json = {"model": "support", "prompt_variables": {"question": "x"}, "stream": True}


async def _send(request: AbstractAsyncContextManager[ClientResponse]) -> None:
    async with request:
        raise AssertionError("nobody was to answer")


def events(text: str) -> list[Json]:
    """The events' data; the end marker as it is."""
    data = [block.removeprefix("data:").strip() for block in text.split("\n\n") if block.strip()]
    return [d if d == "[DONE]" else json.loads(d) for d in data]


def pieces(found: list[Json]) -> str:
    return "".join(e["choices"][0]["delta"]["content"] for e in found if e != "[DONE]" and "choices" in e)


async def test_a_stream_is_passed_on_under_the_routes_name(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as fake:
        served = gateway.publish(config(promoted("support", revision("r1", to(fake)))))
        for _ in range(2):
            async with client.post(CHAT, json=ASK) as response:
                found = events(await response.text())
            assert response.status == 200
            assert response.content_type == "text/event-stream"
            assert response.headers["x-llmctl-config"] == served
            assert response.headers["x-llmctl-endpoint"] == "main@e1"
            assert pieces(found) == "one two three"
            assert {e["model"] for e in found[:-1]} == {"support"}
            assert found[-1] == "[DONE]"
        assert [h["Connection"] for h in fake.headers] == ["close", "close"]
        assert len(set(fake.peers)) == 2  # no connection is used twice


async def test_pieces_come_as_soon_as_they_are_there(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream("pause") as fake:
        gateway.publish(config(promoted("support", revision("r1", to(fake)))))
        async with client.post(CHAT, json=ASK) as response:
            first = await response.content.readuntil(b"\n\n")
            assert b'"one "' in first
            assert gateway.stats()["routes"]["support"]["r1"]["in_flight"] == 1
            assert gateway.stats()["upstreams"]["main@e1"]["in_flight"] == 1
            fake.go_on.set()
            assert pieces(events((first + await response.content.read()).decode())) == "one two three"
        await until(lambda: gateway.stats()["upstreams"]["main@e1"]["in_flight"] == 0, "the end of the stream")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_the_upstreams_request(
    gateway: GatewayProcess, client: ClientSession, stream: bool
) -> None:
    async with upstream("pause" if stream else "hang") as fake:
        route = f"leaving-{stream}".lower()
        gateway.publish(config(promoted(route, revision("r1", to(fake)))))
        async with ClientSession(gateway.url) as leaving:
            request = leaving.post(CHAT, json={**ASK, "model": route, "stream": stream})
            if stream:
                response = await request
                await response.content.readuntil(b"\n\n")
                response.close()
            else:
                task = asyncio.ensure_future(_send(request))
                await until(lambda: len(fake.requests) == 1, "the upstream to be asked")
                task.cancel()
        await until(lambda: fake.cancelled == 1, "the upstream to see the close")
        await until(lambda: gateway.stats()["routes"][route]["r1"]["in_flight"] == 0, "the request to be over")
        counted = gateway.stats()["routes"][route]["r1"]
        assert (counted["requests"], counted["errors"], counted["latency_ms"]["samples"]) == (1, 0, 0)
        async with client.get("/metrics") as metrics:
            assert f'requests_total{{code="499",revision="r1",route="{route}"' in await metrics.text()


@pytest.mark.parametrize("behaviour", ["break", "error-event", "no-end"])
async def test_a_stream_that_breaks_ends_with_an_error_event(
    gateway: GatewayProcess, client: ClientSession, behaviour: str
) -> None:
    async with upstream(behaviour) as fake, upstream() as spare:
        gateway.publish(config(promoted(behaviour, revision("r1", to(fake), to(spare, endpoint="spare")))))
        async with client.post(CHAT, json={**ASK, "model": behaviour}) as response:
            text = await response.text()
        found = events(text)
        assert pieces(found) == "one two "
        assert found[-1]["error"]["code"] == "upstream_failed"
        assert "[DONE]" not in found
        assert "internals" not in text
        assert spare.requests == []  # the client has the beginning of another answer already
        counted = gateway.stats()["routes"][behaviour]["r1"]
        assert (counted["requests"], counted["errors"]) == (1, 1)


@pytest.mark.parametrize("behaviour", ["500", "drop", "hang", "empty-stream"])
async def test_before_the_first_byte_the_next_upstream_takes_over(
    gateway: GatewayProcess, client: ClientSession, behaviour: str
) -> None:
    async with upstream(behaviour) as bad, upstream() as spare:
        timeout = 0.2 if behaviour == "hang" else 5.0
        gateway.publish(
            config(promoted("support", revision("r1", to(bad, timeout_s=timeout), to(spare, endpoint="spare"))))
        )
        async with client.post(CHAT, json=ASK) as response:
            assert pieces(events(await response.text())) == "one two three"
        assert response.headers["x-llmctl-endpoint"] == "spare@e1"
        assert len(bad.requests) == 1


async def test_a_stream_that_stalls_is_broken(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream("pause") as fake:
        gateway.publish(config(promoted("support", revision("r1", to(fake, timeout_s=0.2)))))
        async with client.post(CHAT, json=ASK) as response:
            assert events(await response.text())[-1]["error"]["code"] == "upstream_failed"


async def test_a_refused_stream_is_plain_json(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream("422") as fake:
        gateway.publish(config(promoted("support", revision("r1", to(fake)))))
        async with client.post(CHAT, json=ASK) as response:
            assert (response.status, response.content_type) == (422, "application/json")


def test_rewriting_does_not_depend_on_where_the_bytes_are_cut() -> None:
    source = (
        b': hello\r\n\r\nevent: x\ndata:{"model":"a","t":"\xc3\xa9"}\r\n\r\ndata: [1]\n\ndata: free text\n\n'
        b"data: [DONE]\n\ndata: after the end\n\n"
    )
    whole = Rewriter("r")
    expected = whole.feed(source)
    assert whole.done
    assert expected == (
        b': hello\r\n\r\nevent: x\ndata: {"model":"r","t":"\\u00e9"}\n\r\n'
        b"data: [1]\n\ndata: free text\n\ndata: [DONE]\n\n"
    )
    for size in (1, 2, 7, 31):
        rewriter, out = Rewriter("r"), b""
        for start in range(0, len(source), size):
            if rewriter.done:
                break
            out += rewriter.feed(source[start : start + size])
        assert out == expected


def test_a_line_without_end_is_no_stream() -> None:
    rewriter = Rewriter("r")
    assert rewriter.feed(b"x" * (9 << 20)) == b""
    assert rewriter.failed


def test_an_event_that_stands_half_written_is_known() -> None:
    rewriter = Rewriter("r")
    rewriter.feed(b'data: {"a": 1}\n')
    assert rewriter.half
    rewriter.feed(b"\nda")
    assert not rewriter.half
