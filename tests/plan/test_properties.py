"""Properties of plan and apply together: random applications, edits, faults and drift on a target in memory.

The real plan is interpreted by the real engine. Steps are shuffled before they run: the engine starts any
step whose needs are met, so that an order which only happened to be right does not hide a missing need.
Verdicts of gates are drawn; what they are made from is the gates' own business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st

from llmctl import live
from llmctl.apply import ApplyResult, Collected, Run, run_steps
from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.errors import LeaseLost, ProviderError, RecordError, TransientError
from llmctl.core.evidence import Evidence, Verdict
from llmctl.core.gateway_config import GatewayConfig, Route
from llmctl.core.kinds import kind_of
from llmctl.core.protocols import Change, GatewayReading, Op
from llmctl.core.resources import Desired, Key, Live, RecordState, Resource
from llmctl.core.steps import RunGate
from llmctl.gates import GateResult
from llmctl.plan import Plan, build_plan
from llmctl.plan.routes import chain_keys
from tests.apply.fakes import MemoryGateway, MemoryJournal, MemoryProvider, MemoryTarget
from tests.plan.builders import ENVIRONMENT

# Not shrunk: that takes minutes here. To shrink a failure, give it Phase.shrink as well.
EXAMPLES = settings(
    max_examples=50,
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)

# -- applications -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class App:
    """An application in short: names and what decides their revisions."""

    models: Mapping[str, tuple[int, bool]]  # weights, needs an API key (an operating field)
    prompts: Mapping[str, int]
    datasets: Mapping[str, int]
    endpoints: Mapping[str, tuple[str, int]]  # model, context
    routes: Mapping[str, tuple[str, tuple[str, ...]]]  # prompt, endpoint and fallbacks
    gates: Mapping[str, tuple[str, str, int]]  # route, dataset, threshold in percent
    policies: Mapping[str, str]

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
        for name, (model, context) in self.endpoints.items():
            add("endpoint", name, _endpoint(found, model, context), Address("model", model))
        for name, (prompt, chain) in self.routes.items():
            needs = (Address("prompt", prompt), *(Address("endpoint", e) for e in chain))
            add("route", name, _route(found, prompt, chain), *needs)
        for name, (route, dataset, percent) in self.gates.items():
            needs = (Address("route", route), Address("dataset", dataset))
            add("gate", name, _gate(found, route, dataset, percent), *needs)
        for name, message in self.policies.items():
            add("policy", name, {"applies_to": "model", "require": "true", "severity": "warn", "message": message})
        return Desired("acme", ENVIRONMENT, found, "/project")


_PLAIN: dict[str, Json] = {"variables": {}, "parameters": {}}


def _key(needed: bool) -> Json:
    return {"env": "API_KEY"} if needed else None


def _endpoint(found: Mapping[Address, Resource], model: str, context: int) -> dict[str, Json]:
    used = found[Address("model", model)]
    return {
        "model": model,
        "model_revision": used.revision,
        "engine": "llama.cpp",
        "context": context,
        "options": {},
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
    uses = st.tuples(st.sampled_from(sorted(models)), st.sampled_from((256, 512)))
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
    return App(models, prompts, datasets, endpoints, routes, gates, policies)


# -- a target that can fail -------------------------------------------------------------------------


@dataclass
class Faults:
    """Which effects fail, by their number: before they are made, or after, so that only the answer is lost.

    From effect ``dies_at`` on nothing works any more: the lock is lost, or the process is gone.
    """

    before: frozenset[int] = frozenset()
    after: frozenset[int] = frozenset()
    dies_at: int | None = None
    failing_gates: frozenset[str] = frozenset()
    count: int = 0

    def begin(self) -> int:
        self.check_lease()
        self.count += 1
        if self.count in self.before:
            raise TransientError(f"effect {self.count} fails")
        return self.count

    def end(self, number: int) -> None:
        if number in self.after:
            raise TransientError(f"the answer of effect {number} is lost")

    def check_lease(self) -> None:
        if self.dies_at is not None and self.count >= self.dies_at:
            raise LeaseLost("taken over")


@dataclass
class Artifacts(MemoryProvider):
    faults: Faults = field(default_factory=Faults)

    def create(self, op: Op, key: Key, want: Json) -> Live[Json]:
        number = self.faults.begin()
        made = super().create(op, key, want)
        self.faults.end(number)
        return made


@dataclass
class Engines(MemoryProvider):
    """Endpoints that need their model's content to start, and get a new port each time."""

    faults: Faults = field(default_factory=Faults)
    contents: Callable[[], set[str]] = set  # revisions of models that are stored
    changed: Callable[[], None] = lambda: None
    ports: int = 8000

    def create(self, op: Op, key: Key, want: Json) -> Live[Json]:
        number = self.faults.begin()
        op.guard()
        if want["model_revision"] not in self.contents():
            raise ProviderError(f"{key}: the content of its model is not in the store")
        there = self.found.get(key)
        if there is None or not there.healthy or there.state != want:
            self.ports += 1
            outputs = {"base_url": f"http://127.0.0.1:{self.ports}/v1", "model": str(key)}
            self.found[key] = Live(key, want, key.revision, outputs=outputs | {"secret": _secret(key, want)})
        self.faults.end(number)
        return self.found[key]

    def update(self, op: Op, key: Key, was: Live[Json], want: Json) -> Live[Json]:
        if not was.healthy:
            return self.create(op, key, want)
        number = self.faults.begin()
        op.guard()
        self.found[key] = replace(was, state=want, outputs=was.outputs | {"secret": _secret(key, want)})
        self.faults.end(number)
        return self.found[key]

    def delete(self, op: Op, key: Key, was: Live[Json]) -> None:
        number = self.faults.begin()
        super().delete(op, key, was)
        self.changed()
        self.faults.end(number)


def _secret(key: Key, spec: Json) -> str:
    return str(key) if spec["api_key"] else ""


@dataclass
class Gateway(MemoryGateway):
    faults: Faults = field(default_factory=Faults)
    changed: Callable[[], None] = lambda: None

    def publish(self, op: Op, config: GatewayConfig, expected: str) -> GatewayReading:
        number = self.faults.begin()
        reading = super().publish(op, config, expected)
        self.changed()
        self.faults.end(number)
        return reading


@dataclass
class Journal(MemoryJournal):
    faults: Faults = field(default_factory=Faults)

    def commit(self, change: Change) -> None:
        try:
            number = self.faults.begin()
        except TransientError as error:
            raise RecordError(error.summary) from None
        super().commit(change)
        if number in self.faults.after:
            self.changes.pop()
            raise RecordError("the disk is full")


@dataclass
class World:
    """The target, what is recorded of it, and what must hold after every effect on it."""

    providers: dict[str, Artifacts | Engines] = field(default_factory=dict)
    gateway: Gateway = field(default_factory=Gateway)
    recorded: RecordState = field(default_factory=lambda: RecordState("dev", project="acme"))
    serving: frozenset[str] = frozenset()  # routes that must have traffic at every moment
    unproven: frozenset[tuple[str, str]] = frozenset()  # route revisions that must never have any
    broken: frozenset[Key] = frozenset()  # endpoint revisions that were gone before the apply began
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.providers = {kind: Artifacts(kind) for kind in ("dataset", "model", "prompt")}
        models = self.providers["model"].found
        self.providers["endpoint"] = Engines(
            "endpoint", contents=lambda: {k.revision for k, m in models.items() if m.healthy}, changed=self.look
        )
        self.gateway = Gateway(changed=self.look)

    @property
    def target(self) -> MemoryTarget:
        return MemoryTarget(self.providers, gateway=self.gateway)

    def look(self) -> None:
        """Complain of a route that has no traffic, or traffic to what does not run or was not proven."""
        running = {key for key, engine in self.providers["endpoint"].found.items() if engine.healthy}
        for name, route in self.gateway.config.routes.items():
            for revision in (r for r, share in route.weights.items() if share):
                needed = {Key(u.endpoint, u.revision) for u in route.revisions[revision].upstreams}
                for key in sorted(needed - running - self.broken):
                    self.complaints.append(f"route {name} has traffic to {key}, which does not run")
                if (name, revision) in self.unproven:
                    self.complaints.append(f"route {name} has traffic to {revision}, which its gate refused")
        for name in sorted(self.serving):
            route_now = self.gateway.config.routes.get(name)
            if route_now is None or sum(route_now.weights.values()) != 100:
                self.complaints.append(f"route {name} serves nobody")

    def plan(self, want: Desired) -> Plan:
        return build_plan(want, self.recorded, live.read(self.target))

    def apply(self, plan: Plan, order: int, faults: Faults) -> ApplyResult:
        """Run a plan in one of its possible orders; what it recorded counts from then on."""
        steps = list(plan.steps)
        Random(order).shuffle(steps)
        self._watch(plan, faults)
        journal = Journal(faults=faults)
        serial = self.recorded.serial + 1
        run = Run(
            plan=replace(plan, steps=tuple(steps)),
            target=self.target,
            journal=journal,
            serial=serial,
            fence=serial,
            check_lease=faults.check_lease,
            on_gate=lambda report: None,  # noqa: ARG005
            resources=dict(plan.recorded.resources),
        )
        with _verdicts(faults.failing_gates):
            result = run_steps(run, Collected(), parallelism=1)
        held = dict(self.recorded.resources)
        for change in journal.changes:
            held.update({a: r for a, r in change.resources.items() if r is not None})
            for address in (a for a, r in change.resources.items() if r is None):
                held.pop(address, None)
        self.recorded = replace(self.recorded, serial=serial, resources=held)
        self.look()
        return result

    def _watch(self, plan: Plan, faults: Faults) -> None:
        for part in (*self.providers.values(), self.gateway):
            part.faults = faults
        before = {a.name: r.revision for a, r in plan.recorded.resources.items() if a.kind == "route"}
        after = {a.name: r.revision for a, r in plan.desired.resources.items() if a.kind == "route"}
        self.serving = frozenset(
            name
            for name, route in self.gateway.config.routes.items()
            if route.weights and {name} <= before.keys() & after
        )
        refused = {
            r.spec["route"]
            for a, r in plan.desired.resources.items()
            if a.name in faults.failing_gates and a.kind == "gate"
        }
        self.unproven = frozenset((name, after[name]) for name in refused if after[name] != before.get(name))
        self.broken = frozenset(
            key
            for route in self.gateway.config.routes.values()
            for revision in route.revisions.values()
            for key in (Key(u.endpoint, u.revision) for u in revision.upstreams)
        ) - {k for k, e in self.providers["endpoint"].found.items() if e.healthy}

    def check(self) -> None:
        assert not self.complaints, "\n".join(dict.fromkeys(self.complaints))

    def converge(self, want: Desired, order: int) -> None:
        """Without faults one apply is enough, and then nothing is left to do."""
        plan = self.plan(want)
        _well_formed(plan)
        result = self.apply(plan, order, Faults())
        assert result.ok, _told(result)
        self.check()
        again = self.plan(want)
        assert again.is_empty, f"after a successful apply: {[s.id for s in again.steps]}, drift {again.drift}"
        assert not again.changes
        _is_served(self, want)


def _verdicts(failing: frozenset[str]) -> Any:
    """Every gate passes but those named."""

    def request(run: Run, step: RunGate, baseline: str) -> Any:
        served = run.target.gateway.read().configs["local"].routes[step.route.name].revisions
        for revision in filter(None, (step.revision, baseline)):
            if revision not in served:
                raise ProviderError(f"{step.route}@{revision} cannot be asked: it is not there")
        return SimpleNamespace(step=step, gate=run.plan.desired.resources[step.address])

    def judge(asked: Any, *_: object, **__: object) -> GateResult:
        step, gate = asked.step, asked.gate
        verdict = Verdict.FAIL if gate.address.name in failing else Verdict.PASS
        evidence = Evidence(
            gate=gate.address.name,
            gate_revision=gate.revision,
            gate_spec=gate.spec,
            route=step.route.name,
            route_revision=step.revision,
            baseline_revision=step.baseline,
            dataset_digest=gate.spec["dataset_digest"],
            key="key",
            samples=200,
            judgements=(),
            verdict=verdict,
        )
        return GateResult(evidence, ())

    return patch.multiple("llmctl.apply.effects", gate_request=request, run_gate=judge)


def _told(result: ApplyResult) -> str:
    return "; ".join(f"{r.step.id} {r.state.value}: {r.text}" for r in result.results if r.state.value != "done")


def _well_formed(plan: Plan) -> None:
    ids = [step.id for step in plan.steps]
    assert len(ids) == len(set(ids))
    assert {need for step in plan.steps for need in step.needs} <= set(ids)
    seen: set[str] = set()
    for step in plan.steps:
        assert seen >= set(step.needs), f"{step.id} comes before what it needs"
        seen.add(step.id)


def _is_served(world: World, want: Desired) -> None:
    """Exactly what is wanted is live, and recorded."""
    wanted = {Key(a.name, r.revision) for a, r in want.resources.items() if a.kind == "endpoint"}
    assert set(world.providers["endpoint"].found) == wanted
    routes = {a.name: r.revision for a, r in want.resources.items() if a.kind == "route"}
    served: Mapping[str, Route] = world.gateway.config.routes
    assert {name: dict(route.weights) for name, route in served.items()} == {n: {r: 100} for n, r in routes.items()}
    assert {a: r.revision for a, r in world.recorded.resources.items()} == {
        a: r.revision for a, r in want.resources.items()
    }


def _applied(app: App, order: int) -> World:
    world = World()
    world.converge(app.desired(), order)
    return world


_ORDERS = st.integers(0, 2**16)

# -- properties -------------------------------------------------------------------------------------


@EXAMPLES
@given(st.data(), _ORDERS)
def test_after_any_apply_the_plan_is_empty_and_nothing_that_serves_was_taken_away(
    data: st.DataObject, order: int
) -> None:
    first = data.draw(applications(), "first")
    second = data.draw(applications(first), "second")
    world = _applied(first, order)
    world.converge(second.desired(), order)
    world.converge(App({}, {}, {}, {}, {}, {}, {}).desired(), order)


@EXAMPLES
@given(st.data(), _ORDERS)
def test_a_refused_revision_gets_no_traffic_and_what_served_still_serves(data: st.DataObject, order: int) -> None:
    first = data.draw(applications(), "first")
    second = data.draw(applications(first), "second")
    failing = data.draw(st.sets(st.sampled_from(sorted(second.gates))) if second.gates else st.just(set()), "failing")
    world = _applied(first, order)
    for _ in range(2):  # the second time the refused ones alone are left
        plan = world.plan(second.desired())
        _well_formed(plan)
        world.apply(plan, order, Faults(failing_gates=frozenset(failing)))
        world.check()
        _what_is_recorded_serves(world)
    third = data.draw(applications(second), "third")
    world.converge(third.desired(), order)


@EXAMPLES
@given(st.data(), _ORDERS)
def test_whatever_fails_what_served_still_serves_and_the_next_apply_converges(data: st.DataObject, order: int) -> None:
    first = data.draw(applications(), "first")
    second = data.draw(applications(first), "second")
    numbers = st.frozensets(st.integers(1, 40), max_size=3)
    faults = Faults(before=data.draw(numbers, "before"), after=data.draw(numbers, "after"))
    world = _applied(first, order)
    result = world.apply(world.plan(second.desired()), order, faults)
    event(f"ok: {result.ok}")
    note(_told(result))
    world.check()
    third = data.draw(st.one_of(st.just(second), applications(second)), "third")
    world.converge(third.desired(), order)


@EXAMPLES
@given(st.data(), _ORDERS, st.integers(0, 40))
def test_stopped_at_any_effect_the_next_apply_converges(data: st.DataObject, order: int, dies_at: int) -> None:
    first = data.draw(st.one_of(st.none(), applications()), "first")
    second = data.draw(applications(first), "second")
    world = _applied(first, order) if first else World()
    world.apply(world.plan(second.desired()), order, Faults(dies_at=dies_at))
    world.check()
    third = data.draw(st.one_of(st.just(second), applications(second)), "third")
    world.converge(third.desired(), order)


@EXAMPLES
@given(st.data(), _ORDERS)
def test_whatever_is_taken_away_is_restored(data: st.DataObject, order: int) -> None:
    first = data.draw(applications(), "first")
    second = data.draw(st.one_of(st.just(first), applications(first)), "second")
    world = _applied(first, order)
    _meddle(data, world)
    world.converge(second.desired(), order)


def _what_is_recorded_serves(world: World) -> None:
    """Every recorded route has all traffic on its recorded revision, whose endpoints run."""
    for address, was in world.recorded.resources.items():
        if address.kind == "route":
            route = world.gateway.config.routes[address.name]
            assert (dict(route.weights), route.promoted) == ({was.revision: 100}, was.revision)
            assert set(chain_keys(was.spec)) <= set(world.providers["endpoint"].found)


def _meddle(data: st.DataObject, world: World) -> None:
    """Take live things away behind llmctl's back, and change what the gateway serves."""
    for kind, provider in world.providers.items():
        for key in data.draw(_some(provider.found), f"gone {kind}"):
            del provider.found[key]
        for key in data.draw(_some(provider.found), f"ill {kind}"):
            provider.found[key] = replace(provider.found[key], healthy=False)
    routes = dict(world.gateway.config.routes)
    for name in data.draw(_some(routes), "gone routes"):
        del routes[name]
    for name in data.draw(_some(routes), "routes without traffic"):
        routes[name] = replace(routes[name], weights={})
    unknown: bool = data.draw(st.booleans(), "a route that nobody declared")
    if routes and unknown:
        known = routes[sorted(routes)[0]]
        routes["zz"] = replace(known, name="zz")
    world.gateway.config = replace(world.gateway.config, routes=routes)


def _some(of: Iterable[Any]) -> st.SearchStrategy[set[Any]]:
    known = sorted(of)
    return st.sets(st.sampled_from(known), max_size=2) if known else st.just(set())


def test_the_watch_sees_what_it_is_there_for() -> None:
    """The properties would hold of anything if the watch were blind."""
    app = App({"a": (0, False)}, {"a": 0}, {"a": 0}, {"a": ("a", 256)}, {"a": ("a", ("a",))}, {}, {})
    world = _applied(app, 0)
    world.serving = frozenset({"a"})
    world.providers["endpoint"].found.clear()
    world.look()
    world.gateway.config = GatewayConfig("dev")
    world.look()
    assert [c.split(",")[-1].strip() for c in world.complaints] == ["which does not run", "route a serves nobody"]
