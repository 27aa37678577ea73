"""HTTP on loopback and on Unix sockets, and TCP ports: the few calls that the local target needs."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.digests import Json

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a server: status and body."""

    status: int
    body: bytes

    def json(self) -> Json:
        """Raises ``ValueError`` when the body is not JSON."""
        return json.loads(self.body)


class NoAnswer(Exception):
    """Somebody is there and does not answer, or not in HTTP."""


class NobodyThere(Exception):
    """Nothing listens at the address."""


def _exchange(sock: socket.socket, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection("localhost")
    connection.sock = sock
    try:
        connection.request(method, path, body, {"Connection": "close", **headers})
        answer = connection.getresponse()
        return Reply(answer.status, answer.read())
    except (HTTPException, OSError) as error:
        raise NoAnswer(str(error) or type(error).__name__) from None
    finally:
        connection.close()


def unix_request(
    path: Path, method: str, url: str, body: bytes | None = None, *, timeout_s: float, content: str = "application/json"
) -> Reply:
    """One request over a Unix socket. Raises ``NobodyThere`` or ``NoAnswer``."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        sock.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        sock.close()
        raise NobodyThere(str(error)) from None
    except OSError as error:
        sock.close()
        raise NoAnswer(str(error)) from None
    return _exchange(sock, method, url, body, {"Content-Type": content})


def local_request(port: int, method: str, url: str, body: Json = None, *, timeout_s: float) -> Reply:
    """One request to a server on this machine. Raises ``NobodyThere`` or ``NoAnswer``."""
    try:
        sock = socket.create_connection((HOST, port), timeout=timeout_s)
    except ConnectionRefusedError as error:
        raise NobodyThere(str(error)) from None
    except OSError as error:
        raise NoAnswer(str(error)) from None
    data = None if body is None else json.dumps(body).encode()
    return _exchange(sock, method, url, data, {"Content-Type": "application/json"})


def is_free(port: int) -> bool:
    """Whether a server can listen on that port of the loopback interface now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now; it may be taken before it is used."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
    return port


def holder(port: int) -> str:
    """Who listens on a port: "pid 4711 (nginx)", or "another process" when that cannot be told."""
    import psutil

    try:
        for found in psutil.net_connections("tcp"):
            if found.laddr and found.laddr.port == port and found.status == psutil.CONN_LISTEN and found.pid:
                return f"pid {found.pid} ({psutil.Process(found.pid).name()})"
    except psutil.Error:
        pass
    return "another process"


def listens(pid: int, port: int) -> bool:
    """Whether a process listens on a port."""
    import psutil

    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN for c in connections)
