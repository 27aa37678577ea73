"""Several engine processes of one endpoint revision: how they come, go, die and are told apart."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from threading import Event

import psutil
import pytest

from llmctl.core.digests import Json
from llmctl.core.errors import Interrupted, ProviderError
from llmctl.core.protocols import HasLogs, Provider
from llmctl.core.resources import Key, Live
from llmctl.providers.local import LocalTarget, ProcessState, probes
from llmctl.providers.local.launch import EndpointFile
from llmctl.providers.local.layout import Layout
from llmctl.providers.local.supervisor import State, Supervisor
from llmctl.providers.local.wire import NoAnswer, Reply, local_request
from tests.providers.conftest import endpoint_spec, model_spec, new_op, processes_of, until

KEY = Key("support", "a" * 16)


def _of(spec: Json, count: int, **changes: Json) -> Json:
    return {**spec, "replicas": {"min": count, "max": count}, **changes}


@pytest.fixture
def spec(shared: LocalTarget, shared_project: Path) -> Json:
    model = model_spec(shared_project)
    shared.artifacts.put_file(shared_project / model["source"], model["weights"]["digest"])
    return endpoint_spec(model["weights"])


@pytest.fixture
def provider(clean: LocalTarget) -> Provider[Json]:
    return clean.providers["endpoint"]


@pytest.fixture
def two(provider: Provider[Json], spec: Json) -> Live[Json]:
    return provider.create(new_op(), KEY, _of(spec, 2))


def _read(provider: Provider[Json]) -> Live[Json]:
    return provider.read_all().found[KEY]


def _pids(live: Live[Json]) -> list[int]:
    return list(live.outputs["pids"])


def _engines(target: LocalTarget) -> set[int]:
    found = processes_of(target.state_folder)
    return {process.pid for process in found if "llmctl.providers.local.engine" in process.cmdline()}


def _file(target: LocalTarget) -> Path:
    return target.state_folder / "endpoints" / f"{KEY}.json"


def _write(target: LocalTarget, spec: Json, ports: list[int]) -> None:
    EndpointFile(KEY, spec, tuple(ports)).write(_file(target))


def _ports(live: Live[Json]) -> list[int]:
    return [int(url.split(":")[2].removesuffix("/v1")) for url in live.outputs["base_urls"]]


def _ask(url: str) -> int:
    """One request for as many tokens as there is room for; 0 when it got no whole answer."""
    connection = HTTPConnection(url.removeprefix("http://").removesuffix("/v1"), timeout=60)
    body = {"prompt": "How", "max_tokens": 10_000, "ignore_eos": True}
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status if json.loads(response.read())["choices"] else 0
    except (HTTPException, ConnectionError):
        return 0
    finally:
        connection.close()


def _queued(url: str) -> int:
    """How many requests wait for a slot of an engine."""
    port = int(url.split(":")[2].removesuffix("/v1"))
    text = local_request(port, "GET", "/metrics", timeout_s=5).body.decode()
    [line] = [line for line in text.splitlines() if line.startswith("llamacpp:requests_deferred ")]
    return int(line.split()[1])


@pytest.fixture
def busy(provider: Provider[Json], spec: Json) -> Iterator[tuple[Live[Json], list[Future[int]]]]:
    """Two replicas, of which the second has one request in hand and seven that wait: seconds of work."""
    one_slot = {**spec, "context": 512, "options": {"slots": 1, "threads": 1}}
    two = provider.create(new_op(), KEY, _of(one_slot, 2))
    url = two.outputs["base_urls"][1]
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(_ask, url) for _ in range(8)]
        assert until(lambda: _queued(url) >= 5)
        yield two, asked


@pytest.mark.parametrize("lost", range(1, 5))
def test_an_answer_that_is_lost_is_no_reason_to_end_an_engine_that_serves(
    clean: LocalTarget, provider: Provider[Json], spec: Json, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    one = provider.create(new_op(), KEY, _of(spec, 1))
    manager = Supervisor(Layout(clean.state_folder))
    assert until(lambda: [m.state for m in manager.all().values() if m.pid == one.outputs["pid"]] == [State.RUNNING])
    questions = count(1)

    def answered(port: int, method: str, url: str, *, timeout_s: float) -> Reply:
        reply = local_request(port, method, url, timeout_s=timeout_s)
        if url == "/v1/models" and next(questions) == lost:
            raise NoAnswer("connection reset by peer")
        return reply

    monkeypatch.setattr(probes, "local_request", answered)
    two = provider.update(new_op(), KEY, one, _of(spec, 2))
    assert next(questions) > lost
    assert (two.healthy, len(_pids(two)), _pids(two)[0]) == (True, 2, _pids(one)[0])


def test_each_replica_is_a_process_with_a_port_and_a_log_of_its_own(
    shared: LocalTarget, provider: Provider[Json], two: Live[Json]
) -> None:
    assert two.healthy
    assert two.outputs["base_url"] == two.outputs["base_urls"][0]
    assert len(set(two.outputs["base_urls"])) == two.outputs["replicas"] == 2
    assert _engines(shared) == set(_pids(two))
    names = [f"endpoint.{KEY}", f"endpoint.{KEY}.2"]
    running = {p.name: (p.state, p.pid) for p in shared.processes() if p.key == KEY}
    assert running == dict(zip(names, [(ProcessState.RUNNING, pid) for pid in _pids(two)], strict=True))
    assert isinstance(provider, HasLogs)
    for path, port in zip(sorted(provider.log_paths("support").values(), reverse=True), _ports(two), strict=True):
        assert f"serves {KEY} on http://127.0.0.1:{port}" in path.read_text()
    assert set(names) < set(shared.log_paths())


def test_it_is_healthy_only_while_all_run_and_a_killed_one_comes_back(
    shared: LocalTarget, provider: Provider[Json], two: Live[Json]
) -> None:
    first, second = _pids(two)
    os.kill(second, signal.SIGSTOP)
    assert until(lambda: psutil.Process(second).status() == psutil.STATUS_STOPPED)
    found = _read(provider)
    assert not found.healthy
    assert found.detail.startswith("1 of 2 replicas run; replica 2: ")
    assert found.outputs["replicas"] == 1
    assert found.outputs["base_urls"] == two.outputs["base_urls"]
    states = {p.pid: p.state for p in shared.processes() if p.key == KEY}
    assert states == {first: ProcessState.RUNNING, second: ProcessState.UNHEALTHY}
    os.kill(second, signal.SIGKILL)
    assert until(lambda: _read(provider).healthy)
    back = _read(provider)
    assert back.outputs["base_urls"] == two.outputs["base_urls"]
    assert _pids(back)[0] == first
    assert _pids(back)[1] != second


def test_replicas_come_and_go_in_place(
    shared: LocalTarget, provider: Provider[Json], two: Live[Json], spec: Json
) -> None:
    three = provider.update(new_op(), KEY, two, _of(spec, 3))
    assert three.healthy
    assert (three.outputs["replicas"], _pids(three)[:2]) == (3, _pids(two))
    assert three.outputs["base_urls"][:2] == two.outputs["base_urls"]
    one = provider.update(new_op(), KEY, three, _of(spec, 1))
    assert one.healthy
    assert (one.outputs["base_urls"], _pids(one)) == (two.outputs["base_urls"][:1], _pids(two)[:1])
    assert _read(provider) == one
    assert _engines(shared) == set(_pids(one))
    assert f"endpoint.{KEY}.2" not in shared.log_paths()


def test_a_replica_that_goes_finishes_the_requests_it_has(
    shared: LocalTarget, provider: Provider[Json], busy: tuple[Live[Json], list[Future[int]]]
) -> None:
    two, asked = busy
    one = provider.update(new_op(60), KEY, two, _of(two.state, 1))
    assert [request.result() for request in asked] == [200] * 8
    assert one.healthy
    assert _engines(shared) == set(_pids(one)) == set(_pids(two)[:1])


def test_requests_may_not_outlast_the_drain(
    shared: LocalTarget, provider: Provider[Json], busy: tuple[Live[Json], list[Future[int]]]
) -> None:
    two, asked = busy
    at_once = _of(two.state, 1, timeouts={"ready_s": 60.0, "drain_s": 0.0})
    one = provider.update(new_op(), KEY, two, at_once)
    assert 0 in [request.result() for request in asked]
    assert _engines(shared) == set(_pids(one))


def test_a_crash_while_replicas_come_or_go_converges(
    shared: LocalTarget, provider: Provider[Json], two: Live[Json], spec: Json
) -> None:
    ports = _ports(two)
    _write(shared, _of(spec, 3), [*ports, 1])
    found = _read(provider)
    assert (found.healthy, found.outputs["replicas"]) == (False, 2)
    assert "2 of 3 replicas run; replica 3: it was not started" in found.detail
    assert _pids(provider.create(new_op(), KEY, _of(spec, 3)))[:2] == _pids(two)
    _write(shared, _of(spec, 1), ports[:1])
    found = _read(provider)
    assert (found.healthy, found.outputs["replicas"]) == (False, 3)
    assert found.detail.startswith("3 of 1 replicas run; pid ")
    one = provider.create(new_op(), KEY, _of(spec, 1))
    assert (one.healthy, _pids(one)) == (True, _pids(two)[:1])
    assert _engines(shared) == set(_pids(one))


def test_what_cannot_be_finished_leaves_the_replicas_that_ran(
    shared: LocalTarget, provider: Provider[Json], two: Live[Json], spec: Json
) -> None:
    cancelled = Event()
    op = replace(new_op(), cancelled=cancelled, progress=lambda _: cancelled.set())
    with pytest.raises(Interrupted):
        provider.update(op, KEY, two, _of(spec, 4))
    assert _read(provider) == two
    assert _engines(shared) == set(_pids(two))


def test_stop_and_start_bring_all_replicas_back_to_their_ports(
    shared: LocalTarget, provider: Provider[Json], two: Live[Json]
) -> None:
    shared.stop(new_op(60))
    assert _engines(shared) == set()
    shared.start(new_op())
    assert until(lambda: _read(provider).healthy)
    assert _read(provider).outputs["base_urls"] == two.outputs["base_urls"]


@pytest.mark.parametrize("count", [0, 9, "two"])
def test_a_count_that_cannot_run_is_refused(provider: Provider[Json], spec: Json, count: Json) -> None:
    with pytest.raises(ProviderError, match="replicas"):
        provider.create(new_op(), KEY, _of(spec, count))
    assert not provider.read_all().found


def test_a_file_from_before_replicas_is_read(shared: LocalTarget, provider: Provider[Json], spec: Json) -> None:
    live = provider.create(new_op(), KEY, spec)
    content = json.loads(_file(shared).read_text())
    content["port"] = content.pop("ports")[0]
    _file(shared).write_text(json.dumps(content))
    assert _read(provider) == live
