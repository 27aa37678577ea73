"""Endpoints and routes: what serves a model, and what clients call."""

from __future__ import annotations

from itertools import pairwise
from urllib.parse import urlsplit

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.resources import Resource
from llmctl.spec.build import Build
from llmctl.spec.durations import DAY, seconds
from llmctl.spec.models import EndpointShape, ExternalOptions, LlamaOptions, RouteShape
from llmctl.spec.nodes import Location
from llmctl.spec.view import validated

_DEFAULT_CONTEXT = 2048  # tokens
_MAX_LOCAL_COPIES = 8  # of one endpoint
_OPENAI_HOST = "api.openai.com"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def resolve_endpoint(build: Build, name: str, shape: EndpointShape) -> None:
    """Check that engine, options and model fit together, and add the endpoint."""
    here: Location = ("endpoints", name)
    external = shape.engine == "external"
    options = _options(build, here, shape)
    _check_replicas(build, here, shape)
    timeouts = _timeouts(build, here, shape)
    if external and shape.context is not None:
        hint = "Remove it; the API decides."
        build.report.error((*here, "context"), "`context` is for the engine llama.cpp only", hint=hint, at_key=True)
    model = build.get("model", shape.model)
    if model is None or options is None:
        return
    remote = "remote" in model.spec["weights"]
    if remote != external:
        is_a = "a hosted model" if remote else "a file"
        hint = f"Use `engine: {'external' if remote else 'llama.cpp'}`, or another model."
        summary = f"engine {shape.engine} cannot serve model `{shape.model}`, which is {is_a}"
        build.report.error((*here, "engine"), summary, hint=hint)
        return
    context = None if external else shape.context or _DEFAULT_CONTEXT
    trained = build.trained_contexts.get(shape.model, 0)
    if context and trained and context > trained:
        written = "" if shape.context else " (the default)"
        summary = f"context {context}{written} is larger than the {trained} tokens that the model was trained for"
        build.report.warn((*here, "context"), summary, hint=f"Set `context: {trained}` or less.")
    if external:
        _check_url(build, here, options, model)
    build.add(
        "endpoint",
        name,
        shape,
        {
            "model": shape.model,
            "model_revision": model.revision,
            "engine": shape.engine,
            "context": context,
            "options": options,
            "replicas": shape.replicas.model_dump(),
            "timeouts": timeouts,
            "weights": model.spec["weights"],
            "api_key": model.spec["api_key"],
        },
        (model.address,),
    )


def _options(build: Build, here: Location, shape: EndpointShape) -> dict[str, Json] | None:
    """The engine's options with their defaults; ``None`` when they are not well-formed."""
    engine = ExternalOptions if shape.engine == "external" else LlamaOptions
    checked = validated(build.report, engine, (*here, "options"), shape.options)
    return None if checked is None else checked.model_dump(exclude_none=True)


def _check_replicas(build: Build, here: Location, shape: EndpointShape) -> None:
    least, most = shape.replicas.min, shape.replicas.max
    if least > most:
        summary = f"`min` ({least}) is greater than `max` ({most})"
        build.report.error((*here, "replicas", "min"), summary, hint="Set both to the number of copies.", at_key=True)
    elif shape.engine == "external" and most > 1:
        summary = "an external endpoint has one copy: the API scales by itself"
        build.report.error((*here, "replicas"), summary, hint="Remove `replicas`.", at_key=True)
    elif least != most:
        summary = f"target {build.target} does not scale by itself: `min` ({least}) and `max` ({most}) must be equal"
        hint = f"Write `replicas: {{min: {most}, max: {most}}}`."
        build.report.error((*here, "replicas"), summary, hint=hint, at_key=True)
    elif most > _MAX_LOCAL_COPIES:
        summary = f"target {build.target} runs at most {_MAX_LOCAL_COPIES} copies of an endpoint, not {most}"
        build.report.error((*here, "replicas"), summary, hint="Ask for fewer, or raise `options.slots`.", at_key=True)


def _timeouts(build: Build, here: Location, shape: EndpointShape) -> dict[str, Json]:
    location, timeouts = (*here, "timeouts"), shape.timeouts
    if shape.engine == "external" and "ready" in timeouts.model_fields_set:
        summary = "`ready` is for the engine llama.cpp only: an external endpoint is not started"
        build.report.error((*location, "ready"), summary, hint="Remove it.", at_key=True)
    return {
        "ready_s": seconds(build.report, (*location, "ready"), timeouts.ready, 1.0, DAY),
        "drain_s": seconds(build.report, (*location, "drain"), timeouts.drain, 0.0, DAY),
    }


def _check_url(build: Build, here: Location, options: dict[str, Json], model: Resource) -> None:
    location: Location = (*here, "options", "base_url")
    hint = "Write the address up to and including /v1, for example https://api.openai.com/v1."
    text = options["base_url"]
    try:
        url = urlsplit(text)
        host, _ = url.hostname or "", url.port
    except ValueError:
        build.report.error(location, "`base_url` is not an address", hint=hint)
        return
    if url.username is not None or url.password is not None:
        secret = "Remove it, and give the model an `api_key` reference."
        build.report.error(location, "`base_url` holds a user name or password", hint=secret)
    elif url.scheme not in ("http", "https") or not host or url.query or url.fragment or text.split() != [text]:
        build.report.error(location, "`base_url` is not an address of the form http(s)://host/path", hint=hint)
    options["base_url"] = text.rstrip("/")
    if model.spec["api_key"] and url.scheme == "http" and host not in _LOOPBACK:
        build.report.warn(location, "the API key would be sent unencrypted", hint="Use https.")
    if not model.spec["api_key"] and host == _OPENAI_HOST:
        summary = f"{host} needs an API key, and model `{model.address.name}` has none"
        build.report.warn((*here, "model"), summary, hint='Give the model `api_key: "${env:OPENAI_API_KEY}"`.')


def resolve_route(build: Build, name: str, shape: RouteShape) -> None:
    """Put prompt and endpoints together, and add the route."""
    here: Location = ("routes", name)
    names = [shape.endpoint, *shape.fallback]
    for index, fallback in enumerate(shape.fallback):
        if fallback in names[: index + 1]:
            summary = f"endpoint `{fallback}` is in the chain already"
            build.report.error((*here, "fallback", index), summary, hint="Name each endpoint once.")
    rollout = _rollout(build, here, shape)
    prompt = build.get("prompt", shape.prompt)
    chain = [build.get("endpoint", endpoint) for endpoint in names]
    if prompt is None or None in chain:
        return
    endpoints = [endpoint for endpoint in chain if endpoint]
    build.add(
        "route",
        name,
        shape,
        {
            "prompt": shape.prompt,
            "endpoint": shape.endpoint,
            "fallback": shape.fallback,
            "prompt_revision": prompt.revision,
            "template": {key: prompt.spec[key] for key in ("messages", "variables", "parameters")},
            "chain": [{"endpoint": e.address.name, "revision": e.revision, "spec": e.spec} for e in endpoints],
            "chain_revisions": [f"{e.address.name}@{e.revision}" for e in endpoints],
            "rollout": rollout,
            "aliases": build.aliases.get(name, []),
        },
        (prompt.address, *(Address("endpoint", e) for e in names)),
    )


def _rollout(build: Build, here: Location, shape: RouteShape) -> dict[str, Json]:
    location, canary = (*here, "rollout"), shape.rollout.canary
    if canary[-1] != 100 or canary[0] < 1 or any(a >= b for a, b in pairwise(canary)):
        summary = "`canary` must rise from 1 or more to 100"
        build.report.error((*location, "canary"), summary, hint="For example `[10, 50, 100]`.", at_key=True)
    return {"canary": canary, "hold_s": seconds(build.report, (*location, "hold"), shape.rollout.hold, 0.0, DAY)}
