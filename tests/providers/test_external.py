from __future__ import annotations

import json
import os
import stat

import pytest

from llmctl.core.errors import ProviderError, TransientError
from llmctl.core.protocols import Op
from llmctl.core.resources import Key
from llmctl.providers.local import LocalTarget
from llmctl.providers.local.wire import free_port
from tests.providers.conftest import endpoint_spec, external_spec, processes_of
from tests.providers.fake_api import CANARY, FakeApi

KEY = Key("backup", "a" * 16)


@pytest.fixture(autouse=True)
def _key_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", CANARY)


def _nothing_changed(target: LocalTarget) -> bool:
    return not target.providers["endpoint"].read_all().found and not (target.state_folder / "endpoints").is_dir()


def test_it_is_checked_with_the_key_and_says_how_it_is_reached(target: LocalTarget, api: FakeApi, op: Op) -> None:
    live = target.providers["endpoint"].create(op, KEY, external_spec(api.url))
    assert api.keys_seen == [f"Bearer {CANARY}"]
    assert live.outputs == {"base_url": api.url, "model": "gpt-4.1-mini", "secret": str(KEY)}
    assert target.providers["endpoint"].read_all().found == {KEY: live}


def test_the_key_lies_in_the_secrets_file_alone(started: LocalTarget, api: FakeApi, op: Op) -> None:
    provider = started.providers["endpoint"]
    live = provider.create(op, KEY, external_spec(api.url))
    secrets = started.state_folder / "gateway" / "secrets.json"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    assert json.loads(secrets.read_text())["keys"] == {str(KEY): CANARY}
    holding = [
        path for path in started.state_folder.rglob("*") if path.is_file() and CANARY in path.read_text("latin-1")
    ]
    assert holding == [secrets]
    running = processes_of(started.state_folder)
    assert len(running) == 2
    for process in running:
        assert CANARY not in " ".join(process.cmdline())
        assert CANARY not in str(process.environ())
    provider.delete(op, KEY, live)
    assert CANARY not in secrets.read_text()
    assert not provider.read_all().found


def test_a_key_that_is_no_longer_needed_is_forgotten(started: LocalTarget, api: FakeApi, op: Op) -> None:
    provider = started.providers["endpoint"]
    live = provider.create(op, KEY, external_spec(api.url))
    api.open = True
    provider.update(op, KEY, live, external_spec(api.url) | {"api_key": None})
    assert CANARY not in (started.state_folder / "gateway" / "secrets.json").read_text()


def test_a_key_that_vanished_is_drift(target: LocalTarget, api: FakeApi, op: Op) -> None:
    provider = target.providers["endpoint"]
    provider.create(op, KEY, external_spec(api.url))
    (target.state_folder / "gateway" / "secrets.json").write_text('{"gate_token": "t", "keys": {}}')
    found = provider.read_all().found[KEY]
    assert not found.healthy
    assert "API key is missing" in found.detail
    assert provider.create(op, KEY, external_spec(api.url)).healthy


def test_a_variable_that_is_not_set_changes_nothing(
    target: LocalTarget, api: FakeApi, op: Op, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_API_KEY")
    with pytest.raises(ProviderError, match="TEST_API_KEY is not set") as caught:
        target.providers["endpoint"].create(op, KEY, external_spec(api.url))
    assert "TEST_API_KEY" in caught.value.hint
    assert api.keys_seen == []
    assert _nothing_changed(target)


def test_a_value_that_is_no_key_is_refused_without_showing_it(
    target: LocalTarget, api: FakeApi, op: Op, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", f"{CANARY}\nX-Other: header")
    with pytest.raises(ProviderError, match="does not hold an API key") as caught:
        target.providers["endpoint"].create(op, KEY, external_spec(api.url))
    assert CANARY not in repr(caught.value) + caught.value.detail + caught.value.hint
    assert _nothing_changed(target)


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (401, ProviderError, r"refuses the API key \(HTTP 401\)"),
        (403, ProviderError, r"refuses the API key \(HTTP 403\)"),
        (302, ProviderError, "redirects"),
        (503, TransientError, r"answers HTTP 503"),
    ],
)
def test_an_api_that_does_not_let_us_in_changes_nothing(
    target: LocalTarget, api: FakeApi, op: Op, status: int, error: type[ProviderError], text: str
) -> None:
    api.status = status
    with pytest.raises(error, match=text) as caught:
        target.providers["endpoint"].create(op, KEY, external_spec(api.url))
    assert CANARY not in repr(caught.value) + caught.value.detail
    assert len(api.keys_seen) == 1
    assert _nothing_changed(target)


def test_an_api_without_a_list_of_models_will_do(target: LocalTarget, api: FakeApi, op: Op) -> None:
    api.status = 404
    assert target.providers["endpoint"].create(op, KEY, external_spec(api.url)).healthy


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b"", b"[" * 200_000])
def test_a_page_that_is_no_api_is_refused(target: LocalTarget, api: FakeApi, op: Op, body: bytes) -> None:
    api.body = body
    with pytest.raises(ProviderError, match="answers something else than JSON, so it is no API") as caught:
        target.providers["endpoint"].create(op, KEY, external_spec(api.url))
    assert "up to and including /v1" in caught.value.hint
    assert _nothing_changed(target)


def test_the_status_asks_what_a_reading_does_not(
    target: LocalTarget, api: FakeApi, op: Op, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.providers["endpoint"].create(op, KEY, external_spec(api.url))
    monkeypatch.delenv("TEST_API_KEY")  # the gateway's secrets hold it
    assert target.endpoints.ask_external()() == {}
    assert api.keys_seen == [f"Bearer {CANARY}"] * 2
    api.body = b"<html>"
    assert target.endpoints.ask_external()() == {KEY: f"{api.url} answers something else than JSON, so it is no API"}
    for status, said in ((500, "answers HTTP 500"), (401, "refuses the API key (HTTP 401)"), (404, "")):
        api.status = status
        assert target.endpoints.ask_external()() == ({KEY: f"{api.url} {said}"} if said else {})
    asked = len(api.keys_seen)
    assert target.providers["endpoint"].read_all().found[KEY].healthy
    assert len(api.keys_seen) == asked
    (target.state_folder / "gateway" / "secrets.json").write_text('{"gate_token": "t", "keys": {}}')
    assert target.endpoints.ask_external()() == {}
    assert len(api.keys_seen) == asked


def test_the_status_waits_for_no_api(target: LocalTarget, api: FakeApi, op: Op) -> None:
    keys = [Key(f"backup{number}", "a" * 16) for number in range(5)]
    for key in keys:
        target.providers["endpoint"].create(op, key, external_spec(api.url))
    api.silent.set()
    assert target.endpoints.ask_external()() == dict.fromkeys(keys, "not reachable: no answer in 2 s")
    api.silent.clear()
    api.close()
    assert target.endpoints.ask_external()() == dict.fromkeys(keys, "not reachable: Connection refused")


def test_an_api_that_is_not_there_is_a_failure_that_may_pass(target: LocalTarget, op: Op) -> None:
    with pytest.raises(TransientError, match="cannot be reached"):
        target.providers["endpoint"].create(op, KEY, external_spec(f"http://127.0.0.1:{free_port()}/v1"))
    assert _nothing_changed(target)


@pytest.mark.parametrize("url", ["", "ftp://host/v1", "https:///v1", "http://user:pass@host/v1", "http://host:x/v1"])
def test_an_address_that_cannot_be_used_is_refused(target: LocalTarget, op: Op, url: str) -> None:
    spec = {**external_spec(url), "weights": {"remote": "acme:model"}}
    with pytest.raises(ProviderError, match="it is not known where acme is served"):
        target.providers["endpoint"].create(op, KEY, spec)


def test_an_engine_that_this_target_lacks_is_named(target: LocalTarget, op: Op) -> None:
    with pytest.raises(ProviderError, match="has no engine vllm"):
        target.providers["endpoint"].create(op, KEY, endpoint_spec({"digest": "sha256:" + "0" * 64}, engine="vllm"))


def test_the_environment_of_the_caller_stays_out_of_the_daemons(started: LocalTarget) -> None:
    assert os.environ["TEST_API_KEY"] == CANARY
    names = set().union(*(process.environ() for process in processes_of(started.state_folder)))
    assert "TEST_API_KEY" not in names
    assert {"PATH", "PYTHONSAFEPATH"} <= names
