"""Endpoints with ``engine: llama.cpp``: child processes of the process manager, one a replica."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from llmctl.core.digests import Json
from llmctl.core.errors import LeaseLost, ProviderError, TransientError
from llmctl.core.protocols import Op
from llmctl.core.resources import Key, Live
from llmctl.providers.local.launch import (
    DAMAGED,
    PORT_TAKEN,
    EndpointFile,
    Launch,
    drain_s,
    endpoint_program,
    key_of_program,
    loading_file,
    replica_count,
)
from llmctl.providers.local.layout import Layout, explained
from llmctl.providers.local.lock import StateLock
from llmctl.providers.local.probes import DEAD, PROBE_S, Probes, probe, reason, surplus_programs
from llmctl.providers.local.programs import wanted
from llmctl.providers.local.store import FileStore
from llmctl.providers.local.supervisor import Managed, Presence, Supervisor, log_tail
from llmctl.providers.local.wire import NoAnswer, NobodyThere, free_port, is_free, local_request

_POLL_S = 0.03
_SAY_EVERY_S = 2.0
_PORT_ATTEMPTS = 5
_END_S = 5.0  # what an engine may need beyond its drain, to end


class EngineDied(ProviderError):
    """The engine ended while it was waited for; ``engine_code`` as ``launch`` names them."""

    def __init__(self, summary: str, code: int, *, detail: str, hint: str) -> None:
        super().__init__(summary, detail=detail, hint=hint)
        self.engine_code = code


@dataclass(frozen=True, slots=True)
class Start:
    """One replica that was just started: where it listens, and the byte of its log from which on it speaks."""

    program: str
    port: int
    log_from: int


class LlamaEndpoints:
    """Starts and stops engine processes."""

    def __init__(
        self, layout: Layout, lock: StateLock, store: FileStore, supervisor: Supervisor, probes: Probes
    ) -> None:
        self._layout = layout
        self._lock = lock
        self._store = store
        self._supervisor = supervisor
        self._probes = probes

    def create(self, op: Op, key: Key, spec: Json) -> Live[Json]:
        """Have as many engines as wanted run, each waited for until it has generated a token.

        Replicas that run exactly so already are adopted and not touched. When one cannot start, it is again
        as it was before: with the adopted ones, or with nothing.
        """
        launch, count = Launch.from_spec(key, spec), replica_count(key, spec)
        for digest in launch.digests:
            self._store.path(digest)
        if self._supervisor.presence() is not Presence.UP:
            raise TransientError("the local target's process manager does not run", hint="Run `llmctl local start`.")
        existing = self._existing(key) or EndpointFile(key, spec)
        kept = self._adoptable(existing, launch, count)
        if len(kept) == count == len(existing.ports):
            live = self._read(existing)
            if live.healthy:
                return live if existing.spec == spec else self.rewrite(op, existing, spec, live)
        op.guard()
        try:
            return self._converge(op, launch, spec, existing, kept)
        except LeaseLost:
            raise  # whoever has the lease now may be at work on the same engine
        except BaseException:
            with suppress(ProviderError):
                self._undo(existing, kept)
            raise

    def rewrite(self, op: Op, existing: EndpointFile, spec: Json, live: Live[Json]) -> Live[Json]:
        """Take over operating fields; no process is touched."""
        op.guard()
        with self._lock.held(), explained(f"write endpoint {existing.key}"):
            EndpointFile(existing.key, spec, existing.ports).write(self._layout.endpoint_file(existing.key))
        return Live(live.key, spec, live.revision, live.healthy, live.detail, live.outputs)

    def remove(self, key: Key, patience_s: float) -> None:
        """Stop all replicas, which finish requests in flight for so long, and delete the files but for the logs."""
        presence = self._supervisor.presence()
        if presence is Presence.SILENT:
            raise self._supervisor.silent()
        if presence is Presence.UP:
            self._stop([m for m in self._supervisor.all().values() if key_of_program(m.name) == key], patience_s)
        if not self._layout.endpoints.is_dir():
            return
        with self._lock.held(), explained(f"delete endpoint {key}"):
            self._layout.endpoint_file(key).unlink(missing_ok=True)
            for path in self._layout.logs.glob(f"{endpoint_program(key)}*.loading"):
                path.unlink(missing_ok=True)
            self._supervisor.write_conf(wanted(self._layout))

    def remove_logs(self, key: Key) -> None:
        with explained(f"delete the logs of endpoint {key}"):
            for path in self._layout.logs.glob(f"{endpoint_program(key)}.*"):
                path.unlink(missing_ok=True)

    def _read(self, endpoint: EndpointFile) -> Live[Json]:
        return self._probes.read(endpoint, self._supervisor.all())

    def _existing(self, key: Key) -> EndpointFile | None:
        try:
            found = EndpointFile.read(self._layout.endpoint_file(key))
        except ValueError:
            return None  # damaged: written anew
        return found if found is not None and found.is_process else None

    def _adoptable(self, existing: EndpointFile, launch: Launch, count: int) -> dict[int, int]:
        """The replicas, up to ``count``, that run as wanted, with their ports."""
        if not existing.ports or Launch.from_spec(existing.key, existing.spec).identity != launch.identity:
            return {}
        verdicts = self._probes.verdicts(existing, self._supervisor.all())[: len(existing.ports)]
        return {n: v.port for n, v in enumerate(verdicts, 1) if n <= count and not v.trouble}

    def _converge(self, op: Op, launch: Launch, spec: Json, old: EndpointFile, kept: dict[int, int]) -> Live[Json]:
        key, count = launch.key, replica_count(launch.key, spec)
        missing = [replica for replica in range(1, count + 1) if replica not in kept]
        ports = {**dict(enumerate(old.ports[:count], 1)), **kept}
        for attempt in range(_PORT_ATTEMPTS):
            if attempt:
                op.guard()
            for replica in missing:
                self._supervisor.remove(endpoint_program(key, replica), _END_S)
                if attempt or replica not in ports or not is_free(ports[replica]):
                    ports[replica] = free_port()
            endpoint = EndpointFile(key, spec, tuple(ports[replica] for replica in range(1, count + 1)))
            starts = self._start(op, endpoint, missing)
            surplus = surplus_programs(endpoint, self._supervisor.all())
            self._stop(surplus, drain_time(op, spec))
            self._forget_logs(surplus)
            missing = [replica for replica, start in starts.items() if not self._has_port(op, launch, start)]
            if not missing:
                return self._read(endpoint)
        raise TransientError(f"endpoint {key}: every port that was free is taken again", hint="Try again.")

    def _start(self, op: Op, endpoint: EndpointFile, replicas: list[int]) -> dict[int, Start]:
        """Write the endpoint's file, then start these replicas of it all at once."""
        starts = {
            replica: Start(name, endpoint.ports[replica - 1], self._log_size(name))
            for replica in replicas
            for name in [endpoint.programs[replica - 1]]
        }
        for start in starts.values():
            op.progress(f"starting the engine on port {start.port}")
        with self._lock.held(), explained(f"write endpoint {endpoint.key}"):
            endpoint.write(self._layout.endpoint_file(endpoint.key))
            self._supervisor.write_conf(wanted(self._layout))
            for start in starts.values():
                self._supervisor.add(start.program)
        return starts

    def _has_port(self, op: Op, launch: Launch, start: Start) -> bool:
        """Wait until an engine is ready; False when somebody was faster to take its port."""
        try:
            self._wait(op, launch.key, start)
        except EngineDied as error:
            if error.engine_code == PORT_TAKEN:
                return False
            if error.engine_code == DAMAGED:  # taken away, so that the next plan sees it missing and stores it again
                for digest in launch.digests:
                    self._store.verified(digest)
            raise
        return True

    def _wait(self, op: Op, key: Key, start: Start) -> None:
        started, said, pid = time.monotonic(), 0.0, 0
        while True:
            managed = self._supervisor.one(start.program)
            if managed is None or managed.state in DEAD or (pid and managed.pid not in (0, pid)):
                raise self._died(key, start)
            pid = managed.pid or pid
            if str(key) in probe(start.port).models and self._generates(op, key, start.port):
                return
            waited = time.monotonic() - started
            if waited - said > _SAY_EVERY_S:
                said = waited
                op.progress(f"waiting for the engine, {waited:.0f} s")
            if time.monotonic() > op.deadline_s:
                raise TransientError(
                    f"endpoint {key} was not ready in the time allowed ({waited:.0f} s)",
                    detail=self._probes.log_tail(start.program, start.log_from),
                    hint="Allow it more with `timeouts: {ready: …}`, or look at the lines above for what it waits for.",
                )
            op.guard()
            time.sleep(_POLL_S)

    def _generates(self, op: Op, key: Key, port: int) -> bool:
        """Whether the engine answers as healthy and can generate a token."""
        try:
            if local_request(port, "GET", "/health", timeout_s=PROBE_S).status != 200:
                return False
            body = {"prompt": "Hello", "max_tokens": 1, "model": str(key)}
            left = max(PROBE_S, op.deadline_s - time.monotonic())
            reply = local_request(port, "POST", "/v1/completions", body, timeout_s=left)
            return reply.status == 200 and bool(reply.json()["choices"])
        except (NobodyThere, NoAnswer, ValueError, KeyError):
            return False

    def _undo(self, old: EndpointFile, kept: dict[int, int]) -> None:
        """Leave only the replicas that were adopted, and the file as it was; nothing when there were none."""
        if not kept:
            self.remove(old.key, 0)
            return
        adopted = {endpoint_program(old.key, replica) for replica in kept}
        managed = self._supervisor.all().values()
        self._stop([m for m in managed if key_of_program(m.name) == old.key and m.name not in adopted], 0)
        with self._lock.held(), explained(f"write endpoint {old.key}"):
            old.write(self._layout.endpoint_file(old.key))
            self._supervisor.write_conf(wanted(self._layout))

    def _stop(self, programs: list[Managed], patience_s: float) -> None:
        """Stop programs, all at once."""
        until = time.monotonic() + patience_s + _END_S
        for managed in programs:
            self._supervisor.stop(managed.name)
        for managed in programs:
            self._supervisor.remove(managed.name, until - time.monotonic())

    def _forget_logs(self, programs: list[Managed]) -> None:
        for managed in programs:
            for path in self._layout.logs.glob(f"{managed.name}.lo*"):
                path.unlink(missing_ok=True)

    def _died(self, key: Key, start: Start) -> EngineDied:
        detail = self._probes.log_tail(start.program, start.log_from)
        code, why = reason(detail)
        aborted = log_tail(loading_file(self._layout, start.program), lines=1)
        hint = "Run `llmctl apply` again: the artifact is stored anew." if code == DAMAGED else _HINT
        why = why or aborted or "it ended without saying why"
        return EngineDied(f"endpoint {key} cannot start: {why}", code, detail=detail, hint=hint)

    def _log_size(self, program: str) -> int:
        path = self._layout.log_file(program)
        return path.stat().st_size if path.exists() else 0


def drain_time(op: Op, spec: Json) -> float:
    """How long an engine that is to stop may go on, in seconds, within what the operation may take."""
    return min(drain_s(spec), max(0.0, op.deadline_s - time.monotonic()))


_HINT = "The lines above are the engine's own; `llmctl logs` has more."
