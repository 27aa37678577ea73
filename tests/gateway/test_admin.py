"""The admin socket: compare-and-swap, fences, read-back, counters."""

from __future__ import annotations

import asyncio
import copy
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import ClientSession

from llmctl import __version__
from llmctl.core.digests import Json
from llmctl.core.errors import Conflict, LlmctlError
from llmctl.core.gateway_config import GatewayConfig, Lease, Route
from llmctl.gateway.checks import BadConfig, read_config
from llmctl.gateway.state import State
from llmctl.gateway.stats import RevisionStats

from .fakes import GATE, GatewayProcess, config, promoted, revision, split, to, upstream

CHAT = "/v1/chat/completions"
URL = "http://127.0.0.1:9/v1"


def sample(serial: int = 1, fence: int = 0) -> GatewayConfig:
    live, following = revision("r1", to(URL)), revision("r2", to(URL))
    split_ = split("support", {"r1": 90, "r2": 10}, 60, live, following)
    return config(replace(split_, aliases=("old",)), serial=serial, fence=fence)


@pytest.fixture
def state(tmp_path: Path) -> State:
    GatewayProcess(tmp_path)
    return State(tmp_path)


def test_only_the_owner_opens_the_socket(gateway: GatewayProcess) -> None:
    mode = gateway.socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_reads_back_what_it_was_given(gateway: GatewayProcess) -> None:
    wanted = sample(serial=3)
    gateway.publish(wanted)
    status, read = gateway.admin("GET", "/config")
    assert status == 200
    assert read == {
        "revision": wanted.revision,
        "config": wanted.to_json(),
        "effective": {"support": {"r1": 90, "r2": 10}},
        "missing_secrets": [],
        "version": __version__,
    }
    health = gateway.admin("GET", "/health")[1]
    assert gateway.process is not None
    assert health == {"status": "ok", "revision": wanted.revision, "pid": gateway.process.pid}
    stored = gateway.folder / "config.json"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600


def test_a_writer_that_read_something_else_is_refused(gateway: GatewayProcess) -> None:
    served = gateway.publish(sample())
    for expected in ("", "0123456789abcdef"):
        body = {"expected": expected, "config": sample(serial=2).to_json()}
        status, answer = gateway.admin("PUT", "/config", body)
        assert (status, answer["revision"]) == (409, served)
        assert answer["error"]
    assert gateway.admin("GET", "/config")[1]["revision"] == served


def test_of_two_racing_writers_one_wins(gateway: GatewayProcess) -> None:
    served = gateway.publish(sample())

    async def race() -> list[int]:
        bodies = [{"expected": served, "config": sample(serial=n).to_json()} for n in range(2, 10)]
        answers = await asyncio.gather(*(asyncio.to_thread(gateway.admin, "PUT", "/config", b) for b in bodies))
        return sorted(status for status, _ in answers)

    assert asyncio.run(race()) == [200] + [409] * 7


@pytest.mark.parametrize(
    "body", [None, [], {}, {"expected": "x"}, {"expected": 5, "config": {}}, {"expected": "", "config": []}]
)
def test_a_malformed_publish_is_refused(gateway: GatewayProcess, body: Json) -> None:
    served = gateway.publish(sample())
    status, answer = gateway.admin("PUT", "/config", body)
    assert (status, answer["revision"]) == (400, served)


def test_secrets_that_went_bad_refuse_a_publish_and_serve_on(gateway: GatewayProcess) -> None:
    served = gateway.publish(sample())
    secrets = gateway.folder / "secrets.json"
    secrets.chmod(0o644)
    try:
        status, answer = gateway.admin("PUT", "/config", {"expected": served, "config": sample(2).to_json()})
    finally:
        secrets.chmod(0o600)
    assert (status, answer["revision"]) == (500, served)
    assert "open to other users" in answer["error"]


def test_the_empty_expectation_meets_an_empty_gateway_only(state: State) -> None:
    assert state.publish(GatewayConfig("dev").to_json(), "").config.environment == "dev"
    wanted = sample()
    assert state.publish(wanted.to_json(), "").revision == wanted.revision == state.snapshot.revision
    with pytest.raises(Conflict):
        state.publish(sample(2).to_json(), "")


def test_an_older_fence_is_refused(state: State) -> None:
    first = state.publish(sample(fence=5).to_json(), "")
    with pytest.raises(Conflict, match="fence 5"):
        state.publish(sample(2, fence=4).to_json(), first.revision)
    assert state.publish(sample(2, fence=5).to_json(), first.revision).config.serial == 2


def test_what_was_published_is_there_again(state: State, tmp_path: Path) -> None:
    published = state.publish(sample().to_json(), "")
    assert State(tmp_path).snapshot.config == published.config
    assert State(tmp_path).snapshot.revision == published.revision
    assert list(tmp_path.glob(".tmp-*")) == []


def test_a_disk_that_fails_changes_nothing(state: State, tmp_path: Path) -> None:
    first = state.publish(sample().to_json(), "")
    kept = tmp_path / "kept.json"
    (tmp_path / "config.json").rename(kept)
    (tmp_path / "config.json").mkdir()  # so that it cannot be written, also by root
    with pytest.raises(LlmctlError, match=r"config\.json cannot be written"):
        state.publish(sample(2).to_json(), first.revision)
    assert state.snapshot is first
    (tmp_path / "config.json").rmdir()
    kept.rename(tmp_path / "config.json")
    assert State(tmp_path).snapshot.revision == first.revision
    assert list(tmp_path.glob(".tmp-*")) == []


def _set(*path: str | int, value: Json) -> Callable[[Json], None]:
    def change(data: Json) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


SUPPORT = ("routes", "support")
R1 = (*SUPPORT, "revisions", "r1")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("format", value=99), "format 99"),
        (_set("serial", value="x"), "malformed"),
        (_set("environment", value=5), "environment"),
        (_set("environment", value="\ud800"), "malformed"),
        (_set("routes", value=[]), "malformed"),
        (_set("routes", "A@b", value={"revisions": {}, "weights": {}}), "not a route's name"),
        (_set(*SUPPORT, "weights", value={"r1": 90}), "sum to 100"),
        (_set(*SUPPORT, "weights", value={"r1": 110, "r2": -10}), "sum to 100"),
        (_set(*SUPPORT, "weights", value={"zz": 100}), "does not have"),
        (_set(*SUPPORT, "promoted", value="zz"), "not among"),
        (_set(*SUPPORT, "lease", value=None), "needs a lease"),
        (_set(*SUPPORT, "lease", "expires_at", value=float("nan")), "expire"),
        (_set(*R1, "revision", value="r9"), "stands under it"),
        (_set(*SUPPORT, "aliases", value=["A@b"]), "not a route's name"),
        (_set("routes", "other", value={"revisions": {}, "weights": {}, "aliases": ["old"]}), "alias of two routes"),
        (_set(*R1, "upstreams", value=[]), "no upstream"),
        (_set(*R1, "upstreams", 0, "base_urls", value=[]), "has no address"),
        (_set(*R1, "upstreams", 0, "base_urls", value=["ftp://x/v1"]), "http or https"),
        (_set(*R1, "upstreams", 0, "base_urls", value=["http://me:CANARY@x/v1"]), "hold a credential"),
        (_set(*R1, "upstreams", 0, "timeout_s", value=0), "timeout_s"),
        (_set(*R1, "upstreams", 0, "endpoint", value="a\r\nb"), "does not name an endpoint"),
        (_set(*R1, "upstreams", 0, "model", value=None), "model and secret"),
        (_set(*R1, "messages", 0, "content", value="{{ x"), "does not parse"),
        (_set(*R1, "messages", 0, value={"role": "user"}), "role and a content"),
        (_set(*R1, "variables", value={"x": "colour"}), "declared as 'colour'"),
        (_set(*R1, "parameters", value={"stream": True}), "stream cannot be"),
    ],
)
def test_what_cannot_be_served_is_refused(change: Callable[[Json], None], says: str) -> None:
    data = copy.deepcopy(sample().to_json())
    assert read_config(data) == GatewayConfig.from_json(data)
    change(data)
    with pytest.raises(BadConfig) as refused:
        read_config(data)
    assert says in str(refused.value)
    assert "CANARY" not in str(refused.value)


def test_a_split_back_to_the_promoted_revision_needs_no_lease() -> None:
    both = {"r1": revision("r1", to(URL)), "r2": revision("r2", to(URL))}
    assert read_config(config(Route("support", both, {"r1": 100, "r2": 0}, "r1")).to_json())
    assert read_config(config(Route("support", both, {}, "")).to_json())
    with pytest.raises(BadConfig):
        read_config(config(Route("support", both, {"r2": 100}, "")).to_json())
    assert read_config(config(Route("support", both, {"r2": 100}, "", Lease(1, 1, 5.0))).to_json())


async def test_counters_keep_gates_and_clients_apart(gateway: GatewayProcess, client: ClientSession) -> None:
    async with upstream() as fake, upstream("500") as broken:
        route = promoted(
            "counted", revision("c1", to(fake, endpoint="good")), revision("c2", to(broken, endpoint="bad"))
        )
        served = gateway.publish(config(route))
        before = gateway.stats()["upstreams"].get("good@e1", {"requests": 0})["requests"]
        ask: Json = {"prompt_variables": {"question": "x"}}
        for model in ("counted", "counted", "counted@c1", "counted@c2"):
            async with client.post(CHAT, json={**ask, "model": model}, headers=GATE) as response:
                await response.read()
        stats = gateway.stats()
        assert stats["revision"] == served
        first, second = stats["routes"]["counted"]["c1"], stats["routes"]["counted"]["c2"]
        assert (first["requests"], first["errors"], first["in_flight"]) == (2, 0, 0)
        assert first["staged"] == {"requests": 1, "errors": 0}
        assert first["latency_ms"]["samples"] == 2
        assert 0 < first["latency_ms"]["p50"] <= first["latency_ms"]["p95"]
        assert second["requests"] == 0
        assert second["staged"] == {"requests": 1, "errors": 1}
        assert second["latency_ms"] == {"p50": None, "p95": None, "samples": 0}
        assert stats["upstreams"]["good@e1"]["requests"] == before + 3
        assert stats["upstreams"]["bad@e1"]["errors"] == 1
        gateway.publish(config(promoted("counted", revision("c1", to(fake, endpoint="good")))))
        assert list(gateway.stats()["routes"]["counted"]) == ["c1"]
        assert "bad@e1" not in gateway.stats()["upstreams"]


async def test_a_retired_revision_is_counted_until_it_is_drained(
    gateway: GatewayProcess, client: ClientSession
) -> None:
    async with upstream("hang") as slow, upstream(text="new") as new:
        gateway.publish(config(promoted("drained", revision("d1", to(slow, endpoint="slow")))))
        ask: Json = {"model": "drained", "prompt_variables": {"question": "x"}}
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(client.post(CHAT, json=ask).__aenter__())
            for _ in range(1000):
                if slow.requests:
                    break
                await asyncio.sleep(0.005)
            gateway.publish(config(promoted("drained", revision("d2", to(new, endpoint="new")))))
            async with client.post(CHAT, json=ask) as response:
                assert response.headers["x-llmctl-revision"] == "d2"
            assert gateway.stats()["routes"]["drained"]["d1"]["in_flight"] == 1
            assert gateway.stats()["upstreams"]["slow@e1"]["in_flight"] == 1
            slow.go_on.set()
        async with waiting.result() as response:
            assert response.status == 200
            assert response.headers["x-llmctl-revision"] == "d1"
        assert gateway.stats()["routes"]["drained"]["d1"]["in_flight"] == 0


def test_percentiles_are_nearest_rank_of_the_last_thousand() -> None:
    stats = RevisionStats()
    for number in range(1, 2001):
        stats.in_flight += 1
        stats.finish(staged=False, failed=False, seconds=number / 1000)
    assert stats.to_json()["latency_ms"] == {"p50": 1500.0, "p95": 1950.0, "samples": 1000}
