"""Server-sent events of a streamed answer: the upstream's model name becomes the route's."""

from __future__ import annotations

import json

from llmctl.core.digests import Json
from llmctl.gateway.replies import dump

_LONGEST_LINE = 8 << 20  # bytes; more without a line's end is no event stream


def event(value: Json) -> bytes:
    """One event."""
    return b"data: " + dump(value) + b"\n\n"


class Rewriter:
    """Takes an upstream's bytes as they come and gives back whole lines as soon as they are there.

    ``done`` is set by the end marker; what follows it is left out. ``failed`` is set by an error event;
    that event and what follows it are swallowed, because its text is the upstream's own and not for clients.
    ``half`` is set while an event stands without the blank line that ends it.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._rest = b""
        self.done = False
        self.failed = False
        self.half = False

    def feed(self, chunk: bytes) -> bytes:
        """The rewritten lines that ``chunk`` completes, often none."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        out = bytearray()
        for line in lines:
            rewritten = self._line(line)
            if self.failed:
                break
            out += rewritten + b"\n"
            self.half = bool(rewritten.strip())
            if self.done:
                out += b"\n"
                break
        if len(self._rest) > _LONGEST_LINE:
            self.failed = True
        return bytes(out)

    def _line(self, line: bytes) -> bytes:
        if not line.startswith(b"data:"):
            self.failed = line.startswith(b"error:")  # llama.cpp has written errors so
            return line
        data = line[5:].strip()
        if data == b"[DONE]":
            self.done = True
            return line
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return line
        if not isinstance(value, dict):
            return line
        if value.get("error"):
            self.failed = True
        if "model" in value:
            value["model"] = self._model
        return b"data: " + dump(value)
