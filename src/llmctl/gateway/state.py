"""What is served: one immutable snapshot, swapped as a whole, and its two files.

``config.json`` is written by the gateway alone, ``secrets.json`` by llmctl. *Unreadable is never
absent*: a file that is there and cannot be read stops the start.
"""

from __future__ import annotations

import hmac
import json
import math
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

from llmctl.core.digests import Json, canonical_json
from llmctl.core.errors import Conflict, LlmctlError
from llmctl.core.files import write_atomic
from llmctl.core.gateway_config import GatewayConfig, RouteRevision, Upstream
from llmctl.core.secrets import Secret
from llmctl.gateway.checks import BadConfig, read_config, variables_of
from llmctl.gateway.routing import effective_weights

EMPTY = GatewayConfig(environment="")


@dataclass(frozen=True, slots=True)
class Secrets:
    """The gate's token and the upstreams' API keys by name."""

    gate_token: Secret
    keys: Mapping[str, Secret] = field(default_factory=dict)

    def is_gate(self, authorization: str) -> bool:
        """Whether an Authorization header carries the gate's token; takes the same time for any wrong one."""
        expected = f"Bearer {self.gate_token.reveal()}".encode()
        return hmac.compare_digest(authorization.encode("utf-8", "surrogateescape"), expected)


@dataclass(frozen=True, slots=True)
class Target:
    """An upstream, ready to be called. ``urls`` are of its replicas, one or more."""

    upstream: Upstream
    urls: tuple[URL, ...]
    name: str  # endpoint@revision


@dataclass(frozen=True, slots=True)
class Served:
    """A route revision, ready to serve. ``fixed`` are its messages that need no variables."""

    route: str
    spec: RouteRevision
    fixed: tuple[Mapping[str, str], ...]
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a request needs; a request keeps the one it began with."""

    config: GatewayConfig
    revision: str
    secrets: Secrets
    served: Mapping[str, Mapping[str, Served]]  # route, revision
    names: Mapping[str, str]  # what clients may ask for: route
    lease_ends: Mapping[str, float]  # route: seconds of the monotonic clock, see `weights`
    since: float  # seconds since the epoch

    @classmethod
    def of(cls, config: GatewayConfig, secrets: Secrets, before: Snapshot | None = None) -> Snapshot:
        """What serves ``config`` after ``before``: a lease that is the same still ends when it was to end."""
        served = {
            name: {key: _served(name, revision) for key, revision in route.revisions.items()}
            for name, route in config.routes.items()
        }
        names = {alias: name for name, route in config.routes.items() for alias in route.aliases}
        # A route's own name wins over an alias, but only once something is promoted on it: before, it serves nobody.
        names |= {name: name for name, route in config.routes.items() if route.promoted or name not in names}
        return cls(config, config.revision, secrets, served, names, _lease_ends(config, before), time.time())

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever published."""
        return not self.config.routes and self.config.serial == 0

    def weights(self, route: str) -> Mapping[str, int]:
        """Percent of public traffic that each of a route's revisions gets at this moment.

        A lease ends at a time of the wall clock, which may jump. Forward it ends the split early, which is
        safe; backward it would prolong it, so the time that was left when it came counts too.
        """
        ends = self.lease_ends.get(route, math.inf)
        return effective_weights(self.config.routes[route], time.time(), lapsed=time.monotonic() > ends)

    def effective(self) -> dict[str, dict[str, int]]:
        """``weights`` of all routes."""
        return {name: dict(self.weights(name)) for name in self.config.routes}

    def missing_secrets(self) -> list[str]:
        """Names of API keys that upstreams need and ``secrets.json`` does not hold."""
        needed = {u.secret for r in self.config.routes.values() for v in r.revisions.values() for u in v.upstreams}
        return sorted(needed - {""} - set(self.secrets.keys))


def _served(route: str, revision: RouteRevision) -> Served:
    fixed = tuple(m for m in revision.messages if not variables_of(m["content"]) & set(revision.variables))
    targets = tuple(
        Target(u, tuple(map(_chat_url, u.base_urls)), f"{u.endpoint}@{u.revision}") for u in revision.upstreams
    )
    return Served(route, revision, fixed, targets)


def _chat_url(base_url: str) -> URL:
    return URL(base_url.rstrip("/") + "/chat/completions")


def _lease_ends(config: GatewayConfig, before: Snapshot | None) -> dict[str, float]:
    known = {name: route.lease for name, route in before.config.routes.items()} if before else {}
    ends = {}
    for name, route in config.routes.items():
        if route.lease is not None and route.lease == known.get(name) and before is not None:
            ends[name] = before.lease_ends[name]
        elif route.lease is not None:
            ends[name] = time.monotonic() + route.lease.expires_at - time.time()
    return ends


class State:
    """The snapshot that serves now, and the folder that it came from."""

    def __init__(self, folder: Path) -> None:
        """Load what was served last; raises ``LlmctlError`` when a file is there and cannot be used."""
        self._folder = folder
        self.snapshot = Snapshot.of(load_config(folder), load_secrets(folder))

    def publish(self, data: Json, expected: str) -> Snapshot:
        """Make ``data`` the configuration, durable first and then served.

        Blocks on the disk. One call at a time. Raises ``BadConfig``, ``Conflict`` when not ``expected``
        is served or a higher fence was seen, ``LlmctlError`` when the files fail; nothing changes then.
        """
        config = read_config(data)
        now = self.snapshot
        if expected != now.revision and not (expected == "" and now.is_empty):
            raise Conflict("another configuration is served")
        if config.fence < now.config.fence:
            raise Conflict(f"a writer with fence {now.config.fence} was here; {config.fence} is too old")
        snapshot = Snapshot.of(config, load_secrets(self._folder), now)
        store_config(self._folder, config)
        self.snapshot = snapshot
        return snapshot


def load_config(folder: Path) -> GatewayConfig:
    """The stored configuration, an empty one when there is none."""
    path = folder / "config.json"
    try:
        data = json.loads(path.read_bytes())
        return read_config(data["config"])
    except FileNotFoundError:
        return EMPTY
    except OSError as error:
        raise LlmctlError(f"{path} cannot be read: {error.strerror}") from None
    except (BadConfig, ValueError, KeyError, TypeError, RecursionError) as error:
        why = str(error) if isinstance(error, BadConfig) else "it is not the gateway's JSON"
        raise LlmctlError(
            f"{path} cannot be used: {why}",
            hint="Restore the file; or remove it to start with nothing, and run `llmctl apply` again.",
        ) from None


def store_config(folder: Path, config: GatewayConfig) -> None:
    """Write the configuration so that a crash at any moment leaves the old or the new one, whole."""
    path = folder / "config.json"
    try:
        write_atomic(path, canonical_json({"config": config.to_json()}).encode())
    except OSError as error:
        raise LlmctlError(f"{path} cannot be written: {error.strerror}") from None


def load_secrets(folder: Path) -> Secrets:
    """The stored secrets. Messages name the file and never what is in it."""
    path = folder / "secrets.json"
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise LlmctlError(
                    f"{path} is open to other users (mode {stat.S_IMODE(mode):04o})",
                    hint=f"Run `chmod 600 {path}`, and renew the keys in it if others use this machine.",
                )
            data = json.load(file)
    except FileNotFoundError:
        raise LlmctlError(f"{path} is missing", hint="`llmctl apply` writes it before it starts the gateway.") from None
    except OSError as error:
        raise LlmctlError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise LlmctlError(f"{path} is not valid JSON") from None
    token = data.get("gate_token") if isinstance(data, dict) else None
    keys = data.get("keys", {}) if isinstance(data, dict) else None
    if not isinstance(token, str) or not token or not isinstance(keys, dict):
        raise LlmctlError(f'{path} must hold {{"gate_token": "…", "keys": {{NAME: KEY}}}}')
    if not all(isinstance(key, str) and key.isascii() and key.isprintable() for key in keys.values()):
        raise LlmctlError(f"{path}: every key must be a line of plain ASCII text")
    return Secrets(Secret(token), {name: Secret(key) for name, key in keys.items()})
