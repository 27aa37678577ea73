"""A route's old names: they are answered as the route itself is, and nothing is counted under them."""

from __future__ import annotations

from aiohttp import ClientSession

from llmctl.core.digests import Json
from llmctl.core.gateway_config import promoted as published
from llmctl.core.gateway_config import renamed, staged, with_aliases

from .fakes import GATE, GatewayProcess, config, promoted, revision, to, upstream

CHAT = "/v1/chat/completions"


def ask(model: str) -> Json:
    return {"model": model, "prompt_variables": {"question": "x"}}


async def test_an_alias_is_answered_exactly_as_its_route(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as fake, upstream(text="next") as following:
        route = promoted("renamed", revision("r1", to(fake)), revision("r2", to(following)))
        served = gateway.publish(with_aliases(config(route), "renamed", ["help-desk", "help"]))
        for name in ("renamed", "help", "help-desk"):
            async with client.post(CHAT, json=ask(name)) as response:
                assert (await response.json())["model"] == "renamed"
            assert response.headers["x-llmctl-route"] == "renamed"
            assert response.headers["x-llmctl-config"] == served
            async with client.post(CHAT, json=ask(f"{name}@r2"), headers=GATE) as response:
                assert (await response.json())["choices"][0]["message"]["content"] == "next"
            async with client.post(CHAT, json=ask(f"{name}@r2")) as response:
                assert response.status == 404
        async with client.get("/v1/models") as response:
            listed = [model["id"] for model in (await response.json())["data"]]
        assert listed == ["help", "help-desk", "renamed"]
        counted = gateway.stats()["routes"]
        assert "help" not in counted
        assert counted["renamed"]["r1"]["requests"] == 3
        assert counted["renamed"]["r2"]["staged"]["requests"] == 3
        async with client.get("/metrics") as metrics:
            assert 'route="help' not in await metrics.text()


async def test_a_rename_is_one_swap_and_loses_nobody(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as fake:
        before = config(promoted("help", revision("r1", to(fake))))
        gateway.publish(before)
        gateway.publish(renamed(before, "help", "support", ["help"]))
        for name in ("help", "support"):
            async with client.post(CHAT, json=ask(name)) as response:
                assert (response.status, response.headers["x-llmctl-route"]) == (200, "support")
        gateway.publish(renamed(before, "help", "support", []))
        async with client.post(CHAT, json=ask("help")) as response:
            assert response.status == 404


async def test_a_routes_own_name_wins_over_an_alias(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream(text="own") as own, upstream(text="other") as other:
        both = config(promoted("support", revision("r1", to(own))), promoted("sales", revision("r1", to(other))))
        gateway.publish(with_aliases(both, "sales", ["support"]))
        async with client.post(CHAT, json=ask("support")) as response:
            assert response.headers["x-llmctl-route"] == "support"
            assert (await response.json())["choices"][0]["message"]["content"] == "own"


async def test_an_alias_is_answered_until_the_route_of_that_name_has_something_promoted(
    gateway: GatewayProcess, client: ClientSession
) -> None:
    """As when a rename is taken back: what is staged under the old name serves nobody yet."""
    async with upstream(text="new") as new, upstream(text="old") as old:
        before = with_aliases(config(promoted("help", revision("r1", to(old)))), "help", ["support"])
        gateway.publish(staged(before, "support", revision("r2", to(new))))
        async with client.post(CHAT, json=ask("support")) as response:
            assert (response.status, response.headers["x-llmctl-route"]) == (200, "help")
        for name, text in (("support@r2", "new"), ("support@r1", "old"), ("help@r1", "old")):
            async with client.post(CHAT, json=ask(name), headers=GATE) as response:
                assert (await response.json())["choices"][0]["message"]["content"] == text
        gateway.publish(published(staged(before, "support", revision("r2", to(new))), "support", "r2"))
        async with client.post(CHAT, json=ask("support")) as response:
            assert (response.status, response.headers["x-llmctl-route"]) == (200, "support")
