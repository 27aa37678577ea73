"""What the process manager runs: ``supervisord.conf``, rendered from the files in ``endpoints/`` and ``gateway/``.

Paths of the project and of the interpreter reach it through the environment, already quoted for a shell:
in the file itself a ``%``, a `` #`` or a blank in them would mean something else.
"""

from __future__ import annotations

import os
import resource
import shlex
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import llmctl
from llmctl.core.errors import ProviderError
from llmctl.providers.local.launch import ENGINE, EndpointFile, Launch, endpoint_files
from llmctl.providers.local.layout import Layout, read_json

GATEWAY = "gateway"
#: Longer than an endpoint may take to drain: an engine ends of itself, and whoever stops one that does not kills it.
ENGINE_STOP_S = 2 * 24 * 3600
GATEWAY_STOP_S = 15  # it lets requests in flight finish for 10 s
#: The only variables of the caller's environment that daemons get: nothing that could be a secret.
_KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "PYTHONHOME",
)
_DESCRIPTORS = 8192  # the gateway holds a socket per client


@dataclass(frozen=True, slots=True)
class Program:
    """One program: its name to supervisord and its command, in which ``{state}`` is the state folder."""

    name: str
    module: str
    arguments: tuple[str, ...]  # plain words; what starts with "state:" is a path below the state folder
    priority: int  # low starts first and stops last
    stop_wait_s: int  # from SIGTERM to SIGKILL


def engines(endpoint: EndpointFile) -> list[Program]:
    """One program a replica. Raises ``ProviderError`` for a spec that the engine cannot run."""
    launch = Launch.from_spec(endpoint.key, endpoint.spec)
    file = f"state:endpoints/{endpoint.key}.json"
    return [
        Program(name, ENGINE, (file, str(replica), launch.identity), 500, ENGINE_STOP_S)
        for replica, name in enumerate(endpoint.programs, 1)
    ]


def gateway(layout: Layout, port: int) -> Program:
    arguments = ("--dir", "state:gateway", "--host", "127.0.0.1", "--port", str(port))
    return Program(
        GATEWAY, "llmctl.gateway", (*arguments, "--admin-socket", str(layout.admin_socket)), 900, GATEWAY_STOP_S
    )


def wanted(layout: Layout) -> list[Program]:
    """Every program that has a file here: engines, and the gateway once it has a port."""
    found, _ = endpoint_files(layout)
    programs = []
    for endpoint in found:
        with suppress(ProviderError):  # of another version of llmctl: reads as unhealthy, and must not stop the others
            programs += engines(endpoint) if endpoint.is_process else []
    port = gateway_port(layout)
    return [*programs, gateway(layout, port)] if port else programs


def gateway_port(layout: Layout) -> int:
    """The port the gateway was given, 0 while it has none. Raises ``ProviderError`` when the file is damaged."""
    try:
        return int((read_json(layout.listen) or {"port": 0})["port"])
    except (ValueError, KeyError, TypeError) as error:
        hint = "Delete it, then run `llmctl local stop` and `llmctl local start`."
        raise ProviderError(
            "the gateway's port cannot be read", detail=f"{layout.listen}: {error}", hint=hint
        ) from None


def render(layout: Layout, programs: Iterable[Program]) -> str:
    """The text of ``supervisord.conf``. Other paths in it are relative to the state folder, its working folder."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    descriptors = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    sections = [
        f"""[unix_http_server]
file={layout.supervisor_socket}
chmod=0600

[supervisord]
logfile=logs/supervisord.log
logfile_maxbytes=1MB
logfile_backups=2
pidfile=supervisord.pid
umask=077
minfds={descriptors}
minprocs=1
nodaemon=false
nocleanup=true
identifier={layout.runtime.name}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    ]
    sections += [_section(program) for program in sorted(programs, key=lambda p: p.name)]
    return "\n".join(sections)


def _section(program: Program) -> str:
    words = []
    for word in program.arguments:
        inside, path = word.startswith("state:"), word.removeprefix("state:")
        words.append(f"%(ENV_LLMCTL_DAEMON_STATE)s/{path}" if inside else word)
    return f"""[program:{program.name}]
command=%(ENV_LLMCTL_DAEMON_PYTHON)s -m {program.module} {" ".join(words)}
priority={program.priority}
autostart=true
autorestart=true
startsecs=1
startretries=30
stopsignal=TERM
stopwaitsecs={program.stop_wait_s}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile=logs/{program.name}.log
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=2
"""


def environment(layout: Layout) -> dict[str, str]:
    """The environment of supervisord and so of all it starts."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    package = Path(llmctl.__file__).resolve().parents[1]
    given = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    installed = package.name in ("site-packages", "dist-packages")
    search = given if installed or str(package) in given else [str(package), *given]
    return {
        "PATH": os.defpath,
        **kept,
        **({"PYTHONPATH": os.pathsep.join(search)} if search else {}),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "LLMCTL_DAEMON_PYTHON": shlex.quote(sys.executable),
        "LLMCTL_DAEMON_STATE": shlex.quote(str(layout.state)),
    }
