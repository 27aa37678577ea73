"""Puts a point at every boundary where ``llmctl`` has an effect: at the calls of Python that make one, and, around
those, at the calls of llmctl that mean one. Called in a process of its own, which then runs one command.

Which points there are is nowhere written down: they are what a run without faults was seen to pass.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import llmctl.core.files
import llmctl.record.lock
from llmctl.apply import compensate, engine, together
from llmctl.apply.effects import Effects
from llmctl.core.errors import ProviderError, RecordError, TransientError
from llmctl.core.protocols import Op
from llmctl.providers.local import gateway, llama, probes, supervisor, target
from llmctl.providers.local.artifacts import ArtifactProvider
from llmctl.providers.local.endpoints import EndpointProvider
from llmctl.providers.local.gateway import LocalGateway
from llmctl.providers.local.store import FileStore
from llmctl.providers.local.target import LocalTarget
from llmctl.providers.local.wire import NoAnswer
from llmctl.record import Attempt, HeldLock, Lock
from llmctl.record.git import Answer, GitCommand
from tests.faults.points import Error, Watch, normal

_METHOD = re.compile(rb"<methodName>([\w.]+)</methodName>.*?(?:<string>([^<]*)</string>|\Z)", re.DOTALL)
#: Questions, of the process manager, of git, of a server: they are put again until the answer is right.
_ASKS = ("supervisor.getState", "supervisor.getAllProcessInfo", "supervisor.getProcessInfo")
_GIT_WRITES = ("update-ref", "unpack-objects", "index-pack", "hash-object", "commit-tree", "mktree", "push", "fetch")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def put_points(watch: Watch, *, git_lag_s: float = 0.0) -> None:
    """Have ``watch`` see all that this process does from now on.

    What depends on the clock in llmctl is fixed, so that each run is like the one before: git follows the journal
    ``git_lag_s`` behind, the lock is read at each check, and a file that was just written is remembered.
    """
    defaults = Attempt.begin.__func__.__kwdefaults__  # type: ignore[attr-defined]
    defaults["lag_s"] = git_lag_s
    llmctl.record.lock._REREAD_S = 0.0
    llmctl.core.files._SETTLED_NS = 0
    watch.carry()
    _ways(watch)
    _providers(watch)
    _records(watch)
    _requests(watch)
    _sockets(watch)
    _processes(watch)
    _files(watch)


def _around(
    watch: Watch, owner: Any, name: str, kind: str, what: Callable[..., str], error: Error, **more: Any
) -> None:
    """Make each call of a method a point; ``what`` says of its arguments what it is."""
    call = getattr(owner, name)

    @wraps(call)
    def pointed(*arguments: Any, **named: Any) -> Any:
        op = next((value for value in arguments if isinstance(value, Op)), None)
        said = what(*arguments, **named)
        return watch.at(kind, said, lambda: call(*arguments, **named), error, op=op, **more)

    setattr(owner, name, pointed)


# -- what llmctl does -------------------------------------------------------------------------------


def _ways(watch: Watch) -> None:
    """Steps are no points: they name the way to what is done in them."""
    perform, swaps, undoes = Effects.perform, together.swap_together, compensate.compensate

    def performed(self: Effects, step: Any, op: Op) -> str:
        with watch.inside(step.id, ops=(*watch.scope.ops, op)):
            return perform(self, step, op)

    def swapped(run: Any, rollout: Any, members: Sequence[Any]) -> None:
        ids = "+".join(sorted(member.step.id for member in members))
        with watch.inside(ids, ops=(*watch.scope.ops, *(member.op for member in members))):
            swaps(run, rollout, members)

    def compensated(*arguments: Any) -> Any:
        with watch.inside("compensate"):
            return undoes(*arguments)

    Effects.perform = performed  # type: ignore[method-assign]
    engine.swap_together = swapped  # type: ignore[attr-defined]
    compensate.swap_together = swapped  # type: ignore[attr-defined]
    engine.compensate = compensated  # type: ignore[attr-defined, assignment]


def _providers(watch: Watch) -> None:
    more: Any = {"passing": TransientError}

    def around(owner: Any, name: str, kind: str, what: Callable[..., str]) -> None:
        _around(watch, owner, name, kind, what, ProviderError, **more)

    for verb in ("create", "update", "delete"):
        around(ArtifactProvider, verb, "provider", lambda p, _, key, *__, v=verb: f"{p._kind}.{v} {key.name}")
        around(EndpointProvider, verb, "provider", lambda _, __, key, *___, v=verb: f"endpoint.{v} {key.name}")
    for verb in ("start", "destroy"):
        around(LocalTarget, verb, "target", lambda *_, v=verb, **__: v)
    around(LocalGateway, "publish", "gateway", lambda *_, **__: "publish")
    for verb in ("put_file", "put_bytes", "delete"):
        around(FileStore, verb, "store", lambda *_, v=verb, **__: v)
    for verb in ("launch", "shutdown"):
        around(supervisor.Supervisor, verb, "supervisor", lambda *_, v=verb, **__: v)


def _records(watch: Watch) -> None:
    def around(owner: Any, name: str, what: Callable[..., str]) -> None:
        _around(watch, owner, name, "record", what, RecordError)

    around(Attempt, "intend", lambda _, step, effect, *__, **___: f"intend {step} {effect}")
    around(Attempt, "done", lambda _, intent, *__: f"done {intent.step} {intent.effect}")
    around(Attempt, "commit", lambda _, change: f"commit {change.subject}")
    around(Attempt, "close", lambda *_, **__: "close")
    around(Lock, "acquire", lambda *_, **__: "take the lock")
    around(HeldLock, "release", lambda *_: "give the lock back")
    begin = Attempt.begin

    def begun(*arguments: Any, **named: Any) -> Attempt:
        return watch.at("record", "begin", lambda: begin(*arguments, **named), RecordError)

    Attempt.begin = begun  # type: ignore[method-assign]
    ask = GitCommand.ask

    def asked(self: GitCommand, *arguments: str, stdin: bytes = b"", foreground: bool = False) -> Answer:
        what = _git(arguments, stdin)
        polls = not what.startswith(_GIT_WRITES)
        try:
            return watch.at(
                "git", what, lambda: ask(self, *arguments, stdin=stdin, foreground=foreground), _Broken, polls=polls
            )
        except _Broken as broken:
            return Answer(128, b"", f"fatal: the remote end hung up unexpectedly: {broken}")

    GitCommand.ask = asked  # type: ignore[method-assign]


class _Broken(Exception):
    """Git ended with an error, after what it did or before."""


def _git(arguments: Sequence[str], stdin: bytes) -> str:
    command = next(a for a in arguments if not a.startswith("-"))
    if command == "update-ref":
        edits = [line.split()[:2] for line in stdin.decode().splitlines()]
        made = {"create": "set", "update": "set"}  # which of two steps is first is chance
        return f"update-ref {', '.join(f'{made.get(verb, verb)} {ref}' for verb, ref in edits)}"
    rest = [a for a in arguments if a != command and not (command in ("push", "fetch") and a.startswith("--"))]
    return normal(f"{command} {' '.join(rest)}")[:80]


def _requests(watch: Watch) -> None:
    def lost(said: str) -> NoAnswer:
        return NoAnswer(said)

    def unix(path: Path, method: str, url: str, body: bytes | None = None, **_: Any) -> str:
        found = _METHOD.search(body or b"")
        if url == "/RPC2" and found:
            return " ".join(part.decode() for part in found.groups() if part)
        return f"{path.name} {method} {url}"

    def local(_port: int, method: str, url: str, *_: Any, **__: Any) -> str:
        return f"{method} {url}"

    for module, name, what in (
        *((module, "unix_request", unix) for module in (supervisor, gateway)),
        *((module, "local_request", local) for module in (probes, llama, target)),
    ):
        call = getattr(module, name)

        def asked(*arguments: Any, call: Any = call, what: Any = what, **named: Any) -> Any:
            said = what(*arguments, **named)
            polls = said.startswith(_ASKS) or " GET " in f" {said}" or "completions" in said
            return watch.at("request", said, lambda: call(*arguments, **named), lost, polls=polls)

        setattr(module, name, asked)


# -- what Python does -------------------------------------------------------------------------------


def _sockets(watch: Watch) -> None:
    def gone(said: str) -> OSError:
        return ConnectionResetError(errno.ECONNRESET, said)

    def connecting(_: Any, address: Any) -> str:
        return Path(address).name if isinstance(address, str) else "gateway or engine"

    _around(watch, socket.socket, "connect", "connect", connecting, gone, leaf=True)
    for name in ("send", "sendall", "sendto", "sendmsg"):
        _around(watch, socket.socket, name, "send", lambda *_: "a request", gone, leaf=True)


def _processes(watch: Watch) -> None:
    def none_left(said: str) -> OSError:
        return BlockingIOError(errno.EAGAIN, said)

    def program(_: Any, arguments: Any, *__: Any) -> str:
        words = [os.fsdecode(word) for word in arguments]
        return " ".join(
            [Path(words[0]).name, *words[1:3]] if "supervisor" in " ".join(words) else [Path(words[0]).name]
        )

    def missing(said: str) -> OSError:
        return ProcessLookupError(errno.ESRCH, said)

    _around(watch, subprocess.Popen, "_execute_child", "process", program, none_left, leaf=True)
    _around(watch, os, "kill", "signal", lambda _, number: signal.Signals(number).name, missing, leaf=True)


def _files(watch: Watch) -> None:
    def broken(said: str) -> OSError:
        return OSError(errno.EIO, said)

    def one(path: Any, *_: Any, **named: Any) -> str:
        return _path(path, named.get("dir_fd"))

    def two(path: Any, to: Any, *_: Any, **named: Any) -> str:
        return f"{_path(path, named.get('src_dir_fd'))} to {_path(to, named.get('dst_dir_fd'))}"

    for name in ("unlink", "remove", "mkdir", "rmdir", "truncate", "ftruncate", "chmod", "fchmod", "utime", "setxattr"):
        _around(watch, os, name, name, one, broken, leaf=True)
    for name in ("replace", "rename", "link", "symlink"):
        _around(watch, os, name, name, two, broken, leaf=True)
    _opens(watch, broken)
    write = os.write

    def wrote(descriptor: int, data: bytes) -> int:
        path = _path(descriptor, None)
        if descriptor <= 2 or not path.startswith("/"):  # what people read, and pipes, whose other end is ours
            return write(descriptor, data)
        return watch.at("write", path, lambda: write(descriptor, data), broken, leaf=True)

    os.write = wrote  # type: ignore[assignment]


def _opens(watch: Watch, broken: Error) -> None:
    opens, io_open = os.open, builtins.open

    def opened(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if not flags & _WRITES or path == os.devnull:
            return opens(path, flags, *arguments, **named)
        said = _path(path, named.get("dir_fd"))
        return watch.at("open", said, lambda: opens(path, flags, *arguments, **named), broken, leaf=True)

    def file_opened(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+") or file == os.devnull:
            return io_open(file, mode, *arguments, **named)
        said = _path(file, None)
        return watch.at("open", said, lambda: io_open(file, mode, *arguments, **named), broken, leaf=True)

    os.open = opened
    builtins.open = io.open = file_opened


def _path(path: Any, folder: int | None) -> str:
    """A path, also of an open file, and of one below an open folder; below the working directory without that."""
    try:
        if isinstance(path, int):
            name = os.readlink(f"/proc/self/fd/{path}")
        elif folder is not None:
            name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
        else:
            name = os.path.abspath(os.fsdecode(path))
    except OSError:
        return "?"
    base = os.path.dirname(os.getcwd())
    return name[len(base) :] if name.startswith(f"{base}/") else name
