"""Use cases for the processes of the local target: start, stop, logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Event
from time import monotonic

from llmctl import __version__
from llmctl.app.workspace import Workspace
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.errors import InvalidInput
from llmctl.core.protocols import GatewayReading, Op
from llmctl.record import Lock

_POLL_S = 0.2


def start(workspace: Workspace, progress: Callable[[str], None]) -> None:
    """Start what an apply left here, for example after a reboot. Nothing is recorded: nothing changes."""
    _applied(workspace)
    with Lock(workspace.repository, workspace.environment.name).acquire("llmctl local start") as held:
        workspace.target.start(_op(workspace, progress, held.check))


def stop(workspace: Workspace, progress: Callable[[str], None]) -> None:
    """Stop all processes and keep all files; ``start`` or ``apply`` brings them back."""
    _applied(workspace)
    with Lock(workspace.repository, workspace.environment.name).acquire("llmctl local stop") as held:
        workspace.target.stop(_op(workspace, progress, held.check))


def _applied(workspace: Workspace) -> None:
    if not workspace.target.exists():
        raise InvalidInput(
            [Diagnostic("nothing is applied here yet in this environment", hint="Run `llmctl apply` first.")]
        )


def _op(workspace: Workspace, progress: Callable[[str], None], check: Callable[[], None]) -> Op:
    return Op(
        idempotency_key=f"{workspace.environment.name}/local",
        deadline_s=monotonic() + 60,
        cancelled=Event(),
        progress=progress,
        check_lease=check,
    )


def outdated(gateway: GatewayReading) -> tuple[Diagnostic, ...]:
    """That the gateway runs the program of another llmctl than this: it keeps the one that it was started with."""
    if not gateway.running or gateway.unreadable or gateway.version == __version__:
        return ()
    runs = f"llmctl {gateway.version}" if gateway.version else "an earlier llmctl"
    return (
        Diagnostic(
            f"the gateway runs {runs}, and this is {__version__}",
            Severity.WARNING,
            hint="`llmctl local stop` and then `llmctl local start` renew it; nobody is answered in between.",
        ),
    )


def log_files(workspace: Workspace, name: str | None) -> Mapping[str, Path]:
    """Log files by process name. ``name`` is an address, a process or a part of its name."""
    paths = workspace.target.log_paths()
    if name is None:
        return paths
    wanted = name.removeprefix("endpoint.")
    found = {process: path for process, path in paths.items() if wanted in process}
    if not found:
        raise InvalidInput(
            [Diagnostic(f"there is no log of {name!r}", hint=f"Logs: {', '.join(sorted(paths)) or 'none yet'}.")]
        )
    return found


def tail(paths: Mapping[str, Path], lines: int, *, follow: bool, stop: Event) -> Iterator[tuple[str, str]]:
    """The last lines of each log, then with ``follow`` what is added, also across a rotation."""
    offsets: dict[str, tuple[int, int]] = {}
    for name, path in sorted(paths.items()):
        text = path.read_bytes() if path.exists() else b""
        for line in text.decode(errors="replace").splitlines()[-lines:]:
            yield name, line
        offsets[name] = (path.stat().st_ino if path.exists() else 0, len(text))
    while follow and not stop.is_set():
        time.sleep(_POLL_S)
        for name, path in sorted(paths.items()):
            yield from _added(name, path, offsets)


def _added(name: str, path: Path, offsets: dict[str, tuple[int, int]]) -> Iterator[tuple[str, str]]:
    if not path.exists():
        return
    inode, offset = offsets[name]
    stat = path.stat()
    if stat.st_ino != inode or stat.st_size < offset:
        offset = 0
    with path.open("rb") as file:
        file.seek(offset)
        added = file.read()
    complete = added[: added.rfind(b"\n") + 1]
    for line in complete.decode(errors="replace").splitlines():
        yield name, line
    offsets[name] = (stat.st_ino, offset + len(complete))
