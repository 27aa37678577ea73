"""Use case: ask a route, as a client would, and see which revision answered."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from llmctl.app.workspace import Workspace
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.errors import InvalidInput, ProviderError, TransientError
from llmctl.core.resources import Recorded, RecordState
from llmctl.spec.suggestions import suggestion

_TIMEOUT_S = 120


@dataclass
class Answer:
    """A streamed answer. ``revision`` and ``endpoint`` are known as soon as it begins."""

    route: str
    revision: str
    endpoint: str
    parts: Iterator[str]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A route to talk to: its gateway, and the prompt variable that a question fills."""

    base_url: str
    route: str
    variables: dict[str, str]
    version: str

    def ask(self, text: str, variables: dict[str, Json] | None = None) -> Answer:
        """Send one question. Raises ``ProviderError`` with the gateway's own words when it is refused."""
        body: dict[str, Json] = {"model": self.route, "stream": True}
        given = dict(variables or {})
        open_names = [name for name in self.variables if name not in given]
        if len(open_names) == 1:
            given[open_names[0]] = text
        elif open_names:
            raise InvalidInput(
                [
                    Diagnostic(
                        f"the prompt of route {self.route} has several variables: {', '.join(self.variables)}",
                        hint="Give all but one with --var NAME=VALUE; the text fills the last.",
                    )
                ]
            )
        else:
            body["messages"] = [{"role": "user", "content": text}]
        if given:
            body["prompt_variables"] = given
        return _post(self.base_url, self.route, body)


def conversation(workspace: Workspace, route: str) -> Conversation:
    """Prepare to talk to a route that is recorded. Raises ``InvalidInput`` for one that is not."""
    state = workspace.recorded()
    recorded = state.resources.get(Address("route", route)) or _renamed(state, route)
    if recorded is None:
        raise InvalidInput([_no_route(state, route)])
    reading = workspace.target.gateway.read()
    if not reading.running:
        raise ProviderError(
            "the gateway does not run",
            hint="`llmctl local start` starts it, `llmctl apply` restores everything; `llmctl status` tells more.",
        )
    return Conversation(reading.base_url, route, dict(recorded.spec["template"]["variables"]), f"v{recorded.version}")


def _renamed(state: RecordState, alias: str) -> Recorded | None:
    """The route that still answers to an old name."""
    routes = (recorded for address, recorded in state.resources.items() if address.kind == "route")
    return next((r for r in routes if alias in r.spec.get("aliases", ())), None)


def _no_route(state: RecordState, route: str) -> Diagnostic:
    known = sorted(a.name for a in state.resources if a.kind == "route")
    if not known:
        return Diagnostic("nothing is applied yet in this environment", hint="Run `llmctl apply` first.")
    return Diagnostic(f"there is no route {route!r}", hint=suggestion(route, known, "routes"))


def _post(base_url: str, route: str, body: dict[str, Json]) -> Answer:
    url = urlsplit(base_url)
    connection = http.client.HTTPConnection(url.hostname or "127.0.0.1", url.port or 80, timeout=_TIMEOUT_S)
    try:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
    except OSError as error:
        connection.close()
        raise TransientError(
            f"the gateway at {base_url} does not answer: {error}", hint="Run `llmctl status`."
        ) from None
    if response.status != 200:
        text = _error_text(response.read())
        connection.close()
        # A refusal says itself what to do; what went wrong behind the gateway is in the logs.
        hint = "`llmctl logs` tells more." if response.status >= 500 else ""
        raise ProviderError(f"the gateway answered {response.status}: {text}", hint=hint)
    return Answer(
        route,
        response.headers.get("x-llmctl-revision", ""),
        response.headers.get("x-llmctl-endpoint", ""),
        _parts(connection, response),
    )


def _parts(connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> Iterator[str]:
    """The texts of a server-sent event stream. Raises ``ProviderError`` when it breaks off."""
    ended = False
    try:
        for line in response:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                ended = True
                break
            event = json.loads(data)
            if "error" in event:
                raise ProviderError(f"the answer broke off: {event['error'].get('message', 'unknown error')}")
            for choice in event.get("choices", ()):
                yield choice.get("delta", {}).get("content") or ""
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ProviderError(f"the answer broke off: {error}") from None
    finally:
        connection.close()
    if not ended:
        raise ProviderError("the answer broke off", hint="`llmctl logs gateway` tells more.")


def _error_text(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:200]
