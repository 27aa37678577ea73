"""The process: starting, refusing to start, stopping, and never outliving its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import psutil
import pytest
from aiohttp import ClientSession

from llmctl.core.digests import Json
from llmctl.core.errors import LlmctlError
from llmctl.gateway.state import State

from .fakes import (
    CANARIES,
    KEY,
    SOURCE,
    TOKEN,
    GatewayProcess,
    config,
    promoted,
    revision,
    to,
    until,
    upstream,
    wait_until,
)

CHAT = "/v1/chat/completions"
ASK: Json = {"model": "support", "prompt_variables": {"question": "x"}}


async def test_a_restart_serves_the_same_also_after_a_kill(tmp_path: Path) -> None:
    async with upstream() as fake:
        gateway = GatewayProcess(tmp_path / "gw").start()
        try:
            served = gateway.publish(config(promoted("support", revision("r1", to(fake)))))
            gateway.stop(signal.SIGKILL)
            assert gateway.socket.exists()  # nobody was left to remove it
            gateway.start()
            assert gateway.admin("GET", "/config")[1]["revision"] == served
            async with ClientSession(gateway.url) as client, client.post(CHAT, json=ASK) as response:
                assert response.status == 200
        finally:
            assert gateway.stop() == 0
        assert not gateway.socket.exists()


async def test_sigterm_lets_requests_in_flight_finish(tmp_path: Path) -> None:
    async with upstream("hang") as slow, upstream("pause") as streaming:
        gateway = GatewayProcess(tmp_path / "gw").start()
        routes = promoted("slow", revision("r1", to(slow))), promoted("stream", revision("r2", to(streaming)))
        gateway.publish(config(*routes))
        async with ClientSession(gateway.url) as client:
            waiting = asyncio.create_task(client.post(CHAT, json={**ASK, "model": "slow"}).__aenter__())
            stream = await client.post(CHAT, json={**ASK, "model": "stream", "stream": True})
            await stream.content.readuntil(b"\n\n")
            await until(lambda: len(slow.requests) == 1, "the upstream to be asked")
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGTERM)
            await until(lambda: _refuses(gateway.port), "the port to be closed")
            assert gateway.process.poll() is None
            slow.go_on.set()
            streaming.go_on.set()
            async with await waiting as response:
                assert response.status == 200
                assert (await response.json())["model"] == "slow"
            assert (await stream.content.read()).endswith(b"data: [DONE]\n\n")
            assert await asyncio.to_thread(gateway.process.wait, 10) == 0


def _refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "gw")
    script = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); p.wait()"
    with (
        gateway.log.open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-c", script, *gateway.command()],
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        ) as parent,
    ):
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        wait_until(lambda: "serving on" in gateway.log.read_text(), "the gateway to be ready")
        parent.kill()
        wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the gateway to end")
    wait_until(lambda: "stopped" in gateway.log.read_text(), "the last words")
    assert not gateway.socket.exists()


def test_a_corrupt_configuration_stops_the_start(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "gw")
    path = gateway.folder / "config.json"
    path.write_text("{")
    said = gateway.refuses_to_start()
    assert said.count("\n") == 1
    assert f"error: {path} cannot be used" in said
    assert path.read_text() == "{"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"config": 5}', '{"config": {"format": 99}}', "[" * 100_000])
def test_no_configuration_that_cannot_be_read_is_taken_for_none(tmp_path: Path, content: str) -> None:
    folder = GatewayProcess(tmp_path / "gw").folder
    (folder / "config.json").write_text(content)
    with pytest.raises(LlmctlError, match=r"config\.json cannot be used"):
        State(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(LlmctlError, match=r"config\.json cannot be read"):
        State(folder)


def test_secrets_open_to_others_stop_the_start(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "gw")
    gateway.write_secrets({"gate_token": TOKEN, "keys": {"HOSTED": KEY}}, mode=0o640)
    said = gateway.refuses_to_start()
    assert "open to other users (mode 0640)" in said
    assert "chmod 600" in said
    assert not any(canary in said for canary in CANARIES)


@pytest.mark.parametrize(
    "content",
    [KEY, "[]", f'{{"keys": {{"A": "{KEY}"}}}}', f'{{"gate_token": "{TOKEN}", "keys": {{"A": "{KEY}\\n"}}}}'],
)
def test_unusable_secrets_are_refused_and_never_quoted(tmp_path: Path, content: str) -> None:
    folder = GatewayProcess(tmp_path / "gw").folder
    (folder / "secrets.json").write_text(content)
    with pytest.raises(LlmctlError, match=r"secrets\.json") as refused:
        State(folder)
    said = "".join(traceback.format_exception(refused.value)) + refused.value.hint
    assert not any(canary in said for canary in CANARIES)


def test_missing_secrets_stop_the_start(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "gw")
    (gateway.folder / "secrets.json").unlink()
    assert "secrets.json is missing" in gateway.refuses_to_start()


def test_a_taken_port_stops_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        gateway = GatewayProcess(tmp_path / "gw", port)
        said = gateway.refuses_to_start()
    assert f"error: cannot listen on 127.0.0.1:{port}: Address already in use" in said
    assert said.count("\n") == 1
    assert not gateway.socket.exists()


def test_a_socket_that_answers_is_left_alone(gateway: GatewayProcess, tmp_path: Path) -> None:
    second = GatewayProcess(tmp_path / "gw")
    second.socket = gateway.socket
    assert "another gateway answers on" in second.refuses_to_start()
    assert gateway.admin("GET", "/health")[0] == 200


def test_a_file_where_the_socket_should_be_is_left_alone(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "gw")
    gateway.socket.write_text("precious")
    assert "it is not a socket" in gateway.refuses_to_start()
    assert gateway.socket.read_text() == "precious"


def test_a_socket_path_that_is_too_long_is_explained(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "gw")
    gateway.socket = tmp_path / ("x" * 120)
    assert "path too long" in gateway.refuses_to_start()
