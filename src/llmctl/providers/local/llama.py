"""Endpoints with ``engine: llama.cpp``: one child process of the process manager per endpoint revision."""

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
    ENGINE,
    FAILED,
    PORT_TAKEN,
    REASON,
    EndpointFile,
    Launch,
    endpoint_program,
    loading_file,
)
from llmctl.providers.local.layout import Layout, explained
from llmctl.providers.local.lock import StateLock
from llmctl.providers.local.programs import wanted
from llmctl.providers.local.store import FileStore
from llmctl.providers.local.supervisor import Managed, Presence, State, Supervisor, command_line, is_held, log_tail
from llmctl.providers.local.wire import HOST, NoAnswer, NobodyThere, free_port, is_free, local_request

_PROBE_S = 1.5
_GRACE_S = 2.0  # how long a read waits for a process that is just starting
_POLL_S = 0.03
_SAY_EVERY_S = 2.0
_PORT_ATTEMPTS = 5
_DEAD = (State.BACKOFF, State.FATAL, State.EXITED, State.STOPPED)


class EngineDied(ProviderError):
    """The engine ended while it was waited for; ``engine_code`` as ``launch`` names them."""

    def __init__(self, summary: str, code: int, *, detail: str, hint: str) -> None:
        super().__init__(summary, detail=detail, hint=hint)
        self.engine_code = code


@dataclass(frozen=True, slots=True)
class Probe:
    """What the process on a port says it serves; ``trouble`` when it does not say."""

    models: tuple[str, ...] = ()
    trouble: str = ""


def probe(port: int, timeout_s: float = _PROBE_S) -> Probe:
    """Ask ``GET /v1/models`` on this machine."""
    try:
        reply = local_request(port, "GET", "/v1/models", timeout_s=timeout_s)
        if reply.status != 200:
            return Probe(trouble=f"it answers HTTP {reply.status}")
        return Probe(tuple(str(model["id"]) for model in reply.json()["data"]))
    except NobodyThere:
        return Probe(trouble=f"nothing listens on port {port}")
    except NoAnswer as error:
        return Probe(trouble=f"it does not answer: {error}")
    except (ValueError, KeyError, TypeError):
        return Probe(trouble="what it answers is not of an OpenAI-compatible server")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with an engine ("" when nothing is), and the revision that the process itself reports."""

    trouble: str
    revision: str = ""
    may_pass: bool = False  # of itself, while the process is starting


class LlamaEndpoints:
    """Starts, reads back and stops engine processes."""

    def __init__(self, layout: Layout, lock: StateLock, store: FileStore, supervisor: Supervisor) -> None:
        self._layout = layout
        self._lock = lock
        self._store = store
        self._supervisor = supervisor

    def read(self, endpoint: EndpointFile, managed: Managed | None) -> Live[Json]:
        """What really runs for one endpoint file; a process that is just starting is waited for shortly."""
        until = time.monotonic() + _GRACE_S
        while True:
            verdict = self._judge(endpoint, managed)
            starting = managed is not None and managed.state is State.STARTING
            if not (verdict.trouble and verdict.may_pass and starting) or time.monotonic() > until:
                return _live(endpoint, managed.pid if managed else 0, verdict)
            time.sleep(_POLL_S)
            managed = self._supervisor.one(endpoint_program(endpoint.key))

    def _judge(self, endpoint: EndpointFile, managed: Managed | None) -> Verdict:
        if managed is None:
            return Verdict("it was not started")
        if managed.state in _DEAD or not managed.pid:
            why = self._last_words(endpoint.key) or managed.trouble
            return Verdict(f"the engine is {managed.state.name.lower()}" + (f": {why}" if why else ""))
        words = command_line(managed.pid)
        if not words or ENGINE not in words:
            return Verdict("the engine is just ending or starting", may_pass=True)
        if is_held(managed.pid):
            return Verdict("the process is stopped by a signal and answers nothing")
        if words[-1] != Launch.from_spec(endpoint.key, endpoint.spec).identity:
            return Verdict("it was started from another specification")
        answer = probe(endpoint.port)
        if answer.trouble:
            return Verdict(answer.trouble, may_pass=True)
        served = [Key.parse(model) for model in answer.models]
        revision = next((key.revision for key in served if key.name == endpoint.key.name), "")
        return Verdict("" if endpoint.key in served else f"it serves {', '.join(answer.models)}", revision)

    def create(self, op: Op, key: Key, spec: Json) -> Live[Json]:
        """Start the engine and wait until it has generated a token; adopt one that runs exactly so."""
        launch = Launch.from_spec(key, spec)
        for digest in launch.digests:
            self._store.path(digest)
        if self._supervisor.presence() is not Presence.UP:
            raise TransientError("the local target's process manager does not run", hint="Run `llmctl local start`.")
        existing = self._existing(key)
        if existing is not None and existing.is_process and self._same(existing, launch):
            live = self.read(existing, self._supervisor.one(endpoint_program(key)))
            if live.healthy:
                return live if existing.spec == spec else self.rewrite(op, existing, spec, live)
        op.guard()
        try:
            return self._start(op, launch, spec, existing.port if existing else 0)
        except LeaseLost:
            raise  # whoever has the lease now may be at work on the same engine
        except BaseException:
            with suppress(ProviderError):
                self.remove(key)
            raise

    def rewrite(self, op: Op, existing: EndpointFile, spec: Json, live: Live[Json]) -> Live[Json]:
        """Take over operating fields; the process is not touched."""
        op.guard()
        with self._lock.held(), explained(f"write endpoint {existing.key}"):
            EndpointFile(existing.key, spec, existing.port).write(self._layout.endpoint_file(existing.key))
        return Live(live.key, spec, live.revision, live.healthy, live.detail, live.outputs)

    def _same(self, existing: EndpointFile, launch: Launch) -> bool:
        return Launch.from_spec(existing.key, existing.spec).identity == launch.identity

    def _existing(self, key: Key) -> EndpointFile | None:
        try:
            return EndpointFile.read(self._layout.endpoint_file(key))
        except ValueError:
            return None  # damaged: written anew

    def _start(self, op: Op, launch: Launch, spec: Json, kept_port: int) -> Live[Json]:
        program = endpoint_program(launch.key)
        for attempt in range(_PORT_ATTEMPTS):
            if attempt:
                op.guard()
            self._supervisor.remove(program)
            port = kept_port if not attempt and kept_port and is_free(kept_port) else free_port()
            endpoint = EndpointFile(launch.key, spec, port)
            log_start = self._log_size(launch.key)
            op.progress(f"starting the engine on port {port}")
            with self._lock.held(), explained(f"write endpoint {launch.key}"):
                endpoint.write(self._layout.endpoint_file(launch.key))
                self._supervisor.write_conf(wanted(self._layout))
                self._supervisor.add(program)
            try:
                self._wait(op, endpoint, log_start)
            except EngineDied as error:
                self._drop_damaged(error, launch)
                if error.engine_code != PORT_TAKEN or attempt == _PORT_ATTEMPTS - 1:
                    raise
                continue
            return self.read(endpoint, self._supervisor.one(program))
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, op: Op, endpoint: EndpointFile, log_start: int) -> None:
        program, started, said, pid = endpoint_program(endpoint.key), time.monotonic(), 0.0, 0
        while True:
            managed = self._supervisor.one(program)
            if managed is None or managed.state in _DEAD or (pid and managed.pid not in (0, pid)):
                raise self._died(endpoint.key, log_start)
            pid = managed.pid or pid
            if str(endpoint.key) in probe(endpoint.port).models and self._generates(op, endpoint):
                return
            waited = time.monotonic() - started
            if waited - said > _SAY_EVERY_S:
                said = waited
                op.progress(f"waiting for the engine, {waited:.0f} s")
            if time.monotonic() > op.deadline_s:
                raise TransientError(
                    f"endpoint {endpoint.key} was not ready in the time allowed ({waited:.0f} s)",
                    detail=self._tail(endpoint.key, log_start),
                    hint="Allow it more time, or look at the lines above for what it waits for.",
                )
            op.guard()
            time.sleep(_POLL_S)

    def _generates(self, op: Op, endpoint: EndpointFile) -> bool:
        """Whether the engine answers as healthy and can generate a token."""
        try:
            if local_request(endpoint.port, "GET", "/health", timeout_s=_PROBE_S).status != 200:
                return False
            body = {"prompt": "Hello", "max_tokens": 1, "model": str(endpoint.key)}
            left = max(1.0, op.deadline_s - time.monotonic())
            reply = local_request(endpoint.port, "POST", "/v1/completions", body, timeout_s=left)
            return reply.status == 200 and bool(reply.json()["choices"])
        except (NobodyThere, NoAnswer, ValueError, KeyError):
            return False

    def remove(self, key: Key) -> None:
        """Stop the process and delete its files but for the log."""
        presence = self._supervisor.presence()
        if presence is Presence.SILENT:
            raise self._supervisor.silent()
        if presence is Presence.UP:
            self._supervisor.remove(endpoint_program(key))
        if not self._layout.endpoints.is_dir():
            return
        with self._lock.held(), explained(f"delete endpoint {key}"):
            self._layout.endpoint_file(key).unlink(missing_ok=True)
            loading_file(self._layout, key).unlink(missing_ok=True)
            self._supervisor.write_conf(wanted(self._layout))

    def remove_logs(self, key: Key) -> None:
        with explained(f"delete the logs of endpoint {key}"):
            for path in self._layout.logs.glob(f"{endpoint_program(key)}.log*"):
                path.unlink(missing_ok=True)

    def _died(self, key: Key, log_start: int) -> EngineDied:
        detail = self._tail(key, log_start)
        code, why = _reason(detail)
        aborted = log_tail(loading_file(self._layout, key), lines=1)
        hint = "Run `llmctl apply` again: the artifact is stored anew." if code == DAMAGED else _HINT
        why = why or aborted or "it ended without saying why"
        return EngineDied(f"endpoint {key} cannot start: {why}", code, detail=detail, hint=hint)

    def _tail(self, key: Key, log_start: int = 0) -> str:
        """The last lines of the engine's log, and what it left when llama.cpp aborted it."""
        log = log_tail(self._layout.log_file(endpoint_program(key)), log_start)
        return "\n".join(filter(None, (log, log_tail(loading_file(self._layout, key)))))

    def _last_words(self, key: Key) -> str:
        return _reason(self._tail(key))[1]

    def _log_size(self, key: Key) -> int:
        path = self._layout.log_file(endpoint_program(key))
        return path.stat().st_size if path.exists() else 0

    def _drop_damaged(self, error: EngineDied, launch: Launch) -> None:
        """Take damaged content away, so that the next plan sees it missing and stores it again."""
        if error.engine_code == DAMAGED:
            for digest in launch.digests:
                self._store.verified(digest)


_HINT = "The lines above are the engine's own; `llmctl logs` has more."


def _reason(log: str) -> tuple[int, str]:
    """The engine's own last word about why it ended, number and text; what it said before it served is past."""
    found = list(REASON.finditer(log.rpartition("\nserves ")[2]))
    return (int(found[-1]["code"]), found[-1]["text"]) if found else (FAILED, "")


def _live(endpoint: EndpointFile, pid: int, verdict: Verdict) -> Live[Json]:
    address = f"http://{HOST}:{endpoint.port}/v1"
    outputs = {"base_url": address, "model": str(endpoint.key), "secret": "", "pid": pid}
    place = f"pid {pid}, port {endpoint.port}" if pid else ""
    detail = ": ".join(filter(None, (place, verdict.trouble)))
    return Live(endpoint.key, endpoint.spec, verdict.revision, not verdict.trouble, detail, outputs)
