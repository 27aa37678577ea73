"""Small resources for plan tests: a route on an endpoint on a model, a prompt, a dataset, a gate, a policy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
    replicas: int = 1,
    canary: tuple[int, ...] = (100,),
    hold_s: float = 0.0,
    gate: Mapping[str, Any] | None = None,
    policy: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
    aliases: tuple[str, ...] = (),
    protected: Collection[str] = (),
) -> dict[Address, Resource]:
    """A whole application; each argument changes one resource.

    ``names`` gives other names, by address; ``protected`` are addresses; ``gate`` and ``policy`` replace fields.
    """
    found: dict[Address, Resource] = {}

    def named(address: str) -> str:
        return (names or {}).get(address, address.partition(".")[2])

    def add(address: str, spec: dict[str, Any], *needs: str) -> str:
        kind = address.partition(".")[0]
        here = Address(kind, named(address))
        spec["protect"] = address in protected
        wanted = tuple(Address(n.partition(".")[0], named(n)) for n in needs)
        found[here] = Resource(here, spec, kind_of(kind).revision(spec), wanted)
        return found[here].revision

    dataset = add("dataset.faq", {"source": "faq.jsonl", "format": "jsonl", "digest": rows, "columns": None})
    model = add("model.tiny", {"source": "m.gguf", "weights": {"digest": weights}, "license": license})
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "{{ question }}"}]
    template = {"messages": messages, "variables": {"question": "string"}, "parameters": {"temperature": 0}}
    prompt = add("prompt.answer", dict(template))
    chain = []
    for name in ("main", "spare") if fallback else ("main",):
        spec = {
            "model": named("model.tiny"),
            "model_revision": model,
            "engine": "llama.cpp",
            "context": 512,
            "options": {"slots": 2},
            "replicas": {"min": replicas, "max": replicas},
        }
        revision = add(f"endpoint.{name}", spec, "model.tiny")
        chain.append({"endpoint": named(f"endpoint.{name}"), "revision": revision, "spec": spec})
    route = {
        "prompt": named("prompt.answer"),
        "endpoint": chain[0]["endpoint"],
        "fallback": [c["endpoint"] for c in chain[1:]],
        "prompt_revision": prompt,
        "template": template,
        "chain": chain,
        "chain_revisions": [f"{c['endpoint']}@{c['revision']}" for c in chain],
        "rollout": {"canary": list(canary), "hold_s": hold_s},
        "aliases": list(aliases),
    }
    add("route.support", route, "prompt.answer", *(f"endpoint.{n}" for n in ("main", "spare")[: len(chain)]))
    proof = {
        "route": named("route.support"),
        "dataset": named("dataset.faq"),
        "dataset_revision": dataset,
        "dataset_digest": rows,
        "dataset_format": "jsonl",
        "inputs": {"question": "question"},
        "expected": "answer",
        "metrics": {"exact_match": {"min": minimum, "max_drop": 0.02}},
        "slices": {},
        "confidence": 0.95,
    }
    add("gate.faq", {**proof, **(gate or {})}, "route.support", "dataset.faq")
    rule = {"applies_to": "model", "require": "true", "severity": "deny", "message": "no", "waivers": []}
    add("policy.open", {**rule, **(policy or {})})
    return found


def without(resources: Mapping[Address, Resource], *addresses: str) -> dict[Address, Resource]:
    """The same resources but these."""
    return {a: r for a, r in resources.items() if str(a) not in addresses}


def desired(resources: Mapping[Address, Resource], *moved: tuple[str, str]) -> Desired:
    """``moved`` are pairs of addresses, from and to."""
    pairs = tuple((Address.parse(old), Address.parse(new)) for old, new in moved)
    return Desired("acme", ENVIRONMENT, resources, "/project", pairs)


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
                urls = (
                    [f"http://127.0.0.1/{key}/{n}/v1" for n in range(resource.spec["replicas"]["min"])]
                    if (kind == "endpoint")
                    else [""]
                )
                outputs = {"base_url": urls[0], "base_urls": urls, "model": str(key), "secret": ""}
                found[key] = Live[Json](key, resource.spec, key.revision, outputs=outputs if kind == "endpoint" else {})
        readings[kind] = Reading(found)
    state = LiveState(readings)
    outputs_of = state.endpoint_outputs()
    routes = {
        a.name: Route(
            a.name,
            {r.revision: route_revision(r.spec, r.revision, outputs_of)},
            {r.revision: 100},
            r.revision,
            aliases=tuple(r.spec.get("aliases", ())),
        )
        for a, r in resources.items()
        if a.kind == "route" and all(key in outputs_of for key in chain_keys(r.spec))
    }
    config = GatewayConfig("dev", serial, 1, routes)
    return LiveState(readings, GatewayReading(True, {"local": config}, base_url="http://127.0.0.1:1"))


NOTHING = LiveState({kind: Reading() for kind in ("dataset", "model", "prompt", "endpoint")})
