"""Use cases for the processes of the local target: start, stop, logs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event
from time import monotonic

from llmctl import __version__
from llmctl.app.workspace import Workspace
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.errors import InvalidInput, LlmctlError
from llmctl.core.protocols import GatewayReading, Op
from llmctl.providers.local import LocalTarget
from llmctl.record import Lock, open_repository

_POLL_S = 0.2


def start(workspace: Workspace, progress: Callable[[str], None]) -> None:
    """Start what an apply left here, for example after a reboot. Nothing is recorded: nothing changes."""
    _applied(workspace)
    with _lock(workspace).acquire("llmctl local start") as held:
        workspace.target.start(_op(workspace, progress, held.check))


def stop(workspace: Workspace, progress: Callable[[str], None]) -> None:
    """Stop all processes and keep all files; ``start`` or ``apply`` brings them back."""
    _applied(workspace)
    with _lock(workspace).acquire("llmctl local stop") as held:
        workspace.target.stop(_op(workspace, progress, held.check))


def _lock(workspace: Workspace) -> Lock:
    """This clone's lock, also where the record is on a remote: the processes are those of this machine."""
    return Lock(open_repository(workspace.root), workspace.environment.name)


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


def elsewhere(workspace: Workspace) -> tuple[Diagnostic, ...]:
    """Other work trees of this repository in which the environment runs, or was applied when nothing is here.

    Work trees share the record, and not ``.llmctl``. Git is asked only when there are several.
    """
    repository, environment = workspace.repository, workspace.environment
    if not (repository.common_dir / "worktrees").is_dir():
        return ()
    below = os.path.relpath(os.path.realpath(workspace.root), repository.work_tree)
    told = repository.git.run("worktree", "list", "--porcelain", "-z").decode(errors="surrogateescape").split("\0")
    trees = [Path(line.removeprefix("worktree ")) for line in told if line.startswith("worktree ")]
    here = workspace.target.exists()
    found = []
    for folder in (tree / below for tree in trees if tree != repository.work_tree):
        other = LocalTarget(folder, workspace.document.project, environment)
        with suppress(OSError, LlmctlError):  # a folder of somebody else
            runs = other.is_up()
            if runs or (not here and other.exists()):
                found.append(_also_in(folder, environment.name, runs=runs))
    return tuple(found)


def _also_in(folder: Path, environment: str, *, runs: bool) -> Diagnostic:
    place = os.path.normpath(folder)
    return Diagnostic(
        f"{environment} {'runs' if runs else 'was applied'} in {place}, another work tree of this repository",
        Severity.WARNING,
        hint=f"Both share one record, and each has processes of its own: what is done here is recorded for both. "
        f"Work in {place}, or give this work tree an environment of another name.",
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
