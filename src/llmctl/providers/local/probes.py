"""What an engine process really does, found out from outside: process table, process manager, and its own answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from llmctl.core.digests import Json
from llmctl.core.resources import Key, Live
from llmctl.providers.local.launch import (
    ENGINE,
    FAILED,
    REASON,
    EndpointFile,
    Launch,
    key_of_program,
    loading_file,
)
from llmctl.providers.local.layout import Layout
from llmctl.providers.local.supervisor import Managed, State, Supervisor, command_line, is_held, log_tail
from llmctl.providers.local.wire import HOST, NoAnswer, NobodyThere, local_request

PROBE_S = 1.5
DEAD = (State.BACKOFF, State.FATAL, State.EXITED, State.STOPPED)
_GRACE_S = 2.0  # how long a read waits for a process that is just starting
_POLL_S = 0.03


@dataclass(frozen=True, slots=True)
class Probe:
    """What the process on a port says it serves; ``trouble`` when it does not say."""

    models: tuple[str, ...] = ()
    trouble: str = ""


def probe(port: int, timeout_s: float = PROBE_S) -> Probe:
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
    """What is wrong with one replica ("" when nothing is), and the revision that the process itself reports."""

    program: str
    pid: int
    port: int  # 0 of a process that the endpoint's file does not know
    trouble: str
    revision: str = ""
    may_pass: bool = False  # of itself, while the process is starting

    def __str__(self) -> str:
        place = f"pid {self.pid}, port {self.port}" if self.pid and self.port else ""
        return ": ".join(filter(None, (place, self.trouble)))


class Probes:
    """Judges the replicas of endpoints."""

    def __init__(self, layout: Layout, supervisor: Supervisor) -> None:
        self._layout = layout
        self._supervisor = supervisor

    def verdicts(self, endpoint: EndpointFile, managed: Mapping[str, Managed]) -> list[Verdict]:
        """One a replica, then one a process that is too many. What is just starting is waited for shortly.

        What runs and does not answer is asked once more: whoever is told of trouble starts it anew, and an answer
        that was lost is no reason to end an engine that serves.
        """
        until, is_first = time.monotonic() + _GRACE_S, True
        while True:
            found = [self._judge(endpoint, replica, managed) for replica in range(1, len(endpoint.ports) + 1)]
            states = [managed[v.program].state for v in found if v.may_pass]
            wait = State.STARTING in states or (State.RUNNING in states and is_first)
            is_first = False
            if not wait or time.monotonic() > until:
                surplus = [m for m in surplus_programs(endpoint, managed) if m.pid]
                return [*found, *(Verdict(m.name, m.pid, 0, f"pid {m.pid} is one too many") for m in surplus)]
            time.sleep(_POLL_S)
            managed = self._supervisor.all()

    def read(self, endpoint: EndpointFile, managed: Mapping[str, Managed]) -> Live[Json]:
        """What really runs for one endpoint file."""
        return _live(endpoint, self.verdicts(endpoint, managed))

    def _judge(self, endpoint: EndpointFile, replica: int, managed: Mapping[str, Managed]) -> Verdict:
        name, port = endpoint.programs[replica - 1], endpoint.ports[replica - 1]
        program = managed.get(name)
        if program is None:
            return Verdict(name, 0, port, "it was not started")

        def verdict(trouble: str, revision: str = "", *, may_pass: bool = False) -> Verdict:
            return Verdict(name, program.pid, port, trouble, revision, may_pass)

        if program.state in DEAD or not program.pid:
            why = self.last_words(name) or program.trouble
            return verdict(f"the engine is {program.state.name.lower()}" + (f": {why}" if why else ""))
        words = command_line(program.pid)
        if not words or ENGINE not in words:
            return verdict("the engine is just ending or starting", may_pass=True)
        if is_held(program.pid):
            return verdict("the process is stopped by a signal and answers nothing")
        if words[-2:] != [str(replica), Launch.from_spec(endpoint.key, endpoint.spec).identity]:
            return verdict("it was started from another specification")
        answer = probe(port)
        if answer.trouble:
            return verdict(answer.trouble, may_pass=True)
        served = [Key.parse(model) for model in answer.models]
        revision = next((key.revision for key in served if key.name == endpoint.key.name), "")
        return verdict("" if endpoint.key in served else f"it serves {', '.join(answer.models)}", revision)

    def last_words(self, program: str) -> str:
        """Why an engine ended, as it said itself; "" when it did not."""
        return reason(self.log_tail(program))[1]

    def log_tail(self, program: str, start: int = 0) -> str:
        """The last lines of an engine's log, and what it left when llama.cpp aborted it."""
        log = log_tail(self._layout.log_file(program), start)
        return "\n".join(filter(None, (log, log_tail(loading_file(self._layout, program)))))


def surplus_programs(endpoint: EndpointFile, managed: Mapping[str, Managed]) -> list[Managed]:
    """What the process manager knows as a replica of an endpoint and its file does not."""
    return [m for m in managed.values() if key_of_program(m.name) == endpoint.key and m.name not in endpoint.programs]


def reason(log: str) -> tuple[int, str]:
    """The engine's own last word about why it ended, number and text; what it said before it served is past."""
    found = list(REASON.finditer(log.rpartition("\nserves ")[2]))
    return (int(found[-1]["code"]), found[-1]["text"]) if found else (FAILED, "")


def _live(endpoint: EndpointFile, verdicts: list[Verdict]) -> Live[Json]:
    addresses = [f"http://{HOST}:{port}/v1" for port in endpoint.ports]
    running = sum(not verdict.trouble or not verdict.port for verdict in verdicts)
    outputs = {
        "base_url": addresses[0] if addresses else "",
        "base_urls": addresses,
        "model": str(endpoint.key),
        "secret": "",
        "replicas": running,
        "pid": verdicts[0].pid if verdicts else 0,
        "pids": [verdict.pid for verdict in verdicts],
    }
    healthy = bool(verdicts) and not any(verdict.trouble for verdict in verdicts)
    revisions = [verdict.revision for verdict in verdicts if verdict.revision]
    revision = next((r for r in revisions if r != endpoint.key.revision), revisions[0] if revisions else "")
    return Live(endpoint.key, endpoint.spec, revision, healthy, _detail(endpoint, verdicts, running), outputs)


def _detail(endpoint: EndpointFile, verdicts: list[Verdict], running: int) -> str:
    if len(verdicts) == len(endpoint.ports) == 1:
        return str(verdicts[0])
    wanted = len(endpoint.ports)
    lines = [f"{running} of {wanted} replicas run" if running != wanted else f"{wanted} replicas"]
    for replica, verdict in enumerate(verdicts, 1):
        if verdict.trouble:
            lines.append(f"replica {replica}: {verdict}" if verdict.port else verdict.trouble)
    return "; ".join(lines)
