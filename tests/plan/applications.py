"""Random applications in short form: names, what decides their revisions, and edits of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.kinds import kind_of
from llmctl.core.resources import Desired, Resource
from tests.plan.builders import ENVIRONMENT

# Not shrunk: that takes minutes here. To shrink a failure, give it Phase.shrink as well.


@dataclass(frozen=True)
class App:
    """An application in short: names and what decides their revisions."""

    models: Mapping[str, tuple[int, bool]]  # weights, needs an API key (an operating field)
    prompts: Mapping[str, int]
    datasets: Mapping[str, int]
    endpoints: Mapping[str, tuple[str, int, int]]  # model, context, replicas (an operating field)
    routes: Mapping[str, tuple[str, tuple[str, ...]]]  # prompt, endpoint and fallbacks
    gates: Mapping[str, tuple[str, str, int]]  # route, dataset, threshold in percent
    policies: Mapping[str, str]
    canary: tuple[int, ...] = (100,)  # of every route (an operating field)
    moved: tuple[tuple[Address, Address], ...] = ()

    def desired(self) -> Desired:
        found: dict[Address, Resource] = {}

        def add(kind: str, name: str, spec: dict[str, Any], *needs: Address) -> None:
            address = Address(kind, name)
            found[address] = Resource(address, spec, kind_of(kind).revision(spec), needs)

        for name, content in self.datasets.items():
            add("dataset", name, {"source": name, "format": "jsonl", "digest": f"d{content}", "columns": None})
        for name, (weights, key) in self.models.items():
            add("model", name, {"source": name, "weights": {"digest": f"w{weights}"}, "api_key": _key(key)})
        for name, text in self.prompts.items():
            add("prompt", name, {"messages": [{"role": "user", "content": f"t{text}"}], **_PLAIN})
        for name, (model, context, replicas) in self.endpoints.items():
            add("endpoint", name, _endpoint(found, model, context, replicas), Address("model", model))
        for name, (prompt, chain) in self.routes.items():
            needs = (Address("prompt", prompt), *(Address("endpoint", e) for e in chain))
            aliases = sorted(old.name for old, new in self.moved if new == Address("route", name))
            more = {"rollout": {"canary": list(self.canary), "hold_s": 0.0}, "aliases": aliases}
            add("route", name, _route(found, prompt, chain) | more, *needs)
        for name, (route, dataset, percent) in self.gates.items():
            needs = (Address("route", route), Address("dataset", dataset))
            add("gate", name, _gate(found, route, dataset, percent), *needs)
        for name, message in self.policies.items():
            add("policy", name, {"applies_to": "model", "require": "true", "severity": "warn", "message": message})
        return Desired("acme", ENVIRONMENT, found, "/project", self.moved)

    def renamed(self, kind: str, old: str, new: str) -> App:
        """The same application with another name for one resource, wherever it is named."""

        def to(here: str, name: str) -> str:
            return new if (here, name) == (kind, old) else name

        def keys(here: str, section: Mapping[str, Any]) -> dict[str, Any]:
            return {to(here, name): value for name, value in section.items()}

        return App(
            models=keys("model", self.models),
            prompts=keys("prompt", self.prompts),
            datasets=keys("dataset", self.datasets),
            endpoints={to("endpoint", n): (to("model", m), *rest) for n, (m, *rest) in self.endpoints.items()},  # type: ignore[misc]
            routes={
                to("route", n): (to("prompt", p), tuple(to("endpoint", e) for e in chain))
                for n, (p, chain) in self.routes.items()
            },
            gates={to("gate", n): (to("route", r), to("dataset", d), t) for n, (r, d, t) in self.gates.items()},
            policies=keys("policy", self.policies),
            canary=self.canary,
            moved=(*self.moved, (Address(kind, old), Address(kind, new))),
        )


_PLAIN: dict[str, Json] = {"variables": {}, "parameters": {}}


def _key(needed: bool) -> Json:
    return {"env": "API_KEY"} if needed else None


def _endpoint(found: Mapping[Address, Resource], model: str, context: int, replicas: int) -> dict[str, Json]:
    used = found[Address("model", model)]
    return {
        "model": model,
        "model_revision": used.revision,
        "engine": "llama.cpp",
        "context": context,
        "options": {},
        "replicas": {"min": replicas, "max": replicas},
        "weights": used.spec["weights"],
        "api_key": used.spec["api_key"],
    }


def _route(found: Mapping[Address, Resource], prompt: str, chain: tuple[str, ...]) -> dict[str, Json]:
    said = found[Address("prompt", prompt)]
    links = [found[Address("endpoint", name)] for name in chain]
    return {
        "prompt": prompt,
        "endpoint": chain[0],
        "fallback": list(chain[1:]),
        "prompt_revision": said.revision,
        "template": said.spec,
        "chain": [{"endpoint": e.address.name, "revision": e.revision, "spec": e.spec} for e in links],
        "chain_revisions": [f"{e.address.name}@{e.revision}" for e in links],
    }


def _gate(found: Mapping[Address, Resource], route: str, dataset: str, percent: int) -> dict[str, Json]:
    rows = found[Address("dataset", dataset)]
    return {
        "route": route,
        "dataset": dataset,
        "dataset_revision": rows.revision,
        "dataset_digest": rows.spec["digest"],
        "dataset_format": "jsonl",
        "inputs": {},
        "expected": "answer",
        "metrics": {"exact_match": {"min": percent / 100}},
        "confidence": 0.95,
    }


# Few names and few values: two draws then share much, and differ by edits, renames, additions and deletions.
_NAMES = ("a", "b", "c")
_SMALL = st.integers(0, 1)


def _named(values: st.SearchStrategy[Any], least: int = 0, most: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(_NAMES[: most + 1]), values, min_size=least, max_size=most)


@st.composite
def applications(draw: st.DrawFn, like: App | None = None) -> App:
    """Any application, or an edit of ``like``: each of its sections is kept or drawn anew."""

    def section(name: str, drawn: st.SearchStrategy[dict[str, Any]], valid: Callable[[Any], bool]) -> dict[str, Any]:
        kept = dict(getattr(like, name)) if like else {}
        if like and draw(st.booleans()) and all(valid(v) for v in kept.values()):
            return kept
        return draw(drawn)

    models = section("models", _named(st.tuples(_SMALL, st.booleans()), 1), lambda _: True)
    prompts = section("prompts", _named(_SMALL, 1), lambda _: True)
    datasets = section("datasets", _named(_SMALL, 1), lambda _: True)
    uses = st.tuples(st.sampled_from(sorted(models)), st.sampled_from((256, 512)), st.sampled_from((1, 3)))
    endpoints = section("endpoints", _named(uses, 1, 3), lambda v: v[0] in models)
    chain = st.lists(st.sampled_from(sorted(endpoints)), min_size=1, max_size=2, unique=True).map(tuple)
    paths = st.tuples(st.sampled_from(sorted(prompts)), chain)
    routes = section("routes", _named(paths, 0, 3), lambda v: v[0] in prompts and set(v[1]) <= set(endpoints))
    gates: dict[str, Any] = {}
    if routes:
        proofs = st.tuples(
            st.sampled_from(sorted(routes)), st.sampled_from(sorted(datasets)), st.sampled_from((80, 90))
        )
        gates = section("gates", _named(proofs), lambda v: v[0] in routes and v[1] in datasets)
    policies = section("policies", _named(st.sampled_from(("no", "never")), 0, 1), lambda _: True)
    canary = draw(st.sampled_from(((100,), (10, 50, 100))))
    return App(models, prompts, datasets, endpoints, routes, gates, policies, canary)


@st.composite
def renames(draw: st.DrawFn, app: App) -> App:
    """An application in which a few resources have other names, and ``moved`` says so."""
    known = [(a.kind, a.name) for a in sorted(app.desired().resources)]
    chosen = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
    for number, (kind, old) in enumerate(chosen):
        app = app.renamed(kind, old, f"new{number}")
    return app
