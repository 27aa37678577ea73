"""The local target as a whole: starts, stops and destroys what runs on this machine for one environment."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.errors import LlmctlError, ProviderError, TransientError
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.kinds import Role, kind_of
from llmctl.core.plugins import Place
from llmctl.core.protocols import ArtifactStore, GatewayControl, Op, Provider
from llmctl.core.resources import Environment, Key
from llmctl.providers.local import programs
from llmctl.providers.local.artifacts import ArtifactProvider
from llmctl.providers.local.collecting import Collector
from llmctl.providers.local.endpoints import EndpointProvider
from llmctl.providers.local.external import ExternalEndpoints
from llmctl.providers.local.gateway import LocalGateway
from llmctl.providers.local.launch import EndpointFile, endpoint_files, key_of_program
from llmctl.providers.local.layout import Layout, explained, write_json
from llmctl.providers.local.llama import LlamaEndpoints
from llmctl.providers.local.lock import StateLock
from llmctl.providers.local.plugins import provider_of
from llmctl.providers.local.probes import Probes
from llmctl.providers.local.secrets_file import SecretsFile
from llmctl.providers.local.store import FileStore
from llmctl.providers.local.supervisor import Managed, Presence, State, Supervisor, is_held, log_tail, started_at
from llmctl.providers.local.wire import NoAnswer, NobodyThere, free_port, holder, is_free, listens, local_request

_POLL_S = 0.03
_PROBE_S = 1.5
_PORT_ATTEMPTS = 5
_STANDS_STILL = (State.STOPPED, State.EXITED, State.FATAL)


class ProcessRole(Enum):
    """What a process of the local target is there for."""

    SUPERVISOR = "supervisor"
    GATEWAY = "gateway"
    ENGINE = "engine"


class ProcessState(Enum):
    """What a process does, as found out just now. UNHEALTHY: it lives and does not serve what it should."""

    RUNNING = "running"
    STARTING = "starting"
    UNHEALTHY = "unhealthy"
    FAILING = "failing"  # it ended, and is started again after a pause
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process for people and programs. Times in seconds, ``started_at`` since the epoch; 0 when none runs."""

    name: str
    role: ProcessRole
    key: Key | None  # of an engine
    pid: int
    state: ProcessState
    started_at: float
    uptime: float
    detail: str


class LocalTarget:
    """``core.protocols.Target`` on this machine, under ``.llmctl/<env>/`` in ``root``. Reading creates nothing."""

    providers: Mapping[str, Provider[Json]]
    artifacts: ArtifactStore
    gateway: GatewayControl

    def __init__(self, root: Path, project: str, environment: Environment) -> None:
        self.project = project
        self.environment = environment
        self._layout = Layout.of(root, environment.name)
        self._lock = StateLock(self._layout)
        self._store = FileStore(self._layout)
        self._secrets = SecretsFile(self._layout, self._lock)
        self._supervisor = Supervisor(self._layout)
        probes = Probes(self._layout, self._supervisor)
        llama = LlamaEndpoints(self._layout, self._lock, self._store, self._supervisor, probes)
        external = ExternalEndpoints(self._layout, self._lock, self._secrets)
        self._gateway = LocalGateway(self._layout, self._supervisor, self._secrets)
        self.artifacts = self._store
        self.collector = Collector(self._layout, self._lock, self._store)
        self.gateway = self._gateway
        self.endpoints = EndpointProvider(self._layout, self._supervisor, probes, llama, external)
        kinds = ("dataset", "model", "prompt")
        artifacts = {kind: ArtifactProvider(kind, self._layout, self._lock, self._store) for kind in kinds}
        self._providers: dict[str, Provider[Json]] = {**artifacts, "endpoint": self.endpoints}
        self.providers = self._providers

    def serve(self, addresses: Iterable[Address]) -> None:
        """Have the providers of these resources' kinds among ``providers``, as far as plug-ins have them.

        Raises ``LlmctlError`` for a kind that no installed package has, or that does not serve this target.
        """
        asked = {address.kind: address for address in addresses if address.kind not in self._providers}
        for kind, address in sorted(asked.items()):
            try:
                role = kind_of(kind).role
            except LlmctlError as error:
                detail = error.detail or f"{address} is of that kind. Nothing was changed."
                raise LlmctlError(error.summary, detail=detail, hint=error.hint) from None
            if role is Role.RESOURCE:
                place = Place(
                    project=self.project,
                    environment=self.environment.name,
                    target=self.environment.target,
                    root=self._layout.state.parent.parent,
                    folder=self._layout.kinds / kind,
                    artifacts=self._store,
                )
                self._providers[kind] = provider_of(kind, place, self._layout)

    def last_published(self) -> GatewayConfig | None:
        """What the gateway was given last, also while it is down."""
        return None if self._layout.is_copy else self._gateway.last_published()

    @property
    def state_folder(self) -> Path:
        return self._layout.state

    def exists(self) -> bool:
        """Whether anything of this target is on this machine."""
        return (self._layout.state.is_dir() and not self._layout.is_copy) or self._layout.runtime.is_dir()

    def is_up(self) -> bool:
        """Whether its process manager runs, or hangs."""
        return self.exists() and self._supervisor.presence() is not Presence.DOWN

    def start(self, op: Op) -> None:
        """State folder, secrets, process manager and gateway are there, and every known endpoint is started."""
        op.guard()
        with explained("start the local target"):
            if self._layout.is_copy:
                op.progress(f"removing {self._layout.state}, which was copied from another project")
                self._layout.remove()
            self._end_leftovers()
            self._refuse_taken_port()
            with self._lock.held():
                self._layout.make_runtime()
                self._layout.sweep()
                self._secrets.make()
                presence = self._supervisor.presence()
                if presence is Presence.UP and not self._layout.conf.is_file():
                    self._supervisor.shutdown()  # its folder was removed while it ran: it knows no program any more
                    presence = self._supervisor.presence()
                if presence is Presence.SILENT and self._layout.supervisor_socket.exists():
                    raise self._supervisor.silent()
                op.guard()
                if presence is not Presence.UP:
                    self._launch(op)
                else:
                    self._revive()
                self._ensure_gateway(op)

    def sweep(self) -> None:
        """Remove what a command that was killed left half written."""
        if not self._layout.is_copy:
            with explained("clear away what was left half written"):
                self._layout.sweep()

    def stop(self, op: Op) -> None:
        """Stop all processes and keep all files; ``start`` brings them back."""
        op.guard()
        with explained("stop the local target"):
            op.progress("stopping all processes")
            if self._layout.state.is_dir():
                with self._lock.held():
                    self._supervisor.shutdown()
            else:
                self._supervisor.shutdown()  # its folder was removed while it ran

    def destroy(self, op: Op) -> None:
        """Take everything away: processes, sockets, files."""
        op.guard()
        with explained("destroy the local target"):
            if self._layout.state.is_dir():
                with self._lock.held():
                    op.progress("stopping all processes")
                    self._supervisor.shutdown()
                    self._layout.remove()
            else:
                self._supervisor.shutdown()
                self._layout.remove()

    def processes(self) -> list[ProcessInfo]:
        """Every process that should be there or is. Empty when nothing was ever started."""
        if not self._layout.state.is_dir() or self._layout.is_copy:
            return []
        presence = self._supervisor.presence()
        managed = self._supervisor.all() if presence is Presence.UP else {}
        found = [self._manager_info(presence)]
        if programs.gateway_port(self._layout):
            found.append(self._gateway_info(presence, managed.get(programs.GATEWAY)))
        verdicts = self.endpoints.verdicts(managed) if presence is Presence.UP else {}
        known = {name for e in endpoint_files(self._layout)[0] if e.is_process for name in e.programs}
        for name in sorted(known | {name for name in managed if key_of_program(name)}):
            verdict = verdicts.get(name)
            trouble = verdict.trouble if verdict else "" if name in known else "its file in .llmctl is gone"
            found.append(_info(name, ProcessRole.ENGINE, key_of_program(name), presence, managed.get(name), trouble))
        return found

    def log_paths(self) -> dict[str, Path]:
        """Every log that exists: ``supervisord``, ``gateway`` and ``endpoint.<name>@<revision>``."""
        logs = self._layout.logs
        return {path.stem: path for path in sorted(logs.glob("*.log"))} if logs.is_dir() else {}

    def _end_leftovers(self) -> None:
        """What a process manager that was killed left behind would hold ports and be there twice."""
        if self._layout.state.is_dir():
            with self._lock.held():
                if self._supervisor.presence() is Presence.DOWN:
                    self._supervisor.reap()

    def _refuse_taken_port(self) -> None:
        """Before anything changes: a port that the file asks for must be free or the gateway's own."""
        if self.port_is_taken():
            raise self._port_taken(self.environment.gateway_port)

    def port_is_taken(self) -> bool:
        """Whether somebody else than the gateway listens on the port that the file asks for."""
        port = self.environment.gateway_port
        if not port or is_free(port):
            return False
        up = self._supervisor.presence() is Presence.UP
        managed = self._supervisor.one(programs.GATEWAY) if up else None
        return managed is None or not listens(managed.pid, port)

    def _port_taken(self, port: int) -> ProviderError:
        return ProviderError(
            f"port {port} is taken by {holder(port)}",
            detail=f"The gateway of environment {self.environment.name} is to listen on it.",
            hint="Stop that process, or choose another `gateway: {port: …}`; without it any free one is taken.",
        )

    def _launch(self, op: Op) -> None:
        """Start the process manager; ports that were taken meanwhile are given up for others."""
        op.progress("starting the process manager")
        self._supervisor.reap()
        for endpoint in endpoint_files(self._layout)[0]:
            self._move_ports(endpoint, endpoint.programs)
        self._choose_gateway_port()
        self._supervisor.write_conf(programs.wanted(self._layout))
        self._supervisor.launch()

    def _move_ports(self, endpoint: EndpointFile, stopped: Collection[str]) -> None:
        """Give these programs of an endpoint, which do not run, other ports where theirs were taken meanwhile."""
        ports = tuple(
            free_port() if name in stopped and not is_free(port) else port
            for name, port in zip(endpoint.programs, endpoint.ports, strict=True)
        )
        if ports != endpoint.ports:
            EndpointFile(endpoint.key, endpoint.spec, ports).write(self._layout.endpoint_file(endpoint.key))

    def _revive(self) -> None:
        """Start the engines that stand still or are not known to the process manager yet."""
        managed = self._supervisor.all()
        self._supervisor.write_conf(programs.wanted(self._layout))
        for endpoint in endpoint_files(self._layout)[0]:
            stopped = [n for n in endpoint.programs if n not in managed or managed[n].state in _STANDS_STILL]
            self._move_ports(endpoint, stopped)
            for name in stopped:
                self._supervisor.add(name)

    def _choose_gateway_port(self) -> int:
        """The port the file asks for, else the kept one if it is free, else any."""
        kept = programs.gateway_port(self._layout)
        port = self.environment.gateway_port or (kept if kept and is_free(kept) else free_port())
        if port != kept:
            write_json(self._layout.listen, {"port": port})
        return port

    def _ensure_gateway(self, op: Op) -> None:
        """The gateway runs on its port and answers; a port that somebody was faster to take is changed."""
        for attempt in range(_PORT_ATTEMPTS):
            managed = self._supervisor.one(programs.GATEWAY)
            port = programs.gateway_port(self._layout)
            moved = self.environment.gateway_port not in (0, port)
            if attempt or moved or not _lives(managed):
                op.guard()
                self._supervisor.remove(programs.GATEWAY)
                port = self._choose_gateway_port()
                self._supervisor.write_conf(programs.wanted(self._layout))
                self._supervisor.add(programs.GATEWAY)
                op.progress(f"waiting for the gateway on port {port}")
            if self._gateway_answers(op, port):
                return
            if self.environment.gateway_port and not is_free(port):
                raise self._port_taken(port)
            if is_free(port):
                break  # so the port is not why
        log = log_tail(self._layout.log_file(programs.GATEWAY), lines=10)
        raise ProviderError(
            "the gateway cannot start",
            detail=log,
            hint="The lines above are the gateway's own, `llmctl logs` has more.",
        )

    def _gateway_answers(self, op: Op, port: int) -> bool:
        """Wait until it serves clients; False when it ended, or is held by a signal, instead."""
        pid = 0
        while True:
            managed = self._supervisor.one(programs.GATEWAY)
            if managed is None or not _lives(managed) or (pid and managed.pid not in (0, pid)):
                return False
            pid = managed.pid or pid
            if self._gateway.read().configs and _answers(port):
                return True
            if time.monotonic() > op.deadline_s:
                raise TransientError(
                    "the gateway was not ready in the time allowed",
                    detail=log_tail(self._layout.log_file(programs.GATEWAY), lines=10),
                )
            op.guard()
            time.sleep(_POLL_S)

    def _manager_info(self, presence: Presence) -> ProcessInfo:
        pid = self._supervisor.pid()
        states = {Presence.UP: ProcessState.RUNNING, Presence.SILENT: ProcessState.UNHEALTHY}
        detail = "does not answer" if presence is Presence.SILENT else ""
        state = states.get(presence, ProcessState.STOPPED)
        return ProcessInfo("supervisord", ProcessRole.SUPERVISOR, None, pid, state, *_times(pid), detail)

    def _gateway_info(self, presence: Presence, managed: Managed | None) -> ProcessInfo:
        reading = self._gateway.read()
        public = _answers(programs.gateway_port(self._layout))
        trouble = reading.unreadable or ("" if public else "its port does not answer")
        info = _info(programs.GATEWAY, ProcessRole.GATEWAY, None, presence, managed, trouble if reading.running else "")
        return info if info.detail else replace(info, detail=reading.base_url)


def _lives(managed: Managed | None) -> bool:
    return managed is not None and managed.state in (State.STARTING, State.RUNNING) and not is_held(managed.pid)


def _info(
    name: str, role: ProcessRole, key: Key | None, presence: Presence, managed: Managed | None, trouble: str
) -> ProcessInfo:
    """From the process manager's word, the process table, and what a probe found wrong ("" for nothing)."""
    if presence is Presence.SILENT:
        return ProcessInfo(name, role, key, 0, ProcessState.UNHEALTHY, 0.0, 0.0, "the process manager does not answer")
    if managed is None or not managed.pid:
        failing = managed is not None and managed.state in (State.BACKOFF, State.FATAL)
        state = ProcessState.FAILING if failing else ProcessState.STOPPED
        return ProcessInfo(name, role, key, 0, state, 0.0, 0.0, trouble)
    started = started_at(managed.pid)
    if started is None:
        return ProcessInfo(name, role, key, 0, ProcessState.FAILING, 0.0, 0.0, "it just ended")
    state = ProcessState.RUNNING
    if trouble:
        starting = managed.state is State.STARTING and not is_held(managed.pid)
        state = ProcessState.STARTING if starting else ProcessState.UNHEALTHY
    return ProcessInfo(name, role, key, managed.pid, state, *_times(managed.pid), trouble)


def _times(pid: int) -> tuple[float, float]:
    """Start and uptime of a process in seconds."""
    started = started_at(pid) if pid else None
    return (started, max(0.0, time.time() - started)) if started else (0.0, 0.0)


def _answers(port: int) -> bool:
    """Whether the gateway's port answers as healthy."""
    try:
        return local_request(port, "GET", "/health", timeout_s=_PROBE_S).status == 200
    except (NobodyThere, NoAnswer):
        return False
