"""A target in memory that can fail, what is recorded of it, and what must hold after every effect on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, settings

from llmctl import live
from llmctl.apply import ApplyResult, Collected, Run, run_steps
from llmctl.apply.proof import judging
from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.errors import LeaseLost, ProviderError, RecordError
from llmctl.core.evidence import Evidence, Verdict
from llmctl.core.gateway_config import GatewayConfig, Route
from llmctl.core.protocols import Change, GatewayReading, Op
from llmctl.core.resources import Desired, Key, Live, RecordState
from llmctl.core.steps import RunGate
from llmctl.gates import GateResult
from llmctl.gateway.checks import read_config
from llmctl.live import LiveState
from llmctl.plan import Plan, build_plan
from tests.apply.fakes import MemoryGateway, MemoryJournal, MemoryProvider, MemoryTarget
from tests.plan.applications import App

# Not shrunk: that takes minutes here. To shrink a failure, give it Phase.shrink as well.
EXAMPLES = settings(
    max_examples=50,
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


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
            raise ProviderError(f"effect {self.count} fails")
        return self.count

    def end(self, number: int) -> None:
        if number in self.after:
            raise ProviderError(f"the answer of effect {number} is lost")

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
            outputs = {"base_urls": self.started(want["replicas"]["min"]), "model": str(key)}
            self.found[key] = Live(key, want, key.revision, outputs=_reached(outputs | {"secret": _secret(key, want)}))
            self.changed()
        self.faults.end(number)
        return self.found[key]

    def update(self, op: Op, key: Key, was: Live[Json], want: Json) -> Live[Json]:
        if not was.healthy:
            return self.create(op, key, want)
        number = self.faults.begin()
        op.guard()
        urls, copies = was.outputs["base_urls"], want["replicas"]["min"]
        urls = [*urls[:copies], *self.started(copies - len(urls))]
        outputs = was.outputs | {"base_urls": urls, "secret": _secret(key, want)}
        self.found[key] = replace(was, state=want, outputs=_reached(outputs))
        self.changed()
        self.faults.end(number)
        return self.found[key]

    def started(self, count: int) -> list[str]:
        """Addresses that nobody had before."""
        self.ports += max(0, count)
        return [f"http://127.0.0.1:{self.ports - n}/v1" for n in range(count)]

    def delete(self, op: Op, key: Key, was: Live[Json]) -> None:
        number = self.faults.begin()
        super().delete(op, key, was)
        self.changed()
        self.faults.end(number)


def _reached(outputs: dict[str, Json]) -> dict[str, Json]:
    return {**outputs, "base_url": outputs["base_urls"][0]}


def _secret(key: Key, spec: Json) -> str:
    return str(key) if spec["api_key"] else ""


@dataclass
class Gateway(MemoryGateway):
    faults: Faults = field(default_factory=Faults)
    changed: Callable[[], None] = lambda: None

    def publish(self, op: Op, config: GatewayConfig, expected: str) -> GatewayReading:
        number = self.faults.begin()
        read_config(config.to_json())  # as the real one: it takes nothing that cannot be served
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
        except ProviderError as error:
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
        running = {key: e.outputs for key, e in self.providers["endpoint"].found.items() if e.healthy}
        for name, route in self.gateway.config.routes.items():
            for revision in (r for r, share in route.weights.items() if share):
                needed = {Key(u.endpoint, u.revision) for u in route.revisions[revision].upstreams}
                for key in sorted(needed - running.keys() - self.broken):
                    self.complaints.append(f"route {name} has traffic to {key}, which does not run")
                for upstream in route.revisions[revision].upstreams:
                    key = Key(upstream.endpoint, upstream.revision)
                    gone = set(upstream.base_urls) - set(running.get(key, {}).get("base_urls", upstream.base_urls))
                    if gone and key not in self.broken:
                        self.complaints.append(f"route {name} has traffic to replicas of {key}, which are gone")
                if (name, revision) in self.unproven:
                    self.complaints.append(f"route {name} has traffic to {revision}, which its gate refused")
        for name in sorted(self.serving):
            answering = (r for n, r in self.gateway.config.routes.items() if name == n or name in r.aliases)
            route_now = next(answering, None)
            if route_now is None or sum(route_now.weights.values()) != 100:
                self.complaints.append(f"route {name} serves nobody")

    def plan(
        self, want: Desired, targets: Iterable[Address] = (), unreadable: Callable[[LiveState], LiveState] | None = None
    ) -> Plan:
        seen = live.read(self.target)
        seen = unreadable(seen) if unreadable else seen
        return build_plan(want, self.recorded, seen, targets=tuple(sorted(targets)))

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
        ) | {old.name for old, new in plan.desired.moved if old.kind == "route" and self._has_traffic(old.name)}
        refused = {
            r.spec["route"]
            for a, r in plan.desired.resources.items()
            if a.name in faults.failing_gates and a.kind == "gate"
        }
        self.unproven = frozenset((name, after[name]) for name in refused if after[name] != before.get(name)) - {
            (new.name, before.get(old.name, "")) for old, new in plan.desired.moved
        }
        running = {k: e.outputs["base_urls"] for k, e in self.providers["endpoint"].found.items() if e.healthy}
        self.broken = frozenset(
            Key(u.endpoint, u.revision)
            for route in self.gateway.config.routes.values()
            for revision in route.revisions.values()
            for u in revision.upstreams
            if not set(u.base_urls) <= set(running.get(Key(u.endpoint, u.revision), ()))
        )

    def _has_traffic(self, name: str) -> bool:
        route = self.gateway.config.routes.get(name)
        return route is not None and bool(route.weights)

    def check(self) -> None:
        assert not self.complaints, "\n".join(dict.fromkeys(self.complaints))

    def converge(self, want: Desired, order: int) -> None:
        """Without faults one apply is enough, and then nothing is left to do."""
        plan = self.plan(want)
        well_formed(plan)
        result = self.apply(plan, order, Faults())
        assert result.ok, told(result)
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
        return SimpleNamespace(step=step, gate=judging(run, step))

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


def told(result: ApplyResult) -> str:
    return "; ".join(f"{r.step.id} {r.state.value}: {r.text}" for r in result.results if r.state.value != "done")


def well_formed(plan: Plan) -> None:
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
    for address, resource in want.resources.items():
        if address.kind == "route":
            assert set(served[address.name].aliases) == set(resource.spec["aliases"])
        if address.kind == "endpoint":
            running = world.providers["endpoint"].found[Key(address.name, resource.revision)]
            assert len(running.outputs["base_urls"]) == resource.spec["replicas"]["min"]
    assert {a: r.revision for a, r in world.recorded.resources.items()} == {
        a: r.revision for a, r in want.resources.items()
    }


def applied(app: App, order: int) -> World:
    world = World()
    world.converge(app.desired(), order)
    return world
