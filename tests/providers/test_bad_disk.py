"""Disks that are full, and files in the state folder that somebody cut short or overwrote.

A limit on the size of files stands for a full disk: writing fails in the middle, as there, and also for root.
"""

from __future__ import annotations

import os
import resource
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from llmctl.core import files
from llmctl.core.digests import Json, digest_file
from llmctl.core.errors import ProviderError
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.kinds import kind_of
from llmctl.core.protocols import Op
from llmctl.core.resources import Key, Live
from llmctl.providers.local import LocalTarget, ProcessRole, found
from llmctl.providers.local.artifacts import ArtifactProvider
from tests.providers.conftest import endpoint_spec, external_spec, files_below, model_spec, new_op, processes_of
from tests.providers.fake_api import CANARY, FakeApi

KEY = Key("support", "a" * 16)
PROMPT: Json = {"messages": [{"role": "user", "content": "hi " * 400}], "variables": {}, "parameters": {}}


@contextmanager
def full_disk(bytes_left: int = 512) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _prompt(number: int = 0) -> tuple[Key, Json]:
    spec = {**PROMPT, "parameters": {"max_tokens": number + 1}}
    return Key(f"answer-{number}", kind_of("prompt").revision(spec)), {"spec": spec, "root": ""}


def _kept(target: LocalTarget) -> Path:
    """What is remembered of the prompts that were found whole."""
    state = target.state_folder
    return state.parent / ".cache" / f"found.{state.name}.prompt.json"


def _no_temporary_file(target: LocalTarget) -> bool:
    return not any(".tmp-" in name for name in files_below(target.state_folder))


def test_an_artifact_that_does_not_fit_is_said_and_leaves_nothing(target: LocalTarget, project: Path, op: Op) -> None:
    model = model_spec(project)
    wants = {"prompt": _prompt(), "model": (KEY, {"spec": model, "root": str(project)})}
    for kind, (key, want) in wants.items():
        with full_disk(), pytest.raises(ProviderError, match=r"cannot store .*: File too large: .*artifacts") as caught:
            target.providers[kind].create(op, key, want)
        assert "free space" in caught.value.hint
        assert not target.providers[kind].read_all().found
        assert target.artifacts.list() == frozenset()
    assert _no_temporary_file(target)
    for kind, (key, want) in wants.items():
        assert target.providers[kind].create(op, key, want).healthy


def test_a_manifest_that_does_not_fit_leaves_the_old_one(target: LocalTarget, op: Op) -> None:
    key, want = _prompt()
    provider = target.providers["prompt"]
    live = provider.create(op, key, want)
    with full_disk(), pytest.raises(ProviderError, match=rf"cannot update prompt .*{key}\.json"):
        provider.update(op, key, live, {**want, "spec": {**want["spec"], "protect": True}})
    assert provider.read_all().found[key] == live
    assert _no_temporary_file(target)


def test_an_endpoint_that_cannot_be_written_leaves_neither_file_nor_process_nor_key(
    started: LocalTarget, project: Path, op: Op, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_spec(project)
    started.artifacts.put_file(project / model["source"], model["weights"]["digest"])
    monkeypatch.setenv("TEST_API_KEY", CANARY)
    secrets = started.state_folder / "gateway" / "secrets.json"
    before, processes = secrets.read_bytes(), len(processes_of(started.state_folder))
    for spec, room in (
        (endpoint_spec(model["weights"]), 128),
        (external_spec(api.url), len(before)),  # not even the secrets fit
        (external_spec(api.url), len(before) + 150),  # the secrets fit, the endpoint does not
    ):
        with full_disk(room), pytest.raises(ProviderError, match="File too large") as caught:
            started.providers["endpoint"].create(op, KEY, spec)
        assert CANARY not in f"{caught.value} {caught.value.detail} {caught.value.hint}"
        assert str(started.state_folder) in caught.value.summary
        assert not started.providers["endpoint"].read_all().found
        assert secrets.read_bytes() == before
        assert len(processes_of(started.state_folder)) == processes
    assert _no_temporary_file(started)


def test_a_gateway_that_cannot_keep_its_configuration_serves_the_old_one(started: LocalTarget, op: Op) -> None:
    [gateway] = [p for p in started.processes() if p.role is ProcessRole.GATEWAY]
    served = started.gateway.publish(op, GatewayConfig("dev", 1, 1), "").configs
    process = psutil.Process(gateway.pid)
    unlimited = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (16, unlimited[1]))
    with pytest.raises(ProviderError, match="refuses the configuration") as caught:
        started.gateway.publish(op, GatewayConfig("dev", 2, 2), GatewayConfig("dev", 1, 1).revision)
    assert "config.json cannot be written: File too large" in caught.value.detail
    assert started.gateway.read().configs == served
    process.rlimit(psutil.RLIMIT_FSIZE, unlimited)
    assert started.gateway.publish(op, GatewayConfig("dev", 2, 2), GatewayConfig("dev", 1, 1).revision).running


@pytest.mark.parametrize("damage", ["garbage", "truncated", "same time"])
def test_stored_content_that_was_changed_is_never_taken_as_good(
    target: LocalTarget, op: Op, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_SETTLED_NS", 0)
    key, want = _prompt()
    provider = target.providers["prompt"]
    [digest] = provider.create(op, key, want).outputs["digests"]
    assert provider.read_all().found[key].healthy  # and is remembered so
    stored = target.artifacts.path(digest)
    times, content = stored.stat(), stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(content[:-1] if damage == "truncated" else content[:-1] + b"?")
    if damage == "same time":
        os.utime(stored, ns=(times.st_atime_ns, times.st_mtime_ns))
    read = provider.read_all().found[key]
    assert not read.healthy
    assert read.detail.startswith("content missing" if damage == "truncated" else "content damaged")
    assert provider.create(op, key, want).healthy
    assert provider.read_all().found[key].healthy


def test_what_did_not_change_is_not_read_again(target: LocalTarget, op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_SETTLED_NS", 0)
    provider = target.providers["prompt"]
    for number in range(20):
        provider.create(op, *_prompt(number))
    first = provider.read_all()
    look, looked = ArtifactProvider._look, list[Key]()

    def counted(self: ArtifactProvider, key: Key) -> tuple[Live[Json] | None, found.Found | None]:
        looked.append(key)
        return look(self, key)

    monkeypatch.setattr(ArtifactProvider, "_look", counted)
    assert provider.read_all() == first
    assert looked == []
    key, want = _prompt(3)
    provider.update(op, key, first.found[key], {**want, "spec": {**want["spec"], "protect": True}})
    provider.delete(op, _prompt(4)[0], first.found[_prompt(4)[0]])
    looked.clear()
    again = provider.read_all()
    assert looked == [key]
    assert again.found[key].state["protect"] is True
    assert set(again.found) == set(first.found) - {_prompt(4)[0]}
    for remembered in (b"{ no json", b"[]", b'{"basis": 1}', b"\xff", b"[" * 100_000):
        _kept(target).write_bytes(remembered)
        assert provider.read_all() == again


def test_fresh_files_are_read_again_until_their_times_tell_versions_apart(target: LocalTarget, op: Op) -> None:
    provider = target.providers["prompt"]
    key = provider.create(op, *_prompt()).key
    manifest = target.state_folder / "manifests" / "prompt" / f"{key}.json"
    os.utime(manifest, (time.time() + 1000, time.time() + 1000))  # as fresh as can be, however slow this machine is
    assert provider.read_all().found[key].healthy
    assert not _kept(target).exists()


def test_a_large_file_is_stored_piece_by_piece_and_is_independent_of_its_source(
    target: LocalTarget, project: Path
) -> None:
    source = project / "large.jsonl"
    with source.open("wb") as file:
        file.truncate(64 << 20)
        file.write(b"start")
    digest = digest_file(source)
    tracemalloc.start()
    try:
        target.artifacts.put_file(source, digest)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    with source.open("r+b") as file:
        file.write(b"other")
    assert digest_file(target.artifacts.path(digest)) == digest


def test_a_full_disk_does_not_stop_a_reading(target: LocalTarget, op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_SETTLED_NS", 0)
    provider = target.providers["prompt"]
    provider.create(op, *_prompt())
    with full_disk():
        assert provider.read_all().found[_prompt()[0]].healthy
    assert _no_temporary_file(target)
    assert provider.create(new_op(), *_prompt()).healthy
