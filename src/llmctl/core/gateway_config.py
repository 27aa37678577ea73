"""The gateway's configuration: one immutable object with a revision, swapped as a whole.

``apply`` builds it with the pure functions at the end, ``GatewayControl`` publishes it, the gateway
serves it and gives it back when asked. Secrets are not in it: an upstream names the secret it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from llmctl.core.digests import Json, revision

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Upstream:
    """One endpoint revision as the gateway reaches it: OpenAI-compatible servers that answer alike."""

    endpoint: str  # endpoint name
    revision: str  # endpoint revision
    base_urls: tuple[str, ...]  # one a replica, each up to and including /v1
    model: str  # the model name that the upstream expects
    secret: str = ""  # name of the API key in the gateway's secrets file; "" when none is needed
    timeout_s: float = 60.0

    def to_json(self) -> dict[str, Json]:
        return {
            "endpoint": self.endpoint,
            "revision": self.revision,
            "base_urls": list(self.base_urls),
            "model": self.model,
            "secret": self.secret,
            "timeout_s": float(self.timeout_s),  # 60 and 60.0 are one configuration, so one revision
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Upstream:
        return cls(
            endpoint=data["endpoint"],
            revision=data["revision"],
            base_urls=_addresses(data),
            model=data["model"],
            secret=data.get("secret", ""),
            timeout_s=float(data.get("timeout_s", 60.0)),
        )


def _addresses(data: Mapping[str, Json]) -> tuple[str, ...]:
    """``base_urls``, or the one ``base_url`` of configurations from before replicas."""
    return tuple(data["base_urls"]) if "base_urls" in data else (data["base_url"],)


@dataclass(frozen=True, slots=True)
class RouteRevision:
    """One revision of a route: its prompt and the upstreams to try, in order."""

    revision: str
    messages: tuple[Mapping[str, str], ...]  # {"role", "content"}: templates
    variables: Mapping[str, str]  # name: type ("string", "number", "boolean", "list", "object")
    parameters: Mapping[str, Json]  # temperature, max_tokens …: defaults that the client may override
    upstreams: tuple[Upstream, ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "revision": self.revision,
            "messages": [dict(m) for m in self.messages],
            "variables": dict(self.variables),
            "parameters": dict(self.parameters),
            "upstreams": [u.to_json() for u in self.upstreams],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> RouteRevision:
        return cls(
            revision=data["revision"],
            messages=tuple(dict(m) for m in data["messages"]),
            variables=dict(data["variables"]),
            parameters=dict(data["parameters"]),
            upstreams=tuple(Upstream.from_json(u) for u in data["upstreams"]),
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """Who shifts a route right now. The gateway goes back to the promoted revision when it lapses."""

    serial: int
    fence: int
    expires_at: float  # seconds since the epoch

    def to_json(self) -> dict[str, Json]:
        return {"serial": self.serial, "fence": self.fence, "expires_at": float(self.expires_at)}


@dataclass(frozen=True, slots=True)
class Route:
    """A route with its live revisions. ``weights`` are percent of public traffic and sum to 100.

    A revision without weight is *staged*: only the gate's token reaches it, as ``name@revision``.
    ``weights`` is empty while nothing is promoted yet. ``lease`` is set while weights differ from
    100 % of ``promoted``. ``aliases`` are names that the route had before: clients may still ask for them.
    """

    name: str
    revisions: Mapping[str, RouteRevision]
    weights: Mapping[str, int] = field(default_factory=dict)
    promoted: str = ""
    lease: Lease | None = None
    aliases: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        return {
            "revisions": {k: v.to_json() for k, v in self.revisions.items()},
            "weights": dict(self.weights),
            "promoted": self.promoted,
            "lease": self.lease.to_json() if self.lease else None,
            "aliases": list(self.aliases),
        }

    @classmethod
    def from_json(cls, name: str, data: Mapping[str, Json]) -> Route:
        lease = data.get("lease")
        return cls(
            name=name,
            revisions={k: RouteRevision.from_json(v) for k, v in data["revisions"].items()},
            weights={k: int(v) for k, v in data["weights"].items()},
            promoted=data.get("promoted", ""),
            lease=Lease(int(lease["serial"]), int(lease["fence"]), float(lease["expires_at"])) if lease else None,
            aliases=tuple(data.get("aliases") or ()),
        )


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """All that one gateway serves. ``serial`` is of the apply that published it, ``fence`` orders writers."""

    environment: str
    serial: int = 0
    fence: int = 0
    routes: Mapping[str, Route] = field(default_factory=dict)

    @property
    def revision(self) -> str:
        """Names this configuration as a whole; the read-back is compared with it."""
        return revision(self.to_json())

    def to_json(self) -> dict[str, Json]:
        return {
            "format": FORMAT,
            "environment": self.environment,
            "serial": self.serial,
            "fence": self.fence,
            "routes": {name: route.to_json() for name, route in self.routes.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> GatewayConfig:
        """Read a configuration; raises ``ValueError``, ``KeyError`` or ``TypeError`` on another form."""
        if data["format"] != FORMAT:
            raise ValueError(f"gateway configuration format {data['format']} is not known; this is {FORMAT}")
        return cls(
            environment=data["environment"],
            serial=int(data["serial"]),
            fence=int(data["fence"]),
            routes={name: Route.from_json(name, r) for name, r in data["routes"].items()},
        )


def with_route(config: GatewayConfig, route: Route) -> GatewayConfig:
    """Put a whole route in place of the one of that name."""
    return replace(config, routes={**config.routes, route.name: route})


def staged(config: GatewayConfig, name: str, revision: RouteRevision) -> GatewayConfig:
    """Add a route revision without public traffic."""
    route = config.routes.get(name, Route(name, {}))
    return with_route(config, replace(route, revisions={**route.revisions, revision.revision: revision}))


def shifted(config: GatewayConfig, name: str, weights: Mapping[str, int], lease: Lease) -> GatewayConfig:
    """Split a route's public traffic, not promoted yet."""
    return with_route(config, replace(config.routes[name], weights=dict(weights), lease=lease))


def promoted(config: GatewayConfig, name: str, revision: str, *keep: str) -> GatewayConfig:
    """Give a route revision all traffic for good. Of the others only those to ``keep`` stay staged."""
    route = config.routes[name]
    rest = {k: v for k, v in route.revisions.items() if k == revision or k in keep}
    return with_route(config, replace(route, revisions=rest, weights={revision: 100}, promoted=revision, lease=None))


def shifted_back(config: GatewayConfig, name: str) -> GatewayConfig:
    """Give the promoted revision all traffic again; a route that never had one gets no traffic."""
    route = config.routes[name]
    weights = {route.promoted: 100} if route.promoted else {}
    return with_route(config, replace(route, weights=weights, lease=None))


def without_revision(config: GatewayConfig, name: str, revision: str) -> GatewayConfig:
    """Take a route revision away; the route goes with its last one."""
    route = config.routes.get(name)
    if route is None:
        return config
    rest = {k: v for k, v in route.revisions.items() if k != revision}
    if not rest:
        return without_route(config, name)
    weights = {k: v for k, v in route.weights.items() if k != revision}
    return with_route(
        config,
        replace(route, revisions=rest, weights=weights, promoted="" if route.promoted == revision else route.promoted),
    )


def without_route(config: GatewayConfig, name: str) -> GatewayConfig:
    """Take a whole route away."""
    return replace(config, routes={k: v for k, v in config.routes.items() if k != name})


def with_aliases(config: GatewayConfig, name: str, aliases: Iterable[str]) -> GatewayConfig:
    """Let a route answer to these names too, and to no others. An alias that another route had moves over."""
    taken = frozenset(aliases) - {name}
    routes = {
        k: replace(route, aliases=tuple(a for a in route.aliases if a not in taken))
        if not taken.isdisjoint(route.aliases)
        else route
        for k, route in config.routes.items()
    }
    routes[name] = replace(config.routes[name], aliases=tuple(sorted(taken)))
    return replace(config, routes=routes)


def renamed(config: GatewayConfig, old: str, new: str, aliases: Iterable[str]) -> GatewayConfig:
    """Give a route another name, with all that it serves; ``aliases`` as in ``with_aliases``.

    A configuration in which that is done already only gets the aliases. Raises ``KeyError`` when there is
    neither name, ``ValueError`` when both are there: that would take a route away.
    """
    if old in config.routes:
        if new in config.routes:
            raise ValueError(f"route {old} cannot become {new}: there is another route of that name")
        moved = replace(config.routes[old], name=new)
        config = with_route(without_route(config, old), moved)
    return with_aliases(config, new, aliases)
