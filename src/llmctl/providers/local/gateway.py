"""The gateway of the local target: one process, published to and read back over its admin socket."""

from __future__ import annotations

import json
import time

from llmctl.core.digests import Json
from llmctl.core.errors import Conflict, ProviderError, TransientError
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import GateAccess, GatewayReading, Op
from llmctl.core.resources import Key
from llmctl.providers.local.layout import Layout, check_owner, read_json
from llmctl.providers.local.programs import GATEWAY, gateway_port
from llmctl.providers.local.secrets_file import SecretsFile
from llmctl.providers.local.supervisor import Presence, State, Supervisor
from llmctl.providers.local.wire import HOST, NoAnswer, NobodyThere, Reply, unix_request

_ANSWER_S = 3.0
_PUBLISH_S = 15.0
_GRACE_S = 2.0  # how long a read waits for a gateway that is just starting
_POLL_S = 0.03
REPLICA = "local"


class LocalGateway:
    """``core.protocols.GatewayControl`` for the one gateway process of an environment."""

    def __init__(self, layout: Layout, supervisor: Supervisor, secrets: SecretsFile) -> None:
        self._layout = layout
        self._supervisor = supervisor
        self._secrets = secrets

    def read(self) -> GatewayReading:
        """What it really serves. Down only when that is known; what does not answer is unreadable."""
        until = time.monotonic() + _GRACE_S
        while True:
            try:
                return self._serving()
            except NobodyThere:
                known = self._why_not()
            except NoAnswer as error:
                return GatewayReading(running=True, unreadable=f"the gateway does not answer: {error}")
            if known is not None:
                return known
            if time.monotonic() > until:
                return GatewayReading(running=True, unreadable="the gateway is starting and does not answer yet")
            time.sleep(_POLL_S)

    def publish(self, op: Op, config: GatewayConfig, expected: str) -> GatewayReading:
        op.guard()
        body = json.dumps({"expected": expected, "config": config.to_json()}).encode()
        try:
            reply = self._request("PUT", "/config", body, timeout_s=_PUBLISH_S)
        except NobodyThere:
            raise TransientError("the gateway does not run", hint="Run `llmctl local start`.") from None
        except NoAnswer as error:
            detail = f"{error}. Whether it took the configuration is not known."
            raise TransientError("the gateway does not answer", detail=detail, hint="Plan again.") from None
        if reply.status == 409:
            found = f"It serves {_said(reply, 'revision')}, expected was {expected or 'none'}"
            raise Conflict(
                "the gateway serves another configuration than the plan was made against",
                detail=f"{found}: {_said(reply, 'error')}",
                hint="Somebody else published: plan again.",
            )
        if reply.status != 200:
            raise ProviderError(
                f"the gateway refuses the configuration (HTTP {reply.status})", detail=_said(reply, "error")
            )
        served = self._revision()
        if served != config.revision:
            there = served or "nothing that it says"
            raise TransientError("the gateway does not read back what was published", detail=f"It serves {there}.")
        return GatewayReading(running=True, configs={REPLICA: config}, base_url=self.base_url())

    def gate_access(self) -> GateAccess:
        return GateAccess(self.base_url(), self._secrets.gate_token())

    def stats(self) -> dict[str, Json]:
        """The gateway's own counters since it started. Raises ``TransientError`` when it gives none."""
        try:
            reply = self._request("GET", "/stats")
            content = reply.json()
        except (NobodyThere, NoAnswer, ValueError) as error:
            raise TransientError("the gateway gives no statistics", detail=str(error)) from None
        if reply.status != 200 or not isinstance(content, dict):
            raise TransientError("the gateway gives no statistics", detail=f"HTTP {reply.status}")
        return content

    def in_flight(self, endpoint: Key) -> int:
        """Requests that an endpoint revision is answering now; 0 when the gateway is down."""
        if not self.read().running:
            return 0
        return int(self.stats()["upstreams"].get(str(endpoint), {}).get("in_flight", 0))

    def last_published(self) -> GatewayConfig | None:
        """What was published last, also while the gateway is down; None when nothing was, or it cannot be read."""
        try:
            return GatewayConfig.from_json(read_json(self._layout.gateway / "config.json")["config"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def base_url(self) -> str:
        """For clients, without /v1; "" while it has no port."""
        port = 0 if self._layout.is_copy else gateway_port(self._layout)
        return f"http://{HOST}:{port}" if port else ""

    def _serving(self) -> GatewayReading:
        reply = self._request("GET", "/config")
        try:
            content = reply.json()
            config = GatewayConfig.from_json(content["config"])
        except (ValueError, KeyError, TypeError) as error:
            raise NoAnswer(f"what it serves cannot be understood (HTTP {reply.status}): {error}") from None
        version = str(content.get("version", ""))
        return GatewayReading(running=True, configs={REPLICA: config}, base_url=self.base_url(), version=version)

    def _revision(self) -> str:
        """Names what it serves now, all of it: as good as the whole to compare, and not 500 KB; "" when unknown."""
        try:
            return str(self._request("GET", "/health").json()["revision"])
        except (NobodyThere, NoAnswer, ValueError, KeyError, TypeError):
            return ""

    def _why_not(self) -> GatewayReading | None:
        """Why nobody listens on the admin socket: down, or None while it is just starting."""
        presence = self._supervisor.presence()
        if presence is Presence.SILENT:
            return GatewayReading(running=True, unreadable="the process manager (supervisord) does not answer")
        managed = self._supervisor.one(GATEWAY) if presence is Presence.UP else None
        if managed is None or managed.state not in (State.STARTING, State.RUNNING):
            return GatewayReading(running=False, base_url=self.base_url())
        return None

    def _request(self, method: str, url: str, body: bytes | None = None, timeout_s: float | None = None) -> Reply:
        runtime = self._layout.runtime
        if runtime.is_dir():
            check_owner(runtime)
        return unix_request(self._layout.admin_socket, method, url, body, timeout_s=timeout_s or _ANSWER_S)


def _said(reply: Reply, field: str) -> str:
    try:
        return str(reply.json()[field])
    except (ValueError, KeyError, TypeError):
        return "nothing"
