"""Whether a configuration can be served at all: judged before it is taken, not at a client's request."""

from __future__ import annotations

import math
import re
from functools import lru_cache

from yarl import URL

from llmctl.core.address import NAME
from llmctl.core.digests import Json
from llmctl.core.gateway_config import GatewayConfig, Route, RouteRevision, Upstream
from llmctl.core.prompts import VARIABLE_TYPES, PromptError, template_variables

#: A revision is part of a model name (`support@…`) and of response headers.
_REVISION = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_NOT_A_PARAMETER = ("model", "messages", "prompt_variables", "stream")


#: The templates of a configuration are mostly those of the one before.
variables_of = lru_cache(maxsize=16_384)(template_variables)


class BadConfig(ValueError):
    """A configuration that cannot be served; the message says where and why."""


def read_config(data: Json) -> GatewayConfig:
    """The configuration in ``data``; raises ``BadConfig`` when it is malformed or cannot be served."""
    if not isinstance(data, dict):
        raise BadConfig("the configuration must be a JSON object")
    try:
        config = GatewayConfig.from_json(data)
        _check(config)
        config.revision  # noqa: B018  raises for what has no digest: NaN, text that is not Unicode
    except BadConfig:
        raise
    except KeyError as error:
        raise BadConfig(f"the key {error} is missing in the configuration") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BadConfig(f"the configuration is malformed: {error}") from None
    return config


def _check(config: GatewayConfig) -> None:
    if not isinstance(config.environment, str):
        raise BadConfig("environment must be a string")
    asked_as: dict[str, str] = {}
    for name, route in config.routes.items():
        for known_as in (name, *route.aliases):
            if not isinstance(known_as, str) or not NAME.match(known_as):
                raise BadConfig(f"{known_as!r} is not a route's name")
        for alias in route.aliases:
            if asked_as.setdefault(alias, name) != name:
                raise BadConfig(f"{alias} is an alias of two routes, {asked_as[alias]} and {name}")
        _check_route(route, f"route {name}")


def _check_route(route: Route, where: str) -> None:
    for key, revision in route.revisions.items():
        if key != revision.revision or not isinstance(key, str) or not _REVISION.match(key):
            raise BadConfig(f"{where}: {key!r} is not the name of the revision that stands under it")
        _check_revision(revision, f"{where}@{key}")
    known = set(route.revisions)
    if route.promoted and route.promoted not in known:
        raise BadConfig(f"{where}: the promoted revision {route.promoted} is not among its revisions")
    if not set(route.weights) <= known:
        raise BadConfig(f"{where}: there is a weight for a revision that it does not have")
    if route.weights and (min(route.weights.values()) < 0 or sum(route.weights.values()) != 100):
        raise BadConfig(f"{where}: its weights must be percent and sum to 100")
    share = {r: w for r, w in route.weights.items() if w}
    if share and share != {route.promoted: 100} and route.lease is None:
        raise BadConfig(f"{where}: a split that is not promoted needs a lease")
    if route.lease and not math.isfinite(route.lease.expires_at):
        raise BadConfig(f"{where}: its lease must expire at a time")


def _check_revision(revision: RouteRevision, where: str) -> None:
    for message in revision.messages:
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise BadConfig(f"{where}: a prompt message needs a role and a content, both strings")
        try:
            variables_of(message["content"])
        except PromptError as error:
            raise BadConfig(f"{where}: {error}") from None
    for name, kind in revision.variables.items():
        if kind not in VARIABLE_TYPES:
            raise BadConfig(f"{where}: variable {name} is declared as {kind!r}; one of {', '.join(VARIABLE_TYPES)}")
    for key in _NOT_A_PARAMETER:
        if key in revision.parameters:
            raise BadConfig(f"{where}: {key} cannot be a prompt's parameter")
    if not revision.upstreams:
        raise BadConfig(f"{where}: it has no upstream")
    for upstream in revision.upstreams:
        _check_upstream(upstream, where)


def _check_upstream(upstream: Upstream, where: str) -> None:
    for value in (upstream.endpoint, upstream.revision):
        if not isinstance(value, str) or not _REVISION.match(value):
            raise BadConfig(f"{where}: {value!r} does not name an endpoint or its revision")
    if not isinstance(upstream.model, str) or not isinstance(upstream.secret, str):
        raise BadConfig(f"{where}: an upstream's model and secret must be strings")
    if not upstream.base_urls:
        raise BadConfig(f"{where}: endpoint {upstream.endpoint} has no address")
    for address in upstream.base_urls:
        url = URL(address)
        if url.scheme not in ("http", "https") or not url.host:
            raise BadConfig(f"{where}: the base_urls of endpoint {upstream.endpoint} must be http or https addresses")
        if url.user or url.password:
            raise BadConfig(f"{where}: the base_urls of endpoint {upstream.endpoint} hold a credential; name a secret")
    if not (math.isfinite(upstream.timeout_s) and upstream.timeout_s > 0):
        raise BadConfig(f"{where}: timeout_s of endpoint {upstream.endpoint} must be a positive number of seconds")
