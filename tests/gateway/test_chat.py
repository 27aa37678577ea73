"""Requests and answers through a real gateway process."""

from __future__ import annotations

import io
import json

import pytest
from aiohttp import ClientSession

from llmctl.core.digests import Json

from .fakes import (
    CANARIES,
    GATE,
    KEY,
    GatewayProcess,
    config,
    promoted,
    revision,
    to,
    upstream,
)

CHAT = "/v1/chat/completions"


async def ask(client: ClientSession, body: Json, headers: dict[str, str] | None = None) -> tuple[int, Json]:
    async with client.post(CHAT, json=body, headers=headers) as response:
        return response.status, await response.json()


async def test_renders_the_prompt_and_names_who_answered(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as fake:
        served = gateway.publish(config(promoted("support", revision("r1", to(fake)))))
        body = {
            "model": "support",
            "prompt_variables": {"question": "Hi?"},
            "temperature": 0.5,
            "top_k": 3,
            "extra": [1],
        }
        async with client.post(CHAT, json=body) as response:
            answer = await response.json()
        assert response.status == 200
        assert fake.requests == [
            {
                "model": "model-of-main",
                "messages": [{"role": "system", "content": "You help."}, {"role": "user", "content": "Q: Hi?"}],
                "temperature": 0.5,
                "max_tokens": 96,
                "top_k": 3,
                "extra": [1],
            }
        ]
        assert answer["model"] == "support"
        assert answer["choices"][0]["message"]["content"] == "hello"
        named = {k: v for k, v in response.headers.items() if k.startswith("x-llmctl-")}
        assert named == {
            "x-llmctl-config": served,
            "x-llmctl-route": "support",
            "x-llmctl-revision": "r1",
            "x-llmctl-endpoint": "main@e1",
        }


async def test_values_are_data_and_never_rendered(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as fake:
        gateway.publish(config(promoted("support", revision("r1", to(fake)))))
        trick = "{{ 7 * 7 }} {% for x in y %}"
        messages = [{"role": "user", "content": trick}]
        status, _ = await ask(
            client, {"model": "support", "prompt_variables": {"question": trick}, "messages": messages}
        )
        assert status == 200
        assert [m["content"] for m in fake.requests[0]["messages"]] == ["You help.", f"Q: {trick}", trick]


async def test_own_messages_follow_what_needs_no_variable(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as fake:
        gateway.publish(config(promoted("support", revision("r1", to(fake)))))
        own = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, {"role": "assistant", "content": None}]
        status, _ = await ask(client, {"model": "support", "messages": own})
        assert status == 200
        assert fake.requests[0]["messages"] == [{"role": "system", "content": "You help."}, *own]


async def test_a_prompt_without_variables_needs_none(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as fake:
        plain = revision("r1", to(fake), variables={}, messages=({"role": "system", "content": "Speak {{ 1 + 1 }}."},))
        gateway.publish(config(promoted("support", plain)))
        assert (await ask(client, {"model": "support"}))[0] == 200
        assert fake.requests[0]["messages"] == [{"role": "system", "content": "Speak 2."}]


async def test_a_client_limit_displaces_the_prompts_other_one(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as fake:
        gateway.publish(config(promoted("support", revision("r1", to(fake)))))
        body = {
            "model": "support",
            "prompt_variables": {"question": "x"},
            "max_completion_tokens": 5,
            "temperature": None,
        }
        assert (await ask(client, body))[0] == 200
        assert "max_tokens" not in fake.requests[0]
        assert fake.requests[0]["max_completion_tokens"] == 5
        assert fake.requests[0]["temperature"] == 0  # null is "not given"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"model": "support"}, "question"),
        ({"model": "support", "prompt_variables": {}}, "question"),
        ({"model": "support", "prompt_variables": {"question": 5}}, "question must be a string"),
        ({"model": "support", "prompt_variables": {"question": "x", "colour": "red"}}, "colour"),
        ({"model": "support", "prompt_variables": "x"}, "prompt_variables must be an object"),
        ({"model": "support", "messages": "x"}, "messages must be a list"),
        ({"model": "support", "messages": ["x"]}, "messages[0] must be an object"),
        ({"model": "support", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"model": "support", "temperature": "hot"}, "temperature must be a number"),
        ({"model": "support", "max_tokens": True}, "max_tokens must be an integer"),
        ({"model": "support", "stream": "yes"}, "stream must be true or false"),
        ({"model": "support", "user": 5}, "user must be a string"),
        ({"model": 5}, "model must be a string"),
        ({}, "model must be a string"),
        ([], "must be a JSON object"),
    ],
)
async def test_wrong_requests_are_told_what_is_wrong(
    gateway: GatewayProcess, client: ClientSession, body: Json, says: str
) -> None:
    async with upstream() as fake:
        gateway.publish(config(promoted("support", revision("r1", to(fake)))))
        status, answer = await ask(client, body)
        assert status == 400
        assert says in answer["error"]["message"]
        assert answer["error"]["type"] == "invalid_request_error"
        assert fake.requests == []


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"model": NaN}', b"[" * 100_000, b"1" * 5000])
async def test_invalid_json_is_refused(client: ClientSession, raw: bytes) -> None:
    async with client.post(CHAT, data=raw) as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "invalid_json"


async def test_a_large_body_is_refused_cleanly(client: ClientSession) -> None:
    async with client.post(CHAT, data=io.BytesIO(b"x" * (5 << 20))) as response:
        assert response.status == 413
        assert "4 MB" in (await response.json())["error"]["message"]


async def test_a_body_below_the_limit_gets_through(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as fake:
        gateway.publish(config(promoted("support", revision("r1", to(fake)))))
        body = json.dumps({"model": "support", "messages": [{"role": "user", "content": "x" * (3 << 20)}]}).encode()
        async with client.post(CHAT, data=io.BytesIO(body)) as response:
            assert response.status == 200
        assert len(fake.requests[0]["messages"][1]["content"]) == 3 << 20


async def test_errors_of_http_itself_are_json_too(client: ClientSession) -> None:
    async with client.get("/nothing") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "bad_request")
    async with client.get(CHAT) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (405, "bad_request")


async def test_staged_revisions_answer_to_the_gate_alone(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream(text="live") as live, upstream(text="next") as following:
        gateway.publish(
            config(promoted("support", revision("r1", to(live)), revision("r2", to(following, endpoint="new"))))
        )
        body: Json = {"model": "support@r2", "prompt_variables": {"question": "x"}}
        async with client.post(CHAT, json=body, headers=GATE) as response:
            assert response.status == 200
            assert response.headers["x-llmctl-revision"] == "r2"
            answer = await response.json()
        assert answer["choices"][0]["message"]["content"] == "next"
        assert answer["model"] == "support"
        assert len(live.requests) == 0

        refused = []
        for model in ("support@r2", "support@zz", "nobody@r2"):
            for token in ("", "Bearer ", "Bearer wrong", GATE["Authorization"] + "x", GATE["Authorization"][7:]):
                headers = {"Authorization": token} if token else {}
                async with client.post(CHAT, json={**body, "model": model}, headers=headers) as response:
                    text = (await response.text()).replace(model, "MODEL")
                    names = sorted(k for k in response.headers if k.lower() != "date")
                    refused.append((response.status, text, names))
        async with client.post(CHAT, json={**body, "model": "nobody"}) as response:
            text = (await response.text()).replace("nobody", "MODEL")
            unknown = (response.status, text, sorted(k for k in response.headers if k.lower() != "date"))
        assert unknown[0] == 404
        assert all(answer == unknown for answer in refused)
        assert len(following.requests) == 1


async def test_the_gate_too_gets_404_for_what_is_not_there(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as fake:
        gateway.publish(config(promoted("support", revision("r1", to(fake)))))
        for model in ("support@r9", "nobody@r1", "support@", "@"):
            assert (await ask(client, {"model": model}, GATE))[0] == 404


async def test_models_lists_what_serves_and_more_for_the_gate(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as fake:
        live, waiting = promoted("live", revision("r1", to(fake)), revision("r2", to(fake))), revision("r3", to(fake))
        gateway.publish(config(live, type(live)("waiting", {"r3": waiting})))
        async with client.get("/v1/models") as response:
            listed = await response.json()
        assert [m["id"] for m in listed["data"]] == ["live"]
        assert listed["data"][0]["object"] == "model"
        async with client.get("/v1/models", headers=GATE) as response:
            everything = await response.json()
        assert [m["id"] for m in everything["data"]] == ["live", "live@r1", "live@r2", "waiting@r3"]
        status, answer = await ask(client, {"model": "waiting", "prompt_variables": {"question": "x"}})
        assert (status, answer["error"]["code"]) == (503, "not_promoted")


async def test_the_key_goes_to_the_upstream_and_nowhere_else(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream("400") as fake, upstream() as open_one:
        keyed = promoted("keyed", revision("r1", to(fake, secret="HOSTED")))
        gateway.publish(config(keyed, promoted("open", revision("r2", to(open_one)))))
        own = {"Authorization": "Bearer clients-own", "Cookie": "a=b", "X-Other": "1"}
        question = {"prompt_variables": {"question": "x"}}
        status, answer = await ask(client, {"model": "keyed", **question}, own)
        assert status == 400
        assert answer["error"]["message"] == "upstream says no to Bearer ***"
        assert fake.headers[0]["Authorization"] == f"Bearer {KEY}"
        assert (await ask(client, {"model": "open", **question}, own))[0] == 200
        assert not {"Authorization", "Cookie", "X-Other"} & set(open_one.headers[0])
        async with client.get("/metrics") as response:
            seen = await response.text() + json.dumps(gateway.admin("GET", "/config")) + json.dumps(answer)
        seen += gateway.log.read_text() + (gateway.folder / "config.json").read_text()
        assert not any(canary in seen for canary in CANARIES)


async def test_metrics_count_by_route_revision_and_code(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as fake:
        served = gateway.publish(config(promoted("metered", revision("m1", to(fake))), serial=7))
        good: Json = {"model": "metered", "prompt_variables": {"question": "x"}}
        for body, headers in (
            (good, {}),
            (good, {}),
            ({"model": "metered"}, {}),
            ({**good, "model": "metered@m1"}, GATE),
        ):
            await ask(client, body, headers)
        async with client.get("/metrics") as response:
            assert response.content_type == "text/plain"
            lines = (await response.text()).splitlines()
        prefix = 'llmctl_gateway_requests_total{code="%s",revision="m1",route="metered",traffic="%s"} %s'
        for expected in (("200", "public", "2.0"), ("400", "public", "1.0"), ("200", "staged", "1.0")):
            assert prefix % expected in lines
        assert f'llmctl_gateway_config_info{{revision="{served}",serial="7"}} 1.0' in lines
        assert 'llmctl_gateway_requests_in_flight{revision="m1",route="metered",traffic="public"} 0.0' in lines
        count = "llmctl_gateway_request_duration_seconds_count"
        assert count + '{revision="m1",route="metered",traffic="public"} 3.0' in lines


async def test_health(gateway: GatewayProcess, client: ClientSession) -> None:
    served = gateway.publish(config())
    async with client.get("/health") as response:
        assert await response.json() == {"status": "ok", "config": served}
