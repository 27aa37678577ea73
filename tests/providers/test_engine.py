"""Engine processes: what goes wrong with them, and what is then said and done."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import monotonic

import psutil
import pytest

from llmctl.core.digests import Json, digest_file
from llmctl.core.errors import Conflict, Interrupted, LeaseLost, ProviderError, TransientError
from llmctl.core.protocols import HasLogs, Op, Provider
from llmctl.core.resources import Key, Live
from llmctl.providers.local import LocalTarget, ProcessState
from llmctl.providers.local.launch import EndpointFile
from llmctl.providers.local.wire import free_port, local_request
from tests.providers.conftest import endpoint_spec, model_spec, new_op, processes_of, until
from tests.providers.fake_api import FakeApi

KEY, OTHER = Key("support", "a" * 16), Key("support", "b" * 16)


@pytest.fixture
def spec(shared: LocalTarget, shared_project: Path) -> Json:
    model = model_spec(shared_project)
    shared.artifacts.put_file(shared_project / model["source"], model["weights"]["digest"])
    return endpoint_spec(model["weights"])


@pytest.fixture
def provider(clean: LocalTarget) -> Provider[Json]:
    return clean.providers["endpoint"]


@pytest.fixture
def live(provider: Provider[Json], spec: Json) -> Live[Json]:
    return provider.create(new_op(), KEY, spec)


def _pid(live: Live[Json]) -> int:
    return int(live.outputs["pid"])


def _port(live: Live[Json]) -> int:
    return int(str(live.outputs["base_url"]).split(":")[2].removesuffix("/v1"))


def _hold(pid: int) -> None:
    psutil.Process(pid).suspend()
    assert until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def _read(provider: Provider[Json], key: Key = KEY) -> Live[Json]:
    return provider.read_all().found[key]


def _file(target: LocalTarget, key: Key = KEY) -> Path:
    return target.state_folder / "endpoints" / f"{key}.json"


def _engines(target: LocalTarget) -> int:
    return sum("llmctl.providers.local.engine" in process.cmdline() for process in processes_of(target.state_folder))


def _put(target: LocalTarget, file: Path) -> Json:
    digest = digest_file(file)
    target.artifacts.put_file(file, digest)
    return {"digest": digest, "adapters": []}


def test_a_hanging_engine_is_unhealthy_and_is_replaced(
    shared: LocalTarget, provider: Provider[Json], live: Live[Json], spec: Json
) -> None:
    _hold(_pid(live))
    found = _read(provider)
    assert not found.healthy
    assert "stopped by a signal" in found.detail
    assert found.outputs["base_url"] == live.outputs["base_url"]
    [process] = [p for p in shared.processes() if p.key == KEY]
    assert (process.state, process.pid) == (ProcessState.UNHEALTHY, _pid(live))
    again = provider.create(new_op(), KEY, spec)
    assert again.healthy
    assert _pid(again) != _pid(live)
    assert _engines(shared) == 1


def test_a_hanging_engine_is_deleted_at_once(shared: LocalTarget, provider: Provider[Json], live: Live[Json]) -> None:
    _hold(_pid(live))
    started = monotonic()
    provider.delete(new_op(), KEY, _read(provider))
    assert monotonic() - started < 3
    assert _engines(shared) == 0


def test_deleting_leaves_no_file_and_no_listener(
    shared: LocalTarget, provider: Provider[Json], live: Live[Json]
) -> None:
    provider.delete(new_op(), KEY, live)
    assert not [path for path in shared.state_folder.rglob("*") if str(KEY) in path.name]
    assert str(KEY) not in (shared.state_folder / "supervisord.conf").read_text()
    assert not psutil.pid_exists(_pid(live))


def test_a_model_that_is_corrupt_is_said_with_the_reason_and_leaves_nothing_running(
    shared: LocalTarget, shared_project: Path, provider: Provider[Json]
) -> None:
    whole = (shared_project / "support-tiny.gguf").read_bytes()
    (shared_project / "corrupt.gguf").write_bytes(whole[: len(whole) // 2])
    started = monotonic()
    with pytest.raises(ProviderError, match="data is not within the file bounds, model is corrupted") as caught:
        provider.create(new_op(), KEY, endpoint_spec(_put(shared, shared_project / "corrupt.gguf")))
    assert monotonic() - started < 5
    assert "load_model: failed to load model" in caught.value.detail
    assert not provider.read_all().found
    assert not _file(shared).exists()
    assert _engines(shared) == 0


def test_a_model_that_is_no_gguf_and_an_adapter_that_is_none_are_named(
    shared: LocalTarget, shared_project: Path, provider: Provider[Json], spec: Json
) -> None:
    (shared_project / "text.gguf").write_text("hello, I am no model\n")
    text = _put(shared, shared_project / "text.gguf")
    with pytest.raises(ProviderError, match="invalid magic characters: 'hell', expected 'GGUF'"):
        provider.create(new_op(), KEY, endpoint_spec(text))
    weights = {**spec["weights"], "adapters": [{"digest": text["digest"], "scale": 1.0}]}
    with pytest.raises(ProviderError, match="lora"):
        provider.create(new_op(), KEY, endpoint_spec(weights))


def test_a_stored_artifact_that_was_damaged_is_found_and_given_up(
    shared: LocalTarget, shared_project: Path, provider: Provider[Json], spec: Json
) -> None:
    digest = spec["weights"]["digest"]
    stored = shared.artifacts.path(digest)
    content = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ProviderError, match="is damaged") as caught:
        provider.create(new_op(), KEY, spec)
    assert "stored anew" in caught.value.hint
    assert not shared.artifacts.has(digest)  # so that the next plan sees the model's content missing
    shared.artifacts.put_file(shared_project / "support-tiny.gguf", digest)
    assert provider.create(new_op(), KEY, spec).healthy


def test_weights_that_are_not_stored_are_named_before_anything_starts(
    shared: LocalTarget, provider: Provider[Json]
) -> None:
    with pytest.raises(ProviderError, match="not in the artifact store"):
        provider.create(new_op(), KEY, endpoint_spec({"digest": "sha256:" + "0" * 64, "adapters": []}))
    assert not _file(shared).exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"options": {"slots": 2, "gpu": 1}}, "llama.cpp has no option gpu"),
        ({"options": {"slots": "many"}}, "options.slots must be a whole number"),
        ({"weights": {"remote": "openai:x"}}, "no weights that llama.cpp can load"),
    ],
)
def test_a_spec_that_the_engine_cannot_run_is_refused(
    provider: Provider[Json], spec: Json, change: Json, text: str
) -> None:
    with pytest.raises(ProviderError, match=text):
        provider.create(new_op(), KEY, {**spec, **change})
    assert not provider.read_all().found


def test_what_runs_from_another_specification_is_replaced(
    shared: LocalTarget, provider: Provider[Json], live: Live[Json], spec: Json
) -> None:
    changed = {**spec, "options": {"slots": 1, "threads": 1}}
    EndpointFile(KEY, changed, (_port(live),)).write(_file(shared))
    assert "another specification" in _read(provider).detail
    again = provider.create(new_op(), KEY, changed)
    assert again.healthy
    assert _pid(again) != _pid(live)
    assert _engines(shared) == 1


def test_the_revision_is_what_the_process_says(
    shared: LocalTarget, provider: Provider[Json], live: Live[Json], spec: Json
) -> None:
    other = provider.create(new_op(), OTHER, spec)
    EndpointFile(KEY, spec, (_port(other),)).write(_file(shared))
    found = _read(provider)
    assert not found.healthy
    assert found.revision == OTHER.revision
    assert f"it serves {OTHER}" in found.detail
    with pytest.raises(Conflict):
        provider.delete(new_op(), KEY, live)
    EndpointFile(KEY, spec, (_port(live),)).write(_file(shared))


def test_a_crash_before_the_start_converges(shared: LocalTarget, provider: Provider[Json], spec: Json) -> None:
    EndpointFile(KEY, spec, (1,)).write(_file(shared))
    found = _read(provider)
    assert (found.healthy, found.detail) == (False, "it was not started")
    assert provider.create(new_op(), KEY, spec).healthy
    EndpointFile(OTHER, spec, (1,)).write(_file(shared, OTHER))
    provider.delete(new_op(), OTHER, _read(provider, OTHER))
    assert set(provider.read_all().found) == {KEY}


def test_a_process_whose_file_is_gone_is_found_and_converges(
    shared: LocalTarget, provider: Provider[Json], live: Live[Json], spec: Json
) -> None:
    _file(shared).unlink()
    found = _read(provider)
    assert not found.healthy
    assert f"pid {_pid(live)}: its file in .llmctl is gone" in found.detail
    assert provider.create(new_op(), KEY, spec).healthy
    assert _engines(shared) == 1
    _file(shared).unlink()
    provider.delete(new_op(), KEY, _read(provider))
    assert _engines(shared) == 0


def test_not_ready_in_time_is_said_and_cleaned_up(shared: LocalTarget, provider: Provider[Json], spec: Json) -> None:
    with pytest.raises(TransientError, match=rf"endpoint {KEY} was not ready in the time allowed \(\d+ s\)") as caught:
        provider.create(new_op(0.06), KEY, spec)
    assert "timeouts: {ready: …}" in caught.value.hint
    assert not provider.read_all().found
    assert _engines(shared) == 0


def test_interrupted_while_waiting_is_cleaned_up(shared: LocalTarget, provider: Provider[Json], spec: Json) -> None:
    cancelled = Event()
    said: list[str] = []

    def progress(text: str) -> None:
        said.append(text)
        cancelled.set()

    with pytest.raises(Interrupted):
        provider.create(replace(new_op(), cancelled=cancelled, progress=progress), KEY, spec)
    assert said[0].startswith("starting the engine on port ")
    assert not provider.read_all().found
    assert _engines(shared) == 0


def test_a_lost_lease_stops_at_once_and_touches_nothing_more(
    shared: LocalTarget, provider: Provider[Json], spec: Json
) -> None:
    lost = Event()

    def check() -> None:
        if lost.is_set():
            raise LeaseLost("taken over")

    op = Op("test", monotonic() + 30, progress=lambda _: lost.set(), check_lease=check)
    with pytest.raises(LeaseLost):
        provider.create(op, KEY, spec)
    assert until(lambda: _engines(shared) == 1)  # of whoever took over, for all we know
    assert provider.create(new_op(), KEY, spec).healthy
    assert _engines(shared) == 1


def test_a_port_that_somebody_was_faster_to_take_is_changed(
    provider: Provider[Json], spec: Json, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, free = int(api.url.split(":")[2].removesuffix("/v1")), free_port()
    ports = iter([taken, free])
    monkeypatch.setattr("llmctl.providers.local.llama.free_port", lambda: next(ports))
    live = provider.create(new_op(), KEY, spec)
    assert live.healthy
    assert _port(live) == free


def test_several_start_at_the_same_time(shared: LocalTarget, provider: Provider[Json], spec: Json) -> None:
    keys = [Key("support", str(digit) * 16) for digit in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda key: provider.create(new_op(), key, spec), keys))
    assert all(live.healthy for live in made)
    assert len({live.outputs["base_url"] for live in made}) == 4
    assert _engines(shared) == 4


def test_an_adapter_is_applied(shared: LocalTarget, shared_project: Path, provider: Provider[Json]) -> None:
    model = model_spec(shared_project, "support-tiny.gguf", "tone-lora.gguf")
    for file in model["files"]:
        shared.artifacts.put_file(shared_project / file["path"], file["digest"])
    model["weights"]["adapters"][0]["scale"] = 0.5
    live = provider.create(new_op(), KEY, endpoint_spec(model["weights"]))
    [adapter] = local_request(_port(live), "GET", "/lora-adapters", timeout_s=5).json()
    assert adapter["scale"] == 0.5
    assert model["files"][1]["digest"].removeprefix("sha256:") in adapter["path"]


def test_slots_and_context_are_as_declared(provider: Provider[Json], spec: Json) -> None:
    live = provider.create(new_op(), KEY, {**spec, "context": 512, "options": {"slots": 3, "batch": 64}})
    [model] = local_request(_port(live), "GET", "/v1/models", timeout_s=5).json()["data"]
    assert model["meta"]["n_ctx"] == 512
    assert "llamacpp" in local_request(_port(live), "GET", "/metrics", timeout_s=5).body.decode()


def test_a_failed_engine_keeps_its_log_and_others_name_theirs(
    shared: LocalTarget, provider: Provider[Json], live: Live[Json]
) -> None:
    assert isinstance(provider, HasLogs)
    paths = provider.log_paths("support")
    assert f"serves {KEY} on http://127.0.0.1:{_port(live)}" in paths[KEY].read_text()
    assert paths[KEY] == shared.log_paths()[f"endpoint.{KEY}"]
    assert provider.log_paths("other") == {}


@pytest.fixture(autouse=True)
def _nothing_is_left(shared: LocalTarget, clean: LocalTarget) -> Iterator[None]:
    assert clean is shared
    yield
    for process in processes_of(shared.state_folder):
        if process.status() == psutil.STATUS_STOPPED:
            process.resume()
