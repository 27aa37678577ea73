"""``python -m llmctl.providers.local.engine`` on its own: what it says and how it exits when it cannot serve."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import llmctl
from llmctl.core.protocols import Op
from llmctl.core.resources import Key
from llmctl.providers.local import LocalTarget
from llmctl.providers.local.launch import DAMAGED, FAILED, PORT_TAKEN, EndpointFile, Launch
from llmctl.providers.local.wire import free_port
from tests.providers.conftest import endpoint_spec, model_spec

KEY = Key("support", "a" * 16)


@pytest.fixture
def endpoint(target: LocalTarget, project: Path) -> EndpointFile:
    model = model_spec(project)
    target.artifacts.put_file(project / "support-tiny.gguf", model["weights"]["digest"])
    made = EndpointFile(KEY, endpoint_spec(model["weights"]), (free_port(),))
    made.write(_file(target))
    return made


def _file(target: LocalTarget) -> Path:
    return target.state_folder / "endpoints" / f"{KEY}.json"


def _run(target: LocalTarget, identity: str, first: Path | None = None) -> tuple[int, str]:
    search = [str(path) for path in (first, Path(llmctl.__file__).parents[1]) if path]
    command = [sys.executable, "-m", "llmctl.providers.local.engine", str(_file(target)), "1", identity]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(search)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.strip()


def _identity(endpoint: EndpointFile) -> str:
    return Launch.from_spec(endpoint.key, endpoint.spec).identity


def test_a_taken_port_is_named_with_its_holder(target: LocalTarget, endpoint: EndpointFile) -> None:
    with socket.create_server(("127.0.0.1", endpoint.ports[0])):
        code, said = _run(target, _identity(endpoint))
    assert code == PORT_TAKEN
    assert said.startswith(f"llmctl engine: error 98: port {endpoint.ports[0]} is taken by pid {os.getpid()} (")


def test_a_damaged_artifact_is_not_served(target: LocalTarget, endpoint: EndpointFile) -> None:
    stored = target.artifacts.path(endpoint.spec["weights"]["digest"])
    stored.chmod(0o644)
    with stored.open("r+b") as file:
        file.write(b"X")
    code, said = _run(target, _identity(endpoint))
    assert code == DAMAGED
    assert f"stored artifact {endpoint.spec['weights']['digest']} is damaged" in said


def test_a_missing_openmp_says_what_to_install(target: LocalTarget, endpoint: EndpointFile, tmp_path: Path) -> None:
    reason = "libgomp.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "xllamacpp.py").write_text(f"raise ImportError({reason!r})\n")
    code, said = _run(target, _identity(endpoint), tmp_path)
    assert code == FAILED
    assert said.splitlines() == [
        f"llmctl engine: error 1: llama.cpp cannot be loaded: {reason}: install it with `apt-get install libgomp1`"
    ]


def test_another_specification_than_its_own_is_not_served(target: LocalTarget, endpoint: EndpointFile) -> None:
    code, said = _run(target, "0" * 16)
    assert code == FAILED
    assert f"now says {_identity(endpoint)}, this process was to serve {'0' * 16}" in said


def test_a_file_that_is_gone_or_damaged_is_named(target: LocalTarget, endpoint: EndpointFile) -> None:
    _file(target).write_text('{"format": 99, "key": "", "spec": {}, "ports": [1]}')
    assert "its format is 99" in _run(target, _identity(endpoint))[1]
    _file(target).unlink()
    assert _run(target, _identity(endpoint)) == (FAILED, f"llmctl engine: error 1: {_file(target)} is gone")


def test_the_package_is_cheap_to_import() -> None:
    slow = ("psutil", "xmlrpc", "supervisor", "http.client", "aiohttp", "asyncio", "pydantic", "xllamacpp")
    code = f"import sys, llmctl.providers.local; print([name for name in {slow} if name in sys.modules])"
    environment = {"PYTHONPATH": str(Path(llmctl.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_creates_nothing(target: LocalTarget, project: Path, op: Op) -> None:
    before = sorted(project.rglob("*"))
    for provider in target.providers.values():
        assert not provider.read_all().found
    assert not target.gateway.read().running
    assert target.processes() == []
    assert target.log_paths() == {}
    assert target.artifacts.list() == frozenset()
    target.stop(op)
    target.destroy(op)
    assert sorted(project.rglob("*")) == before
