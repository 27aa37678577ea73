"""One llama.cpp engine: ``python -m llmctl.providers.local.engine ENDPOINT.json REPLICA IDENTITY``; with
``--check`` alone it only tells whether the library can be loaded on this machine.

A child of the process manager that serves exactly one endpoint revision and names itself by it, so that
``GET /v1/models`` reads back what is really served. Why it could not start is one line on stderr that
begins with ``llmctl engine: error`` and a number, which tells the causes apart that a provider can cure.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

from llmctl.core.digests import digest_file
from llmctl.core.errors import LlmctlError
from llmctl.core.process import die_with_parent
from llmctl.providers.local.launch import (
    DAMAGED,
    FAILED,
    PORT_TAKEN,
    EndpointFile,
    Launch,
    drain_s,
    endpoint_program,
    loading_file,
)
from llmctl.providers.local.layout import Layout
from llmctl.providers.local.store import FileStore
from llmctl.providers.local.wire import HOST, holder, is_free

if TYPE_CHECKING:
    import xllamacpp

_HTTP_THREADS = 64  # the default starves keep-alive clients: 59 requests/s against 425
_CACHE_MIB = 64  # llama.cpp's default is 8 GB
_ERRORS_ONLY = 1
#: "0.00.004.390 E gguf_init_from_reader: invalid magic" gives the text after the function's name.
_ERROR_LINE = re.compile(r"^[\d.]+ E (?:\w+ +)?[\w:~]+: (?P<text>.+)$", re.MULTILINE)
_IN_FLIGHT = ("llamacpp:requests_processing ", "llamacpp:requests_deferred ")
_POLL_S = 0.02
_CLOSE_S = 3
_NO_BIND = "couldn't bind HTTP server socket"


def main(arguments: list[str]) -> NoReturn:
    """Serve until SIGTERM, then finish the requests in flight. While it loads, SIGTERM ends it at once."""
    die_with_parent()
    if arguments == ["--check"]:
        _llama_cpp()
        raise SystemExit(0)
    if len(arguments) != 3 or not arguments[1].isdigit():
        _fail(FAILED, "usage: python -m llmctl.providers.local.engine ENDPOINT.json REPLICA IDENTITY")
    path, replica, identity = Path(arguments[0]), int(arguments[1]), arguments[2]
    try:
        endpoint = EndpointFile.read(path)
        launch = Launch.from_spec(endpoint.key, endpoint.spec) if endpoint else None
    except (OSError, ValueError, LlmctlError) as error:
        _fail(FAILED, f"{path} cannot be used: {error}")
    if endpoint is None or launch is None:
        _fail(FAILED, f"{path} is gone")
    if launch.identity != identity:
        _fail(FAILED, f"{path} now says {launch.identity}, this process was to serve {identity}")
    if not 1 <= replica <= len(endpoint.ports):
        _fail(FAILED, f"{path} has {len(endpoint.ports)} replicas, this process was to be number {replica}")
    port = endpoint.ports[replica - 1]
    if not is_free(port):
        _fail(PORT_TAKEN, f"port {port} is taken by {holder(port)}")
    layout = Layout(path.parents[1])
    files = _verified_files(FileStore(layout), launch)
    server = _serve(launch, files, port, loading_file(layout, endpoint_program(launch.key, replica)))
    terminated = _on_sigterm()
    print(f"serves {launch.key} on {server.listening_address}", flush=True)
    os.read(terminated, 1)
    until = time.monotonic() + _drain_s(path)
    while _in_flight(server):
        if time.monotonic() > until:
            os._exit(0)  # the library would wait for what it still does
        time.sleep(_POLL_S)
    signal.alarm(_CLOSE_S + int(until - time.monotonic()))  # should a request have come in just now
    del server  # closes the port, and waits until the last answers are written
    raise SystemExit(0)


def _on_sigterm() -> int:
    """A descriptor that can be read from the first SIGTERM on, whichever of the library's threads gets it."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    signal.signal(signal.SIGTERM, lambda *_: None)
    return readable


def _drain_s(path: Path) -> float:
    """How long requests in flight may go on, by the endpoint's file as it is now."""
    try:
        endpoint = EndpointFile.read(path)
    except (OSError, ValueError):
        endpoint = None
    return drain_s(endpoint.spec if endpoint else {})


def _in_flight(server: xllamacpp.Server) -> bool:
    """Whether the engine works on a request or has one that waits for a slot."""
    values = (line.split() for line in server.handle_metrics().splitlines() if line.startswith(_IN_FLIGHT))
    return any(float(value) for _, value in values)


def _verified_files(store: FileStore, launch: Launch) -> list[Path]:
    """The stored files, in the order of ``launch.digests``, each read and compared with its digest."""
    files = []
    for digest in launch.digests:
        try:
            file = store.path(digest)
            found = digest_file(file)
        except (OSError, LlmctlError) as error:
            _fail(DAMAGED, str(error))
        if found != digest:
            _fail(DAMAGED, f"stored artifact {digest} is damaged: its content is {found}")
        files.append(file)
    return files


def _llama_cpp() -> ModuleType:
    """The engine's library; ends the process with the reason where it cannot be loaded."""
    try:
        import xllamacpp
    except ImportError as error:
        hint = ": install it with `apt-get install libgomp1`" if "libgomp" in str(error) else ""
        _fail(FAILED, f"llama.cpp cannot be loaded: {error}{hint}")
    module: ModuleType = xllamacpp
    return module


def _serve(launch: Launch, files: list[Path], port: int, errors: Path) -> xllamacpp.Server:
    xllamacpp = _llama_cpp()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(files[0])
    parameters.lora_adapters = [
        xllamacpp.CommonAdapterLoraInfo(str(file), scale)
        for file, (_, scale) in zip(files[1:], launch.adapters, strict=True)
    ]
    parameters.model_alias = {str(launch.key)}
    parameters.hostnames = [HOST]
    parameters.port = port
    parameters.n_parallel = launch.slots
    parameters.n_ctx = launch.slots * launch.context
    parameters.cpuparams.n_threads = launch.threads
    parameters.cpuparams_batch.n_threads = launch.threads
    if launch.batch:
        parameters.n_batch = launch.batch
    parameters.n_threads_http = _HTTP_THREADS
    parameters.cache_ram_mib = _CACHE_MIB
    parameters.offline = True
    parameters.ui = False
    parameters.endpoint_metrics = True
    parameters.endpoint_slots = False  # it would show other people's prompts
    parameters.cors_origins = ""  # the default lets every web page in a browser on this machine in
    parameters.verbosity = _ERRORS_ONLY
    try:
        with _stderr_in(errors):
            server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        said = errors.read_text(errors="replace")
        errors.unlink()
        print(said, file=sys.stderr)
        code = PORT_TAKEN if _NO_BIND in said else FAILED
        _fail(code, f"llama.cpp cannot serve {launch.key}: {_reason(said) or error}")
    return server


@contextmanager
def _stderr_in(path: Path) -> Iterator[None]:
    """Collect what llama.cpp writes to stderr in a file: its exception does not carry the reason.

    A file, because llama.cpp may abort the whole process, and then whoever waits for it still finds the reason.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.dup2(handle, 2)
    os.close(handle)
    try:
        yield
        path.unlink()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _reason(said: str) -> str:
    """The first two different error texts, the cause and what it was about; "" when there is none."""
    texts = dict.fromkeys(match["text"].strip() for match in _ERROR_LINE.finditer(said))
    return "; ".join(list(texts)[:2])


def _fail(code: int, line: str) -> NoReturn:
    print(f"llmctl engine: error {code}: {' '.join(line.split())}", file=sys.stderr, flush=True)
    raise SystemExit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
