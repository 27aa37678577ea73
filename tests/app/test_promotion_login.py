"""The record of the environment before behind a password: it reaches the server, and nobody else."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from llmctl.app.promotion_proof import Sought, find_origin
from llmctl.core.errors import InvalidInput, RecordError
from llmctl.core.resources import Environment
from llmctl.record import Reader, Repository, open_repository
from tests.plan.builders import application
from tests.record.helpers import git, make_repository

CANARY = "CANARY-p4ss"
DEV = Environment("dev", "local")


class _Git(BaseHTTPRequestHandler):
    """``git http-backend`` behind a user and a password."""

    protocol_version = "HTTP/1.0"
    folder: Path
    seen: list[str]  # command lines of other processes that held the password while it was sent
    asked: int

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers["Content-Length"])))

    def _serve(self, body: bytes) -> None:
        wanted = "Basic " + base64.b64encode(f"ci:{CANARY}".encode()).decode()
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()
            return
        type(self).asked += 1
        for process in psutil.process_iter():
            try:
                if CANARY in " ".join(process.cmdline()):
                    self.seen.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        path, _, query = self.path.partition("?")
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            check=True,
            env=os.environ
            | {
                "GIT_PROJECT_ROOT": str(self.folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "REMOTE_USER": "ci",
            },
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a log would be read as a warning."""


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[tuple[type[_Git], str]]:
    """A server with the repository ``other``, and its address without a login."""

    class Handler(_Git):
        folder = tmp_path
        asked = 0

    Handler.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Handler, f"127.0.0.1:{server.server_port}/other/.git"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    return open_repository(make_repository(tmp_path / "here"))


@pytest.fixture
def other(tmp_path: Path) -> Repository:
    from tests.app.test_promotion import entry

    made = open_repository(make_repository(tmp_path / "other"))
    entry(made, application())
    return made


def test_the_password_reaches_the_server_alone(
    here: Repository, other: Repository, forge: tuple[type[_Git], str], tmp_path: Path
) -> None:
    handler, address = forge
    found = find_origin(here, DEV, Sought(f"http://ci:{CANARY}@{address}"))
    assert found.head == Reader(other, "dev").head()
    assert handler.asked >= 2
    assert handler.seen == []
    kept = subprocess.run(["grep", "-rl", CANARY, str(tmp_path)], capture_output=True, text=True, check=False)
    assert kept.stdout == ""
    assert CANARY not in git(here.work_tree, "for-each-ref") + git(here.work_tree, "config", "--list")


@pytest.mark.parametrize("login", [f"ci:{CANARY}-wrong@", f"{CANARY}:x@", f":{CANARY}@", ""])
def test_a_wrong_password_is_in_no_message(
    here: Repository, other: Repository, forge: tuple[type[_Git], str], login: str
) -> None:
    del other
    with pytest.raises(RecordError) as raised:
        find_origin(here, DEV, Sought(f"http://{login}{forge[1]}"))
    error = raised.value
    told = f"{error.summary} {error.detail} {error.hint} {error!r} {error.__cause__!r} {error.__context__!r}"
    assert CANARY not in told
    assert f"could not be fetched from http://{forge[1]}" in error.summary


@pytest.mark.parametrize("place", [f"http://ci:{CANARY}@[", f"https://ci:{CANARY}@host:port:port/x", f"x://{CANARY}@/"])
def test_nonsense_with_a_password_in_it(here: Repository, place: str) -> None:
    with pytest.raises((InvalidInput, RecordError)) as raised:
        find_origin(here, DEV, Sought(place))
    error = raised.value
    assert CANARY not in f"{error.summary} {error.detail} {error.hint} {error.__context__!r} {error.diagnostics()}"
