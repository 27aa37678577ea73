"""Starts the gateway, waits for SIGTERM, and lets requests in flight finish."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from llmctl.core.errors import LlmctlError
from llmctl.gateway.admin import AdminApi
from llmctl.gateway.metrics import Metrics
from llmctl.gateway.public import PublicApi
from llmctl.gateway.state import State
from llmctl.gateway.stats import Stats
from llmctl.gateway.upstream import Upstreams

log = logging.getLogger("llmctl.gateway")

_DRAIN_S = 10.0
_BACKLOG = 1024
_IDLE_CLIENT_S = 75.0
_FILES = 65536


@dataclass(frozen=True, slots=True)
class Settings:
    """Where one gateway lives; ``port`` 0 takes any free one."""

    folder: Path
    host: str
    port: int
    admin_socket: Path


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; raises ``LlmctlError`` when it cannot start."""
    _log_to_stderr()
    _allow_many_connections()
    state = State(settings.folder)
    with _admin_listener(settings.admin_socket) as admin_listener:
        asyncio.run(_serve(settings, state, admin_listener))


async def _serve(settings: Settings, state: State, admin_listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_loop_error)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stats, metrics = Stats(), Metrics()
    metrics.serving(state.snapshot)
    upstreams = Upstreams(stats, metrics)
    # A client that goes away cancels its handler, and that closes the upstream's request.
    public = web.AppRunner(
        PublicApi(state, upstreams, stats, metrics).app(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=_DRAIN_S / 2,  # aiohttp waits for it twice before it cancels handlers
        keepalive_timeout=_IDLE_CLIENT_S,
    )
    admin = web.AppRunner(AdminApi(state, stats, metrics).app(), access_log=None, shutdown_timeout=1.0)
    try:
        await public.setup()
        await admin.setup()
        port = await _listen(public, settings.host, settings.port)
        await web.SockSite(admin, admin_listener, backlog=_BACKLOG).start()
        log.info("serving on http://%s:%d with configuration %s", settings.host, port, state.snapshot.revision)
        if missing := state.snapshot.missing_secrets():
            log.warning("keys that upstreams need are not in secrets.json: %s", ", ".join(missing))
        await stop.wait()
        log.info("stopping: letting requests in flight finish, %d s at most", _DRAIN_S)
    finally:
        await public.cleanup()
        await admin.cleanup()
        await upstreams.close()
    log.info("stopped")


async def _listen(runner: web.AppRunner, host: str, port: int) -> int:
    try:
        await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
    except OSError as error:
        raise LlmctlError(
            f"cannot listen on {host}:{port}: {_reason(error)}",
            hint="Another program may use the port; give another one, or stop that program.",
        ) from None
    return int(runner.addresses[0][1])


@contextmanager
def _admin_listener(path: Path) -> Iterator[socket.socket]:
    """A socket bound to ``path`` with mode 0600; the file goes when the block ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            _remove_if_stale(path)
            before = os.umask(0o177)  # so that the socket is never open to others, not even for a moment
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
        except OSError as error:
            raise LlmctlError(f"cannot open the admin socket {path}: {_reason(error)}") from None
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _remove_if_stale(path: Path) -> None:
    """Remove the socket file of a gateway that died; raises when one answers on it."""
    if not path.exists():
        return
    if not path.is_socket():
        raise LlmctlError(f"{path} is in the way: it is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise LlmctlError(f"cannot tell whether {path} is in use: {_reason(error)}") from None
    raise LlmctlError(f"another gateway answers on {path}", hint="Stop it first, or give another --admin-socket.")


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def _allow_many_connections() -> None:
    """A stream takes two descriptors; the usual soft limit of 1,024 is soon used up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Plain(logging.Formatter):
    """One line a record, without the text of an exception: it may quote a prompt or a header."""

    def format(self, record: logging.LogRecord) -> str:
        kind = record.exc_info[0] if record.exc_info else None
        suffix = f" ({kind.__name__})" if kind else ""
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"{self.formatTime(record)} llmctl gateway: {level}{record.getMessage()}{suffix}"


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    log.setLevel(logging.INFO)


def _log_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    first_line = str(context.get("message", "")).partition("\n")[0]
    log.error("%s (%s)", first_line, type(error).__name__ if error else "no exception")
