"""The process manager: supervisord, spoken to over its Unix socket, and what runs without it.

It outlives the command that started it. What really runs is told from its answer, from the process table
and from the processes' own command lines together; a file with a pid alone proves nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.digests import Json
from llmctl.core.errors import ProviderError, TransientError
from llmctl.core.files import write_atomic
from llmctl.providers.local import programs
from llmctl.providers.local.launch import ENGINE
from llmctl.providers.local.layout import Layout, check_owner, explained
from llmctl.providers.local.wire import NoAnswer, NobodyThere, unix_request

if TYPE_CHECKING:
    import psutil

_ANSWER_S = 3.0
_STOP_S = programs.GATEWAY_STOP_S + 10.0
_KILLED_S = 5.0  # how long a killed process may take to be gone
_POLL_S = 0.02
_REAP_S = 3.0
#: A SIGTERM that comes between supervisord's fork and its exec is lost, so it is sent again.
_TERM_AGAIN_S = 0.3
_MODULES = frozenset({"supervisor.supervisord", "llmctl.gateway", ENGINE})
# supervisor.xmlrpc.Faults
_SHUTDOWN_STATE, _BAD_NAME, _ALREADY_STARTED, _NOT_RUNNING, _ALREADY_ADDED, _STILL_RUNNING = 6, 10, 60, 70, 90, 91


class State(IntEnum):
    """supervisord's states of a process."""

    STOPPED = 0
    STARTING = 10
    RUNNING = 20
    BACKOFF = 30
    STOPPING = 40
    EXITED = 100
    FATAL = 200
    UNKNOWN = 1000


_STILL = (State.STOPPED, State.EXITED, State.FATAL, State.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Managed:
    """One program as supervisord sees it. ``pid`` 0 when none runs; ``started`` in seconds since the epoch."""

    name: str
    state: State
    pid: int
    started: float
    exit_code: int
    trouble: str


class Presence(Enum):
    """Whether supervisord is there. SILENT: there, and does not answer; never taken for down."""

    UP = "up"
    DOWN = "down"
    SILENT = "silent"


class Supervisor:
    """The supervisord of one state folder. Making one of these starts nothing."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def presence(self) -> Presence:
        """Whether it is up. Raises ``ProviderError`` when its socket lies in somebody else's folder."""
        runtime, pid = self._layout.runtime, self.pid()
        if pid and is_held(pid):
            return Presence.SILENT
        try:
            if runtime.is_dir():
                check_owner(runtime)
            self._call("supervisor.getState")
        except NobodyThere:
            return Presence.SILENT if pid else Presence.DOWN
        except NoAnswer:
            return Presence.SILENT
        return Presence.UP

    def pid(self) -> int:
        """The pid of the supervisord that runs for this state folder, 0 when there is none."""
        with suppress(FileNotFoundError, NotADirectoryError, ValueError):
            process = _process(int(self._layout.pidfile.read_text()))
            if process is not None and str(self._layout.conf) in _command_line(process):
                return process.pid
        return 0

    def silent(self) -> TransientError:
        """The error for a supervisord that is there and does not answer."""
        return TransientError(
            "the process manager (supervisord) runs but does not answer",
            detail=f"pid {self.pid() or 'unknown'}",
            hint="Run `llmctl local stop`, then `llmctl local start`.",
        )

    def all(self) -> dict[str, Managed]:
        """All programs by name. Raises ``TransientError`` when there is no answer."""
        return {info["name"]: _managed(info) for info in self._ask("supervisor.getAllProcessInfo")}

    def one(self, name: str) -> Managed | None:
        """One program, or None when supervisord does not know it."""
        import xmlrpc.client

        try:
            return _managed(self._ask("supervisor.getProcessInfo", name))
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == _BAD_NAME:
                return None
            raise ProviderError(f"the process manager refuses to tell of {name}: {fault.faultString}") from None

    def write_conf(self, wanted: Iterable[programs.Program]) -> None:
        """Render the configuration; it takes effect with ``add`` or at the next launch."""
        text = programs.render(self._layout, wanted).encode()
        with explained("write the process manager's configuration"):
            if not self._layout.conf.exists() or self._layout.conf.read_bytes() != text:
                write_atomic(self._layout.conf, text)

    def add(self, name: str) -> None:
        """Take a program up from the configuration and start it; fine when it runs already."""
        self._effect("supervisor.reloadConfig")
        self._effect("supervisor.addProcessGroup", name, unless=(_ALREADY_ADDED,))
        self._effect("supervisor.startProcess", name, False, unless=(_ALREADY_STARTED,))

    def stop(self, name: str) -> None:
        """Have a program end, without waiting for it."""
        self._effect("supervisor.stopProcess", name, False, unless=(_NOT_RUNNING, _BAD_NAME))

    def remove(self, name: str, patience_s: float = _STOP_S) -> None:
        """Stop a program and forget it; done when it is gone already. After ``patience_s`` it is killed."""
        until, again = time.monotonic() + patience_s, 0.0
        while (found := self.one(name)) is not None:
            if found.state in _STILL:
                self._effect("supervisor.removeProcessGroup", name, unless=(_BAD_NAME, _STILL_RUNNING))
                continue
            late = time.monotonic() - until
            if late > _KILLED_S:
                hint = f"End it with `kill -9 {found.pid}`."
                raise TransientError(f"{name} does not stop (pid {found.pid})", hint=hint)
            if found.state is not State.STOPPING:
                self._effect("supervisor.stopProcess", name, False, unless=(_NOT_RUNNING,))
                again = time.monotonic() + _TERM_AGAIN_S
            elif time.monotonic() > again:
                self._effect("supervisor.signalProcess", name, "TERM", unless=(_NOT_RUNNING, _BAD_NAME))
                again = time.monotonic() + _TERM_AGAIN_S
            if found.pid and (late > 0 or is_held(found.pid)):
                _kill(found.pid)  # a process that is held by SIGSTOP sees no SIGTERM
            time.sleep(_POLL_S)

    def launch(self) -> None:
        """Start supervisord from the written configuration and wait until it answers."""
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._layout.conf)]
        with explained("start the process manager"), tempfile.TemporaryFile() as output:
            started = subprocess.run(
                command,
                cwd=self._layout.state,
                env=programs.environment(self._layout),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                check=False,
            )
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
        if started.returncode:
            raise ProviderError("the process manager (supervisord) cannot start", detail=said)
        if not _within(10.0, lambda: self.presence() is Presence.UP):
            raise TransientError("the process manager (supervisord) started but does not answer", detail=said)

    def shutdown(self) -> None:
        """Stop supervisord with all its programs, then whatever else still runs for this state folder."""
        pid = self.pid()
        with suppress(ProviderError):
            if self.presence() is Presence.UP:
                names = set(self.all())
                self._halt(names & {programs.GATEWAY})  # first, so that requests in flight still find their engine
                self._halt(names)
                self._effect("supervisor.shutdown")
                _within(_STOP_S, lambda: not _process(pid))
        self.reap()

    def _halt(self, names: set[str]) -> None:
        """Stop programs all at once. supervisord's own shutdown would take a second between two."""
        for name in names:
            self._effect("supervisor.stopProcess", name, False, unless=(_NOT_RUNNING,))

        def stands_still() -> bool:
            found = [managed for managed in self.all().values() if managed.name in names]
            for managed in found:
                if managed.pid and is_held(managed.pid):
                    _kill(managed.pid)
            return all(managed.state in _STILL for managed in found)

        _within(_STOP_S, stands_still)

    def reap(self) -> None:
        """End every process of this state folder, the manager first so that it restarts nothing."""
        import psutil

        managers = self._left_behind()
        others: list[psutil.Process] = []
        for process in psutil.process_iter():
            words = _command_line(process)
            if self._is_ours(words):
                (managers if "supervisor.supervisord" in words else others).append(process)
        for manager in managers:
            with suppress(psutil.Error):
                others += [child for child in manager.children() if child not in others]
                manager.kill()  # its children get SIGTERM for that
        for process in others:
            with suppress(psutil.Error):
                process.kill() if process.status() == psutil.STATUS_STOPPED else process.terminate()
        everything = [*managers, *others]
        if not _within(_REAP_S, lambda: not any(map(_lives, everything))):
            for process in everything:
                with suppress(psutil.Error):
                    process.kill()
            _within(_REAP_S, lambda: not any(map(_lives, everything)))
        self._layout.pidfile.unlink(missing_ok=True)
        for socket in (self._layout.supervisor_socket, self._layout.admin_socket):
            socket.unlink(missing_ok=True)

    def _left_behind(self) -> list[psutil.Process]:
        """The manager that still runs for the folder from which this one was moved here."""
        with suppress(FileNotFoundError, NotADirectoryError, ValueError):
            process = _process(int(self._layout.pidfile.read_text()))
            words = _command_line(process) if process else []
            if process and "supervisor.supervisord" in words and not Path(words[-1]).exists():
                return [process]
        return []

    def _is_ours(self, words: list[str]) -> bool:
        """By the whole command line: the folder is in it, and no other program has these modules there."""
        inside = str(self._layout.state) + "/"
        return not _MODULES.isdisjoint(words) and any(word.startswith(inside) for word in words)

    def _call(self, method: str, *arguments: Json) -> Json:
        import xmlrpc.client

        body = xmlrpc.client.dumps(arguments, method).encode()
        reply = unix_request(
            self._layout.supervisor_socket, "POST", "/RPC2", body, timeout_s=_ANSWER_S, content="text/xml"
        )
        if reply.status != 200:
            raise NoAnswer(f"HTTP {reply.status}")
        try:
            return xmlrpc.client.loads(reply.body.decode())[0][0]
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == _SHUTDOWN_STATE:
                raise NoAnswer("it is shutting down") from None
            raise

    def _ask(self, method: str, *arguments: Json) -> Json:
        try:
            return self._call(method, *arguments)
        except (NoAnswer, NobodyThere) as error:
            raise TransientError(
                "the process manager (supervisord) does not answer",
                detail=str(error),
                hint="Run `llmctl local stop` and `llmctl local start`.",
            ) from None

    def _effect(self, method: str, *arguments: Json, unless: tuple[int, ...] = ()) -> None:
        import xmlrpc.client

        try:
            self._ask(method, *arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode not in unless:
                raise ProviderError(f"the process manager refuses {method}: {fault.faultString}") from None


def _managed(info: dict[str, Json]) -> Managed:
    known = info["state"] in State._value2member_map_
    return Managed(
        name=info["name"],
        state=State(info["state"]) if known else State.UNKNOWN,
        pid=info["pid"],
        started=float(info["start"]),
        exit_code=info["exitstatus"],
        trouble=info["spawnerr"],
    )


def _process(pid: int) -> psutil.Process | None:
    """A process that is alive; one that is dead and only not reaped yet is not."""
    import psutil

    with suppress(psutil.Error, ValueError):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _lives(process: psutil.Process) -> bool:
    """Whether that very process lives; one that is dead and not reaped, as in a container without init, does not."""
    import psutil

    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _command_line(process: psutil.Process) -> list[str]:
    import psutil

    try:
        return process.cmdline()
    except psutil.Error:
        return []


def command_line(pid: int) -> list[str] | None:
    """The command line of a live process; None when there is no such process."""
    process = _process(pid)
    return None if process is None else _command_line(process)


def started_at(pid: int) -> float | None:
    """When a live process started, in seconds since the epoch."""
    import psutil

    process = _process(pid)
    with suppress(psutil.Error):
        return process.create_time() if process else None
    return None


def is_held(pid: int) -> bool:
    """Whether a process is stopped by a signal (SIGSTOP, a debugger) and so answers nothing."""
    import psutil

    with suppress(psutil.Error):
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    return False


def _kill(pid: int) -> None:
    import psutil

    with suppress(psutil.Error):
        psutil.Process(pid).kill()


def _within(seconds: float, true: Callable[[], bool]) -> bool:
    """Poll until ``true()`` holds; False when it does not in time."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_S)
    return True


def log_tail(path: Path, start: int = 0, lines: int = 20) -> str:
    """The last lines of a log file, of what was written after byte ``start``."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(start if start <= size else 0, size - 16_384))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
