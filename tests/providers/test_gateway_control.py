"""Publishing to a real gateway process and reading back what it serves."""

from __future__ import annotations

import http.client
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from llmctl.core.digests import Json
from llmctl.core.errors import Conflict, Interrupted, ProviderError, TransientError
from llmctl.core.gateway_config import GatewayConfig, RouteRevision, Upstream, promoted, staged, without_route
from llmctl.core.protocols import Drains, Op
from llmctl.core.resources import Key
from llmctl.providers.local import LocalTarget
from llmctl.providers.local.gateway import LocalGateway
from tests.providers.conftest import endpoint_spec, external_spec, is_alive, model_spec, new_op, until
from tests.providers.fake_api import CANARY, FakeApi

KEY = Key("support", "a" * 16)


def _revision(name: str, outputs: Json) -> RouteRevision:
    urls = tuple(outputs.get("base_urls") or [outputs["base_url"]])
    upstream = Upstream("support", KEY.revision, urls, outputs["model"], outputs["secret"])
    messages = ({"role": "user", "content": "{{ question }}"},)
    return RouteRevision(name, messages, {"question": "string"}, {"max_tokens": 4}, (upstream,))


def _config(serial: int, outputs: Json, revision: str = "r1") -> GatewayConfig:
    empty = GatewayConfig(environment="dev", serial=serial, fence=serial)
    return promoted(staged(empty, "help", _revision(revision, outputs)), "help", revision)


NOWHERE: Json = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "secret": ""}


def _ask(base_url: str, body: Json, token: str = "") -> tuple[int, Json]:
    host = base_url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_what_is_published_is_read_back_and_survives_a_restart(started: LocalTarget, op: Op) -> None:
    config = _config(1, NOWHERE)
    reading = started.gateway.publish(op, config, "")
    assert (reading.running, reading.unreadable) == (True, "")
    assert reading.configs == {"local": config}
    assert started.gateway.read() == reading
    started.stop(op)
    assert started.gateway.read().running is False
    started.start(op)
    assert started.gateway.read() == reading


def _served(target: LocalTarget) -> str:
    return target.gateway.read().configs["local"].revision


def test_a_publish_against_another_configuration_is_refused(shared: LocalTarget, op: Op) -> None:
    first = _config(1, NOWHERE)
    shared.gateway.publish(op, first, "")
    with pytest.raises(Conflict, match="another configuration") as caught:
        shared.gateway.publish(op, _config(2, NOWHERE), "f" * 16)
    assert first.revision in caught.value.detail
    assert shared.gateway.read().configs == {"local": first}
    second = _config(2, NOWHERE, "r2")
    shared.gateway.publish(op, second, first.revision)
    with pytest.raises(Conflict):
        shared.gateway.publish(op, replace(second, fence=1), second.revision)


def test_what_the_gateway_refuses_is_said(shared: LocalTarget, op: Op) -> None:
    config = _config(3, {**NOWHERE, "base_url": "nonsense"})
    with pytest.raises(ProviderError, match=r"refuses the configuration \(HTTP 400\)") as caught:
        shared.gateway.publish(op, config, _served(shared))
    assert caught.value.detail


def test_nothing_is_published_once_it_may_not_be(shared: LocalTarget, op: Op) -> None:
    cancelled, before = Event(), _served(shared)
    cancelled.set()
    with pytest.raises(Interrupted):
        shared.gateway.publish(replace(op, cancelled=cancelled), _config(3, NOWHERE, "r3"), before)
    assert _served(shared) == before


def test_without_a_gateway_nothing_is_published(target: LocalTarget, op: Op) -> None:
    with pytest.raises(TransientError, match="does not run"):
        target.gateway.publish(op, _config(1, NOWHERE), "")
    with pytest.raises(ProviderError, match="no gate token yet"):
        target.gateway.gate_access()


def test_a_route_is_answered_by_the_engine_and_a_staged_one_for_the_gate_alone(
    started: LocalTarget, project: Path, op: Op
) -> None:
    model = model_spec(project)
    started.artifacts.put_file(project / "support-tiny.gguf", model["weights"]["digest"])
    live = started.providers["endpoint"].create(new_op(), KEY, endpoint_spec(model["weights"]))
    config = staged(_config(1, live.outputs), "help", _revision("r2", live.outputs))
    base_url = started.gateway.publish(op, config, "").base_url
    question = {"prompt_variables": {"question": "How long does shipping take?"}}
    status, answer = _ask(base_url, {"model": "help", **question})
    assert status == 200
    assert answer["choices"][0]["message"]["content"]
    access = started.gateway.gate_access()
    assert access.base_url == base_url
    assert _ask(base_url, {"model": "help@r2", **question})[0] in (401, 403, 404)
    assert _ask(base_url, {"model": "help@r2", **question}, access.token.reveal())[0] == 200
    gateway = started.gateway
    assert isinstance(gateway, LocalGateway)
    assert gateway.stats()["revision"] == config.revision
    gateway.publish(op, without_route(config, "help"), config.revision)
    assert _ask(base_url, {"model": "help", **question})[0] == 404


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: not is_alive(pid))  # until then it may take a request and lose it


def test_while_one_replica_lives_a_route_is_answered(started: LocalTarget, project: Path, op: Op) -> None:
    model = model_spec(project)
    started.artifacts.put_file(project / "support-tiny.gguf", model["weights"]["digest"])
    spec = endpoint_spec(model["weights"], replicas={"min": 2, "max": 2})
    live = started.providers["endpoint"].create(new_op(), KEY, spec)
    base_url = started.gateway.publish(op, _config(1, live.outputs), "").base_url
    question = {"model": "help", "prompt_variables": {"question": "How long does shipping take?"}}
    for killed in (0, 1):
        [pid] = started.providers["endpoint"].read_all().found[KEY].outputs["pids"][killed : killed + 1]
        _kill(pid)
        assert [_ask(base_url, question)[0] for _ in range(10)] == [200] * 10
        assert until(lambda: started.providers["endpoint"].read_all().found[KEY].healthy)


def test_a_publish_takes_up_new_keys(clean: LocalTarget, api: FakeApi, op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", CANARY)
    live = clean.providers["endpoint"].create(op, KEY, external_spec(api.url))
    base_url = clean.gateway.publish(op, _config(3, live.outputs), _served(clean)).base_url
    _ask(base_url, {"model": "help", "prompt_variables": {"question": "Hello"}})
    log = clean.log_paths()["gateway"].read_text()
    assert "keys that upstreams need are not in secrets.json" not in log
    assert CANARY not in log


def test_what_was_published_last_is_known_while_it_is_down_and_damage_is_no_crash(started: LocalTarget, op: Op) -> None:
    config = _config(3, NOWHERE)
    started.gateway.publish(op, config, "")
    started.stop(op)
    assert started.last_published() == config
    (started.state_folder / "gateway" / "config.json").write_text('{"x')
    assert started.last_published() is None
    started.destroy(op)
    assert not started.state_folder.exists()


def test_requests_in_flight_are_counted_by_endpoint(started: LocalTarget, op: Op) -> None:
    gateway = started.gateway
    assert isinstance(gateway, Drains), "retiring an endpoint waits for its requests only where they can be counted"
    assert gateway.in_flight(KEY) == 0
    started.stop(op)
    assert gateway.in_flight(KEY) == 0
