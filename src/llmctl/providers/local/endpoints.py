"""The endpoint provider of the local target: hands each endpoint to the engine it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.errors import Conflict, LlmctlError, ProviderError
from llmctl.core.plugins import Declared
from llmctl.core.protocols import Op
from llmctl.core.resources import ALL, Key, Live, Reading
from llmctl.providers.local.external import ExternalEndpoints
from llmctl.providers.local.launch import EndpointFile, Launch, endpoint_files, key_of_program, replica_count
from llmctl.providers.local.layout import Layout, explained
from llmctl.providers.local.llama import LlamaEndpoints, drain_time
from llmctl.providers.local.probes import Probes, Verdict
from llmctl.providers.local.supervisor import Managed, Presence, Supervisor

_READERS = 16


class EndpointProvider:
    """``core.protocols.Provider`` for endpoints, ``HasLogs`` and ``Imports``. The state of an endpoint is its spec."""

    def __init__(
        self,
        layout: Layout,
        supervisor: Supervisor,
        probes: Probes,
        llama: LlamaEndpoints,
        external: ExternalEndpoints,
    ) -> None:
        self._layout = layout
        self._supervisor = supervisor
        self._probes = probes
        self._llama = llama
        self._external = external

    def read_all(self) -> Reading[Json]:
        """Every endpoint revision. With the process manager known to be down no engine is live."""
        if self._layout.is_copy:
            return Reading()
        try:
            return self._read_all()
        except LlmctlError as error:
            return Reading(unreadable={ALL: Diagnostic(error.summary, detail=error.detail, hint=error.hint)})

    def ask_external(self) -> Callable[[], Mapping[Key, str]]:
        """Begin to ask the hosted APIs, which ``read_all`` leaves alone; see ``ExternalEndpoints.ask``."""
        endpoints: list[EndpointFile] = []
        with suppress(OSError):  # of files that cannot be read, the reading tells
            endpoints = [] if self._layout.is_copy else endpoint_files(self._layout)[0]
        return self._external.ask(endpoint for endpoint in endpoints if not endpoint.is_process)

    def _read_all(self) -> Reading[Json]:
        with explained("read the endpoints"):
            endpoints, damaged = endpoint_files(self._layout)
        if not self._layout.state.is_dir():
            return Reading()
        presence = self._supervisor.presence()
        if presence is Presence.SILENT:
            raise self._supervisor.silent()
        managed = self._supervisor.all() if presence is Presence.UP else {}
        if presence is Presence.DOWN:
            endpoints = [endpoint for endpoint in endpoints if not endpoint.is_process]
        found: dict[Key, Live[Json]] = {}
        unreadable = {key: Diagnostic(f"endpoint {key} cannot be read", detail=why) for key, why in damaged.items()}
        with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="probe") as pool:
            for endpoint, answer in zip(endpoints, pool.map(lambda e: self._read(e, managed), endpoints), strict=True):
                if isinstance(answer, Diagnostic):
                    unreadable[endpoint.key] = answer
                else:
                    found[endpoint.key] = answer
        return Reading({**self._forgotten(managed, {*found, *unreadable}), **found}, unreadable)

    def _read(self, endpoint: EndpointFile, managed: Mapping[str, Managed]) -> Live[Json] | Diagnostic:
        try:
            if endpoint.is_process:
                return self._probes.read(endpoint, managed)
            return self._external.read(endpoint)
        except LlmctlError as error:
            return Diagnostic(error.summary, detail=error.detail, hint=error.hint)

    def _forgotten(self, managed: Mapping[str, Managed], known: set[Key]) -> dict[Key, Live[Json]]:
        """Processes whose file is gone: they run, so they are found, and nothing proves what they serve."""
        pids: dict[Key, list[int]] = {}
        for program in managed.values():
            key = key_of_program(program.name)
            if key is not None and key not in known:
                pids.setdefault(key, []).append(program.pid)
        detail = "pid {}: its file in .llmctl is gone"
        return {
            key: Live(key, {}, "", healthy=False, detail=detail.format(", ".join(map(str, found))))
            for key, found in pids.items()
        }

    def read_spec(self, key: Key) -> Declared:
        """``core.plugins.Imports``: the spec of an endpoint's file, from which its processes were started."""
        with explained("read the endpoints"):
            try:
                endpoint = EndpointFile.read(self._layout.endpoint_file(key))
            except ValueError as error:
                raise ProviderError(f"endpoint {key} cannot be read", detail=str(error)) from None
        if endpoint is None:
            raise ProviderError(f"nothing says what endpoint {key} was started from: its file in .llmctl is gone")
        return Declared(endpoint.spec, (Address("model", endpoint.spec["model"]),))

    def verdicts(self, managed: Mapping[str, Managed]) -> dict[str, Verdict]:
        """What is to be said of each engine process, by the name of its program."""
        endpoints = [endpoint for endpoint in endpoint_files(self._layout)[0] if endpoint.is_process]
        with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="probe") as pool:
            found = pool.map(lambda endpoint: self._probes.verdicts(endpoint, managed), endpoints)
            return {verdict.program: verdict for verdicts in found for verdict in verdicts}

    def create(self, op: Op, key: Key, want: Json) -> Live[Json]:
        with explained(f"create endpoint {key}"):
            if _engine(key, want) == "llama.cpp":
                return self._llama.create(op, key, want)
            return self._external.create(op, key, want)

    def update(self, op: Op, key: Key, was: Live[Json], want: Json) -> Live[Json]:
        """Operating fields in place, replicas come and go one by one; what changes the process makes a new one."""
        op.guard()
        existing, now = self._unmoved(key, was)
        if existing is None or now is None:
            raise Conflict(f"endpoint {key} is gone", hint="Plan again.")
        if _engine(key, want) != "llama.cpp" or not existing.is_process:
            return self.create(op, key, want)
        same = Launch.from_spec(key, want).identity == Launch.from_spec(key, existing.spec).identity
        if same and now.healthy and replica_count(key, want) == len(existing.ports):
            return self._llama.rewrite(op, existing, want, now)
        return self.create(op, key, want)

    def delete(self, op: Op, key: Key, was: Live[Json]) -> None:
        op.guard()
        existing, _ = self._unmoved(key, was)
        with explained(f"delete endpoint {key}"):
            if existing is not None and not existing.is_process:
                self._external.remove(key)
            else:
                self._llama.remove(key, drain_time(op, was.state))
                self._llama.remove_logs(key)

    def log_paths(self, name: str) -> Mapping[Key, Path]:
        """The log of every revision of an endpoint that has one, also of one that failed to start.

        Of a revision with several replicas each has its own: the second's key ends in ``.2``.
        """
        logs = self._layout.logs.glob(f"endpoint.{name}@*.log") if self._layout.logs.is_dir() else ()
        return {Key.parse(path.name.removeprefix("endpoint.").removesuffix(".log")): path for path in sorted(logs)}

    def _unmoved(self, key: Key, was: Live[Json]) -> tuple[EndpointFile | None, Live[Json] | None]:
        """What is there now; raises ``Conflict`` when that is no longer ``was``."""
        try:
            existing = EndpointFile.read(self._layout.endpoint_file(key))
        except ValueError:
            existing = None
        if existing is None:
            return None, None
        if existing.is_process:
            up = self._supervisor.presence() is Presence.UP
            now = self._probes.read(existing, self._supervisor.all() if up else {})
        else:
            now = self._external.read(existing)
        moved = was.revision and now.revision and was.revision != now.revision
        if existing.spec != was.state or moved:
            raise Conflict(f"endpoint {key} is no longer what was read", detail=now.detail, hint="Plan again.")
        return existing, now


def _engine(key: Key, spec: Json) -> str:
    name = str(spec.get("engine"))
    if name not in ("llama.cpp", "external"):
        raise ProviderError(
            f"endpoint {key.name}: the local target has no engine {name}",
            hint="Use llama.cpp or external, or override it for this environment.",
        )
    return name
