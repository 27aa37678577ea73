"""A hosted API on loopback: ``GET /v1/models`` with an API key."""

from __future__ import annotations

from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from time import sleep

CANARY = "sk-canary-5f2b91d07c"


class FakeApi:
    """Answers with ``status`` when the key is right; counts what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.open = False  # whether it answers without a key, too
        self.body = b"{}"
        self.silent = Event()  # while it is set nothing is answered
        self.keys_seen: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                given = self.headers.get("Authorization", "")
                api.keys_seen.append(given)
                allowed = api.open or given == f"Bearer {CANARY}"
                status = api.status if allowed and self.path == "/v1/models" else 401
                while api.silent.is_set():
                    sleep(0.01)
                self.send_response(status)
                self.send_header("Content-Length", str(len(api.body)))
                self.end_headers()
                with suppress(OSError):  # nobody waits any more
                    self.wfile.write(api.body)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        """May be called twice."""
        self.silent.clear()
        if self._thread.is_alive():
            self._server.shutdown()
        self._thread.join()
        self._server.server_close()
