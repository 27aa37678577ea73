"""One llama.cpp engine: ``python -m llmctl.providers.local.engine ENDPOINT.json IDENTITY``; with ``--check``
alone it only tells whether the library can be loaded on this machine.

A child of the process manager that serves exactly one endpoint revision and names itself by it, so that
``GET /v1/models`` reads back what is really served. Why it could not start is one line on stderr that
begins with ``llmctl engine: error`` and a number, which tells the causes apart that a provider can cure.
"""

from __future__ import annotations

import os
import re
import signal
import sys
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
_NO_BIND = "couldn't bind HTTP server socket"


def main(arguments: list[str]) -> NoReturn:
    """Serve until SIGTERM, whose default action ends the process at once: an engine has nothing to save."""
    die_with_parent()
    if arguments == ["--check"]:
        _llama_cpp()
        raise SystemExit(0)
    if len(arguments) != 2:
        _fail(FAILED, "usage: python -m llmctl.providers.local.engine ENDPOINT.json IDENTITY")
    path, identity = Path(arguments[0]), arguments[1]
    try:
        endpoint = EndpointFile.read(path)
        launch = Launch.from_spec(endpoint.key, endpoint.spec) if endpoint else None
    except (OSError, ValueError, LlmctlError) as error:
        _fail(FAILED, f"{path} cannot be used: {error}")
    if endpoint is None or launch is None:
        _fail(FAILED, f"{path} is gone")
    if launch.identity != identity:
        _fail(FAILED, f"{path} now says {launch.identity}, this process was to serve {identity}")
    if not is_free(endpoint.port):
        _fail(PORT_TAKEN, f"port {endpoint.port} is taken by {holder(endpoint.port)}")
    layout = Layout(path.parents[1])
    files = _verified_files(FileStore(layout), launch)
    server = _serve(launch, files, endpoint.port, loading_file(layout, launch.key))
    print(f"serves {launch.key} on {server.listening_address}", flush=True)
    while True:
        signal.pause()


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
