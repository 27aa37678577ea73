"""The local target as a whole: start, stop, destroy, and what survives which accident."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llmctl.core.digests import Json
from llmctl.core.errors import ProviderError, TransientError
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import Op
from llmctl.core.resources import ALL, Environment, Key
from llmctl.providers.local import LocalTarget, ProcessInfo, ProcessRole, ProcessState
from llmctl.providers.local.layout import Layout
from llmctl.providers.local.wire import free_port
from tests.providers.conftest import (
    end,
    endpoint_spec,
    files_below,
    listening,
    model_spec,
    new_op,
    processes_of,
    until,
)

KEY = Key("support", "a" * 16)


def _spec(target: LocalTarget, project: Path) -> Json:
    model = model_spec(project)
    target.artifacts.put_file(project / "support-tiny.gguf", model["weights"]["digest"])
    return endpoint_spec(model["weights"])


@pytest.fixture
def serving(started: LocalTarget, project: Path) -> LocalTarget:
    """A started target with one engine."""
    started.providers["endpoint"].create(new_op(), KEY, _spec(started, project))
    return started


@pytest.fixture(scope="module")
def undisturbed(shared: LocalTarget, shared_project: Path) -> LocalTarget:
    """A serving target for the tests that leave it as it is."""
    shared.providers["endpoint"].create(new_op(), KEY, _spec(shared, shared_project))
    return shared


@pytest.fixture
def others() -> Iterator[list[LocalTarget]]:
    """More targets of a test; they are ended with it."""
    made: list[LocalTarget] = []
    yield made
    for target in made:
        end(target)


def _by_role(target: LocalTarget) -> dict[ProcessRole, ProcessInfo]:
    found = target.processes()
    assert len(found) == len({info.role for info in found})
    return {info.role: info for info in found}


def _pids(target: LocalTarget) -> set[int]:
    return {process.pid for process in processes_of(target.state_folder)}


def _engine_url(target: LocalTarget) -> str:
    return str(target.providers["endpoint"].read_all().found[KEY].outputs["base_url"])


def _port(url: str) -> int:
    return int(url.split(":")[2].removesuffix("/v1"))


def _hold(pid: int) -> None:
    psutil.Process(pid).suspend()
    assert until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def _healthy(target: LocalTarget) -> bool:
    found = target.providers["endpoint"].read_all().found
    return KEY in found and found[KEY].healthy


def test_every_process_is_there_once_and_says_so(undisturbed: LocalTarget) -> None:
    found = _by_role(undisturbed)
    assert {info.state for info in found.values()} == {ProcessState.RUNNING}
    assert {info.pid for info in found.values()} == _pids(undisturbed)
    assert found[ProcessRole.ENGINE].key == KEY
    assert found[ProcessRole.GATEWAY].detail == undisturbed.gateway.read().base_url
    for info in found.values():
        assert info.started_at == psutil.Process(info.pid).create_time()
        assert 0 <= info.uptime < 60


def test_starting_again_changes_nothing(undisturbed: LocalTarget, op: Op) -> None:
    before = _pids(undisturbed)
    undisturbed.start(op)
    assert _pids(undisturbed) == before


def test_stopping_keeps_all_files_and_starting_brings_everything_back(serving: LocalTarget, op: Op) -> None:
    url, address = serving.gateway.read().base_url, _engine_url(serving)
    kept = {path for path in files_below(serving.state_folder) if not path.endswith("supervisord.pid")}
    serving.stop(op)
    assert _pids(serving) == set()
    assert kept <= files_below(serving.state_folder)
    assert not serving.providers["endpoint"].read_all().found
    assert not serving.providers["endpoint"].read_all().unreadable
    assert {info.state for info in serving.processes()} == {ProcessState.STOPPED}
    serving.stop(op)
    serving.start(op)
    assert (serving.gateway.read().base_url, _engine_url(serving)) == (url, address)
    assert _healthy(serving)


def test_ports_that_were_taken_meanwhile_are_given_up(serving: LocalTarget, op: Op) -> None:
    url, address = serving.gateway.read().base_url, _engine_url(serving)
    serving.stop(op)
    with socket.create_server(("127.0.0.1", _port(url))), socket.create_server(("127.0.0.1", _port(address))):
        serving.start(op)
        assert _healthy(serving)
        assert _engine_url(serving) != address
        assert serving.gateway.read().base_url not in ("", url)


def test_destroy_leaves_a_link_to_another_disk(target: LocalTarget, project: Path, tmp_path: Path, op: Op) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (project / ".llmctl").symlink_to(disk)
    target.start(op)
    assert (disk / "dev" / "supervisord.conf").is_file()
    target.destroy(op)
    assert (project / ".llmctl").is_symlink()
    assert not (disk / "dev").exists()


def test_destroy_leaves_nothing(target: LocalTarget, project: Path, op: Op) -> None:
    files, ports = files_below(project), listening()
    target.start(op)
    target.providers["endpoint"].create(op, KEY, _spec(target, project))
    runtime = Layout(target.state_folder).runtime
    running = _pids(target)
    assert len(running) == 3
    assert len(listening() - ports) >= 2
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in runtime.iterdir()} == {0o600}
    assert stat.S_IMODE(target.state_folder.stat().st_mode) == 0o700
    ours = {c.laddr.port for pid in running for c in psutil.Process(pid).net_connections("tcp")}
    target.destroy(op)
    assert _pids(target) == set()
    assert not {port for _, port in listening()} & ours
    assert not runtime.exists()
    assert files_below(project) == files
    target.destroy(op)


def test_killed_gateway_and_engine_come_back_by_themselves(serving: LocalTarget) -> None:
    url, address = serving.gateway.read().base_url, _engine_url(serving)
    before = {info.pid for info in serving.processes() if info.role is not ProcessRole.SUPERVISOR}
    for pid in before:
        psutil.Process(pid).kill()
    assert until(lambda: _healthy(serving) and bool(serving.gateway.read().configs))
    assert not _pids(serving) & before
    assert (serving.gateway.read().base_url, _engine_url(serving)) == (url, address)


def test_children_die_with_a_killed_manager_and_start_restores_each_once(serving: LocalTarget, op: Op) -> None:
    url, address = serving.gateway.read().base_url, _engine_url(serving)
    psutil.Process(_by_role(serving)[ProcessRole.SUPERVISOR].pid).kill()
    assert until(lambda: _pids(serving) == set())
    reading = serving.providers["endpoint"].read_all()
    assert (reading.found, reading.unreadable) == ({}, {})
    assert serving.gateway.read().running is False
    assert (serving.state_folder / "supervisord.pid").exists()
    serving.start(op)
    assert _healthy(serving)
    assert len(_pids(serving)) == 3
    assert (serving.gateway.read().base_url, _engine_url(serving)) == (url, address)


def test_leftovers_of_a_killed_manager_are_ended_before_a_new_start(serving: LocalTarget, op: Op) -> None:
    found = _by_role(serving)
    command = psutil.Process(found[ProcessRole.ENGINE].pid).cmdline()
    environment = psutil.Process(found[ProcessRole.ENGINE].pid).environ()
    psutil.Process(found[ProcessRole.SUPERVISOR].pid).kill()
    assert until(lambda: _pids(serving) == set())
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as survivor:  # as without die_with_parent
        assert survivor.stdout
        assert survivor.stdout.readline().startswith(b"serves ")
        assert not serving.providers["endpoint"].read_all().found
        serving.start(op)
        assert until(lambda: survivor.poll() is not None)
    assert len(_pids(serving)) == 3
    assert _healthy(serving)


def test_a_copy_of_a_project_knows_nothing_of_what_runs_there(
    serving: LocalTarget, op: Op, others: list[LocalTarget], tmp_path: Path
) -> None:
    serving.gateway.publish(op, GatewayConfig("dev", serial=7, fence=7), "")
    copied = tmp_path / "copy"
    shutil.copytree(serving.state_folder.parents[1], copied)
    copy = LocalTarget(copied, "acme", serving.environment)
    others.append(copy)
    assert (copy.exists(), copy.last_published(), copy.processes()) == (False, None, [])
    assert (copy.gateway.read().running, copy.gateway.read().base_url) == (False, "")
    pids = _pids(serving)
    copy.start(op)
    assert not copy.providers["endpoint"].read_all().found
    assert copy.gateway.read().base_url != serving.gateway.read().base_url
    copy.destroy(op)
    assert _pids(serving) == pids
    assert _healthy(serving)


def test_stopping_ends_processes_whose_folder_was_removed(serving: LocalTarget, op: Op) -> None:
    pids = _pids(serving)
    shutil.rmtree(serving.state_folder)
    serving.stop(op)
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_a_hanging_manager_is_unreadable_and_can_be_stopped(serving: LocalTarget, op: Op) -> None:
    _hold(_by_role(serving)[ProcessRole.SUPERVISOR].pid)
    reading = serving.providers["endpoint"].read_all()
    assert not reading.found
    assert "does not answer" in reading.unreadable[ALL].summary
    assert "llmctl local stop" in reading.unreadable[ALL].hint
    with pytest.raises(TransientError, match="does not answer"):
        serving.start(op)
    serving.stop(op)
    assert _pids(serving) == set()


def test_a_hanging_gateway_is_unreadable_and_is_started_anew(
    started: LocalTarget, op: Op, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmctl.providers.local.gateway._ANSWER_S", 0.5)
    held = _by_role(started)[ProcessRole.GATEWAY].pid
    _hold(held)
    reading = started.gateway.read()
    monkeypatch.undo()
    assert reading.running
    assert "does not answer" in reading.unreadable
    started.start(op)
    assert started.gateway.read().configs
    assert held not in _pids(started)


def test_stale_sockets_and_a_pid_of_somebody_else_mean_down(started: LocalTarget, op: Op) -> None:
    layout = Layout(started.state_folder)
    started.stop(op)
    for path in (layout.supervisor_socket, layout.admin_socket):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
    layout.pidfile.write_text(f"{os.getpid()}\n")
    assert not started.providers["endpoint"].read_all().unreadable
    assert started.gateway.read().running is False
    started.start(op)
    assert started.gateway.read().configs


def test_a_removed_state_folder_does_not_hide_what_runs(serving: LocalTarget, op: Op) -> None:
    runtime = Layout(serving.state_folder).runtime
    shutil.rmtree(serving.state_folder)
    serving.destroy(op)
    assert _pids(serving) == set()
    assert not runtime.exists()


def test_a_fixed_port_that_is_taken_is_named_before_anything_changes(
    project: Path, op: Op, others: list[LocalTarget]
) -> None:
    before = files_below(project)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        others.append(LocalTarget(project, "acme", Environment("dev", "local", port)))
        with pytest.raises(ProviderError, match=rf"port {port} is taken by pid {os.getpid()} \(") as caught:
            others[0].start(op)
    assert "gateway: {port" in caught.value.hint
    assert files_below(project) == before


def test_a_fixed_port_is_used_and_can_be_changed(project: Path, op: Op, others: list[LocalTarget]) -> None:
    first, second = free_port(), free_port()
    for port in (first, second, second):
        others.append(LocalTarget(project, "acme", Environment("dev", "local", port)))
        others[-1].start(op)
        assert others[-1].gateway.read().base_url == f"http://127.0.0.1:{port}"
    assert len(_pids(others[0])) == 2


def test_environments_and_projects_do_not_meet(
    undisturbed: LocalTarget, shared_project: Path, op: Op, others: list[LocalTarget]
) -> None:
    second = LocalTarget(shared_project, "acme", Environment("test", "local"))
    others.append(second)
    second.start(op)
    assert not second.providers["endpoint"].read_all().found
    assert second.gateway.read().base_url != undisturbed.gateway.read().base_url
    assert second.gateway.gate_access().token != undisturbed.gateway.gate_access().token
    second.destroy(op)
    assert _healthy(undisturbed)


def test_a_moved_project_ends_what_ran_at_its_old_place(
    serving: LocalTarget, project: Path, tmp_path: Path, op: Op, others: list[LocalTarget]
) -> None:
    old, runtime = _pids(serving), Layout(serving.state_folder).runtime
    project.rename(tmp_path / "moved")
    moved = LocalTarget(tmp_path / "moved", "acme", Environment("dev", "local"))
    others.append(moved)
    assert not moved.providers["endpoint"].read_all().found
    moved.start(op)
    assert _healthy(moved)
    assert not [pid for pid in old if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    assert not runtime.exists()


def test_a_path_with_every_special_character_works(
    project: Path, tmp_path: Path, op: Op, others: list[LocalTarget]
) -> None:
    root = tmp_path / "a b;c #d %(here)s 'q\" [x] $HOME"
    project.rename(root)
    odd = LocalTarget(root, "acme", Environment("dev", "local"))
    others.append(odd)
    odd.start(op)
    odd.providers["endpoint"].create(op, KEY, _spec(odd, root))
    assert _healthy(odd)


def test_a_runtime_folder_of_somebody_else_is_refused(target: LocalTarget, tmp_path: Path, op: Op) -> None:
    runtime = Layout(target.state_folder).runtime
    (tmp_path / "elsewhere").mkdir()
    runtime.symlink_to(tmp_path / "elsewhere")
    try:
        with pytest.raises(ProviderError, match="belongs to somebody else"):
            target.start(op)
        assert "somebody else" in target.providers["endpoint"].read_all().unreadable[ALL].summary
    finally:
        runtime.unlink()


def test_the_runtime_folder_is_remembered(
    target: LocalTarget, op: Op, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = Path("/tmp") / f"llmctl-test-{os.getpid()}"
    base.mkdir(mode=0o700)
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
        target.start(op)
        assert Layout(target.state_folder).runtime.parent == base
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        assert target.gateway.read().configs
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("other")))
        assert target.gateway.read().configs
        target.destroy(op)
        assert list(base.iterdir()) == []
    finally:
        shutil.rmtree(base)


def test_a_runtime_path_too_long_for_a_socket_is_not_used(
    target: LocalTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert str(Layout(target.state_folder).runtime).startswith(f"/tmp/llmctl-{os.geteuid()}-")


def test_the_state_folder_stays_out_of_git(undisturbed: LocalTarget) -> None:
    assert (undisturbed.state_folder.parent / ".gitignore").read_text() == "*\n"


def test_a_gateway_that_cannot_start_is_explained(target: LocalTarget, op: Op) -> None:
    target.artifacts.put_bytes(b"")
    (target.state_folder / "gateway" / "config.json").write_text(json.dumps({"config": {"format": 99}}))
    with pytest.raises(ProviderError, match="the gateway cannot start") as caught:
        target.start(op)
    assert "config.json cannot be used" in caught.value.detail


def test_damaged_files_of_its_own_are_explained(target: LocalTarget, op: Op) -> None:
    target.artifacts.put_bytes(b"")
    gateway = target.state_folder / "gateway"
    (target.state_folder / "runtime.json").write_text("[]")
    (gateway / "listen.json").write_text("{")
    with pytest.raises(ProviderError, match="port cannot be read") as caught:
        target.start(op)
    assert "Delete it" in caught.value.hint
    (gateway / "listen.json").unlink()
    (gateway / "secrets.json").write_text("{")
    with pytest.raises(ProviderError, match="secrets file is damaged"):
        target.start(op)
    assert _pids(target) == set()


def test_logs_are_named(undisturbed: LocalTarget) -> None:
    assert set(undisturbed.log_paths()) == {"supervisord", "gateway", f"endpoint.{KEY}"}
    assert all(path.is_file() for path in undisturbed.log_paths().values())
