"""From a route's resolved spec to what the gateway should serve, and how the two are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.gateway_config import GatewayConfig, Route, RouteRevision, Upstream
from llmctl.core.resources import Key, Recorded, Resource, Spec


def chain_keys(spec: Spec) -> tuple[Key, ...]:
    """The endpoint revisions that a route uses: its endpoint, then its fallbacks."""
    return tuple(Key(link["endpoint"], link["revision"]) for link in spec["chain"])


def endpoint_keys(resources: Mapping[Address, Resource] | Mapping[Address, Recorded]) -> frozenset[Key]:
    """Every endpoint revision that these resources need to be live: their own, and those that routes use."""
    keys: set[Key] = set()
    for address, resource in resources.items():
        if address.kind == "endpoint":
            keys.add(Key(address.name, resource.revision))
        elif address.kind == "route":
            keys.update(chain_keys(resource.spec))
    return frozenset(keys)


def route_revision(spec: Spec, revision: str, outputs: Mapping[Key, Mapping[str, Json]]) -> RouteRevision:
    """The gateway's form of a route revision. Raises ``KeyError`` for an endpoint revision that is not live.

    Of an endpoint's addresses only as many are taken as it is to have replicas: before one shrinks, the
    gateway must have forgotten the others.
    """
    upstreams = []
    for link in spec["chain"]:
        reached = outputs[Key(link["endpoint"], link["revision"])]
        upstreams.append(
            Upstream(
                endpoint=link["endpoint"],
                revision=link["revision"],
                base_urls=_addresses(link["spec"], reached),
                model=reached["model"],
                secret=reached.get("secret", ""),
                timeout_s=float(link["spec"]["options"].get("timeout_s", 60)),
            )
        )
    template = spec["template"]
    return RouteRevision(
        revision=revision,
        messages=tuple(template["messages"]),
        variables=template["variables"],
        parameters=template["parameters"],
        upstreams=tuple(upstreams),
    )


def _addresses(endpoint: Spec, reached: Mapping[str, Json]) -> tuple[str, ...]:
    found = tuple(reached.get("base_urls") or (reached["base_url"],))
    replicas = endpoint.get("replicas") or {}
    return found[: replicas.get("min") or len(found)]


def differences(
    route: Route | None, want: RouteRevision | None, revision: str, aliases: Iterable[str] = ()
) -> tuple[str, ...]:
    """How what the gateway serves for a route differs from the recorded revision; empty when it does not.

    ``want`` is None when the revision's endpoints are not all live; then only the shape is compared.
    ``aliases`` are the other names that it is to answer to.
    """
    if route is None:
        return ("the gateway does not serve it",)
    found: list[str] = []
    if route.promoted != revision:
        found.append(f"promoted is {route.promoted[:8] or 'nothing'}, recorded is {revision[:8]}")
    if dict(route.weights) != {revision: 100}:
        shares = ", ".join(f"{share} % {rev[:8]}" for rev, share in sorted(route.weights.items()))
        found.append(f"traffic is {shares or 'nothing'}, recorded is 100 % {revision[:8]}")
    if set(route.aliases) != set(aliases):
        names, wanted = (", ".join(sorted(some)) or "none" for some in (route.aliases, aliases))
        found.append(f"its aliases are {names}, recorded are {wanted}")
    for extra in sorted(set(route.revisions) - {revision}):
        found.append(f"an unrecorded revision {extra[:8]} is there")
    served = route.revisions.get(revision)
    if served is None:
        found.append(f"revision {revision[:8]} is not there")
    elif want is not None:
        found += _content_differences(served.to_json(), want.to_json())
    return tuple(found)


def _content_differences(served: Mapping[str, Json], want: Mapping[str, Json]) -> list[str]:
    return [f"its {field} were changed" for field in want if served.get(field) != want[field]]


def unrecorded_routes(config: GatewayConfig | None, known: set[str]) -> list[str]:
    """Names of routes that the gateway serves and nobody declared."""
    return sorted(set(config.routes) - known) if config else []
