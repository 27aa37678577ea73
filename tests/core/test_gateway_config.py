"""The gateway's configuration as a value, and the pure edits that a rollout is made of."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from llmctl.core.gateway_config import (
    GatewayConfig,
    Lease,
    RouteRevision,
    Upstream,
    promoted,
    renamed,
    shifted,
    shifted_back,
    staged,
    with_aliases,
    without_revision,
)


def revision(name: str) -> RouteRevision:
    upstream = Upstream("main", f"e-{name}", ("http://127.0.0.1:1/v1",), f"main@e-{name}")
    return RouteRevision(
        name, ({"role": "user", "content": "{{ q }}"},), {"q": "string"}, {"temperature": 0}, (upstream,)
    )


@pytest.fixture
def serving() -> GatewayConfig:
    return promoted(staged(GatewayConfig("dev", 1, 1), "support", revision("old")), "support", "old")


def test_a_staged_revision_has_no_traffic(serving: GatewayConfig) -> None:
    route = staged(serving, "support", revision("new")).routes["support"]
    assert set(route.revisions) == {"old", "new"}
    assert dict(route.weights) == {"old": 100}


def test_a_shift_is_leased_until_it_is_promoted(serving: GatewayConfig) -> None:
    lease = Lease(2, 2, 99.0)
    config = shifted(staged(serving, "support", revision("new")), "support", {"old": 90, "new": 10}, lease)
    assert config.routes["support"].lease == lease
    assert config.routes["support"].promoted == "old"
    final = promoted(config, "support", "new").routes["support"]
    assert (final.promoted, dict(final.weights), final.lease) == ("new", {"new": 100}, None)


def test_shifting_back_gives_all_to_what_was_promoted(serving: GatewayConfig) -> None:
    config = shifted(staged(serving, "support", revision("new")), "support", {"new": 100}, Lease(2, 2, 99.0))
    assert without_revision(shifted_back(config, "support"), "support", "new") == serving


def test_a_route_that_never_served_goes_with_its_last_revision() -> None:
    config = staged(GatewayConfig("dev"), "support", revision("new"))
    assert dict(shifted_back(config, "support").routes["support"].weights) == {}
    assert without_revision(config, "support", "new").routes == {}


def test_it_reads_back_and_every_change_changes_its_revision(serving: GatewayConfig) -> None:
    again = GatewayConfig.from_json(json.loads(json.dumps(serving.to_json())))
    assert again == serving
    assert again.revision == serving.revision
    changed = [staged(serving, "support", revision("new")), GatewayConfig("dev", 2, 1, serving.routes)]
    assert len({serving.revision, *(c.revision for c in changed)}) == 3


def test_an_unknown_format_is_refused(serving: GatewayConfig) -> None:
    with pytest.raises(ValueError, match="format 9"):
        GatewayConfig.from_json({**serving.to_json(), "format": 9})


def test_a_whole_number_of_seconds_is_the_same_configuration() -> None:
    whole = Upstream("main", "e", ("http://127.0.0.1:1/v1",), "m", timeout_s=60)
    config = staged(GatewayConfig("dev"), "support", RouteRevision("r", (), {}, {}, (whole,)))
    assert GatewayConfig.from_json(json.loads(json.dumps(config.to_json()))).revision == config.revision


def test_a_configuration_from_before_replicas_and_aliases_is_read(serving: GatewayConfig) -> None:
    old = json.loads(json.dumps(serving.to_json()))
    del old["routes"]["support"]["aliases"]
    for upstream in old["routes"]["support"]["revisions"]["old"]["upstreams"]:
        [upstream["base_url"]] = upstream.pop("base_urls")
    assert GatewayConfig.from_json(old) == serving


def test_renaming_keeps_all_that_a_route_serves(serving: GatewayConfig) -> None:
    lease = Lease(2, 2, 99.0)
    before = shifted(staged(serving, "support", revision("new")), "support", {"old": 90, "new": 10}, lease)
    after = renamed(before, "support", "help", ["support"])
    assert set(after.routes) == {"help"}
    assert after.routes["help"] == replace(before.routes["support"], name="help", aliases=("support",))
    assert renamed(after, "support", "help", ["support"]) == after
    assert promoted(after, "help", "new").routes["help"].aliases == ("support",)
    assert without_revision(shifted_back(after, "help"), "help", "new").routes["help"].aliases == ("support",)
    with pytest.raises(ValueError, match="another route of that name"):
        renamed(staged(after, "support", revision("old")), "support", "help", [])
    with pytest.raises(KeyError):
        renamed(serving, "gone", "nowhere", [])


def test_an_alias_belongs_to_one_route(serving: GatewayConfig) -> None:
    two = with_aliases(
        promoted(staged(serving, "sales", revision("s")), "sales", "s"), "support", ["a", "b", "support"]
    )
    moved = with_aliases(two, "sales", ["b"])
    assert {name: route.aliases for name, route in moved.routes.items()} == {"support": ("a",), "sales": ("b",)}
