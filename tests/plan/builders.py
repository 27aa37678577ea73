"""Small resources for plan tests: a route on an endpoint on a model, a prompt, a dataset, a gate, a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.gateway_config import GatewayConfig, Route
from llmctl.core.kinds import kind_of
from llmctl.core.protocols import GatewayReading
from llmctl.core.resources import Desired, Environment, Key, Live, Reading, Recorded, RecordState, Resource
from llmctl.live import LiveState
from llmctl.plan.routes import chain_keys, route_revision

ENVIRONMENT = Environment("dev", "local")


def application(
    *,
    system: str = "Be brief.",
    weights: str = "w1",
    rows: str = "d1",
    minimum: float = 0.9,
    license: str = "MIT",
    fallback: bool = False,
) -> dict[Address, Resource]:
    """A whole application; each argument changes one resource."""
    found: dict[Address, Resource] = {}

    def add(kind: str, name: str, spec: dict[str, Any], *needs: str) -> str:
        address = Address(kind, name)
        revision = kind_of(kind).revision(spec)
        found[address] = Resource(address, spec, revision, tuple(Address.parse(n) for n in needs))
        return revision

    dataset = add("dataset", "faq", {"source": "faq.jsonl", "format": "jsonl", "digest": rows, "columns": None})
    model = add("model", "tiny", {"source": "m.gguf", "weights": {"digest": weights}, "license": license})
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "{{ question }}"}]
    template = {"messages": messages, "variables": {"question": "string"}, "parameters": {"temperature": 0}}
    prompt = add("prompt", "answer", template)
    chain = []
    for name in ("main", "spare") if fallback else ("main",):
        spec = {
            "model": "tiny",
            "model_revision": model,
            "engine": "llama.cpp",
            "context": 512,
            "options": {"slots": 2},
        }
        revision = add("endpoint", name, spec | {"name": name} if name == "spare" else spec, "model.tiny")
        chain.append({"endpoint": name, "revision": revision, "spec": spec})
    route = {
        "prompt": "answer",
        "endpoint": "main",
        "fallback": ["spare"] if fallback else [],
        "prompt_revision": prompt,
        "template": template,
        "chain": chain,
        "chain_revisions": [f"{c['endpoint']}@{c['revision']}" for c in chain],
    }
    add("route", "support", route, "prompt.answer", *(f"endpoint.{c['endpoint']}" for c in chain))
    gate = {
        "route": "support",
        "dataset": "faq",
        "dataset_revision": dataset,
        "dataset_digest": rows,
        "dataset_format": "jsonl",
        "inputs": {"question": "question"},
        "expected": "answer",
        "metrics": {"exact_match": {"min": minimum, "max_drop": 0.02}},
        "confidence": 0.95,
    }
    add("gate", "faq", gate, "route.support", "dataset.faq")
    add("policy", "open", {"applies_to": "model", "require": "true", "severity": "deny", "message": "no"})
    return found


def desired(resources: Mapping[Address, Resource]) -> Desired:
    return Desired("acme", ENVIRONMENT, resources, "/project")


def recorded(resources: Mapping[Address, Resource], serial: int = 1, **more: Any) -> RecordState:
    """The record after exactly these resources were applied once."""
    entries = {a: Recorded(a, r.spec, r.revision, 1, r.needs, (r.revision,)) for a, r in resources.items()}
    return RecordState("dev", serial, "c0ffee", resources=entries, project="acme", **more)


def live(resources: Mapping[Address, Resource], serial: int = 1) -> LiveState:
    """Everything runs exactly as these resources say."""
    readings: dict[str, Reading[Json]] = {}
    for kind in ("dataset", "model", "prompt", "endpoint"):
        found = {}
        for address, resource in resources.items():
            if address.kind == kind:
                key = Key(address.name, resource.revision)
                outputs = {"base_url": f"http://127.0.0.1/{key}/v1", "model": str(key), "secret": ""}
                found[key] = Live[Json](key, resource.spec, key.revision, outputs=outputs if kind == "endpoint" else {})
        readings[kind] = Reading(found)
    state = LiveState(readings)
    outputs_of = state.endpoint_outputs()
    routes = {
        a.name: Route(
            a.name, {r.revision: route_revision(r.spec, r.revision, outputs_of)}, {r.revision: 100}, r.revision
        )
        for a, r in resources.items()
        if a.kind == "route" and all(key in outputs_of for key in chain_keys(r.spec))
    }
    config = GatewayConfig("dev", serial, 1, routes)
    return LiveState(readings, GatewayReading(True, {"local": config}, base_url="http://127.0.0.1:1"))


NOTHING = LiveState({kind: Reading() for kind in ("dataset", "model", "prompt", "endpoint")})
