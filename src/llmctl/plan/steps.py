"""The steps that turn recorded into desired, as a DAG of values.

Ids are stable between runs: they name what is done to which revision. What takes things away is in
``plan/teardown.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from llmctl.core.address import Address
from llmctl.core.kinds import Role, kind_of
from llmctl.core.resources import Desired, Key, RecordState, Resource, Spec
from llmctl.core.steps import Action, Move, Promote, Provision, RunGate, Shift, Stage, Step
from llmctl.graph import in_order
from llmctl.plan.changes import by_name, half_way, same
from llmctl.plan.drift import Observed
from llmctl.plan.model import ResourceChange
from llmctl.plan.moves import Pair, in_place, with_new_names
from llmctl.plan.routes import chain_keys, endpoint_keys


@dataclass
class Builder:
    """Collects steps while they are derived; ``needs`` only ever names steps that exist in the end.

    ``recorded`` has the new names of what is renamed; ``observed`` and ``moves`` speak of the old ones.
    """

    desired: Desired
    recorded: RecordState
    observed: Observed
    changes: dict[Address, ResourceChange]
    gated: bool
    held: frozenset[Address] = frozenset()
    weakened: frozenset[Address] = frozenset()  # gates that prove less than recorded, also those that are deleted
    moves: tuple[Pair, ...] = ()
    unproven: Mapping[Address, int] = field(default_factory=dict)  # gate: serial of the break-glass that skipped it
    steps: dict[str, Step] = field(default_factory=dict)
    restored: dict[Address, str] = field(default_factory=dict)  # route: id of the step that restores it
    gates: dict[Address, list[Address]] = field(default_factory=dict)  # route: its desired gates
    old_gates: dict[Address, list[Address]] = field(default_factory=dict)  # route: those that judge as recorded too
    links: dict[Key, list[Spec]] = field(default_factory=dict)  # endpoint revision: its spec in each recorded route
    shrinking: frozenset[Key] = frozenset()  # endpoints that lose replicas once the gateway has forgotten them

    def __post_init__(self) -> None:
        for address, resource in self.desired.resources.items():
            if address.kind == "gate":
                self.gates.setdefault(Address("route", resource.spec["route"]), []).append(address)
        for address in sorted(self.weakened):
            if address.kind == "gate":
                was = self.recorded.resources[address]
                route = with_new_names(address, was.spec, self.moves)["route"]
                self.old_gates.setdefault(Address("route", route), []).append(address)
        for address, was in self.recorded.resources.items():
            for link in was.spec["chain"] if address.kind == "route" else ():
                self.links.setdefault(Key(link["endpoint"], link["revision"]), []).append(link["spec"])
        self.shrinking = frozenset(_shrinking(self))

    def add(self, step: Step) -> None:
        self.steps[step.id] = step

    def existing(self, ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(i for i in ids if i in self.steps))

    def revision(self, address: Address) -> str:
        resource = self.desired.resources.get(address)
        return resource.revision if resource else ""

    def differs(self, address: Address) -> bool:
        """Whether anything is left to record once the resource has its new name."""
        was = self.recorded.resources.get(address)
        if was is None or not same(self.desired.resources[address], was) or half_way(was, self.recorded):
            return True
        change = self.changes.get(address)  # else it runs otherwise than it is recorded
        return change is not None and change.moved_from is None and change.before == change.after

    def making(self, addresses: Iterable[Address]) -> tuple[str, ...]:
        """The steps that rename or make what is desired of these."""
        return self.existing(i for a in addresses for i in (move_id(a), self.provision(a)))

    def provision(self, address: Address) -> str:
        return provision_id(address.kind, address.name, self.revision(address))


def provision_id(kind: str, name: str, revision: str) -> str:
    return f"provision:{kind}.{name}@{revision}"


def move_id(address: Address) -> str:
    return f"move:{address}"


def build_up(builder: Builder) -> None:
    """Everything that is renamed, made, brought back, proven and promoted."""
    _moves(builder)
    _artifacts(builder)
    _endpoints(builder)
    _restore_routes(builder)
    for address in [a for a in builder.changes if a.kind == "route" and a in builder.desired.resources]:
        _route(builder, address)
    _names_taken_over(builder)
    _skipped_before(builder)
    _rules(builder)
    _resources(builder)


def _moves(b: Builder) -> None:
    """What keeps its identity gets its new name; whatever else changes of it comes after."""
    for old, new in in_place(b.moves).items():
        b.add(Move(move_id(new), new, (), old, b.recorded.resources[new].revision))


def _artifacts(b: Builder) -> None:
    made: list[Address] = []
    for address, change in b.changes.items():
        if kind_of(address.kind).role is Role.ARTIFACT and change.action is not Action.DELETE and b.differs(address):
            b.add(Provision(b.provision(address), address, (), b.revision(address), _unmoved(change)))
            made.append(address)
    for address, revision in b.observed.restore:
        if kind_of(address.kind).role is Role.ARTIFACT and b.revision(address) == revision:
            _restore(b, address, revision, ())
            made.append(address)
    for address in made:
        step = b.steps[b.provision(address)]
        b.add(replace(step, needs=b.existing([move_id(address), *b.making(b.desired.resources[address].needs)])))


def _unmoved(change: ResourceChange) -> Action:
    """What is left to do once a resource has its new name."""
    return Action.UPDATE if change.action is Action.MOVE else change.action


def _restore(b: Builder, address: Address, revision: str, needs: tuple[str, ...]) -> str:
    step_id = provision_id(address.kind, address.name, revision)
    if step_id not in b.steps:
        b.add(Provision(step_id, address, needs, revision, Action.RESTORE, restores=True))
    return step_id


def _endpoints(b: Builder) -> None:
    """New revisions beside the old ones, and every revision that serves before or after this plan."""
    for address, change in b.changes.items():
        if address.kind == "endpoint" and change.action is not Action.DELETE:
            needs = b.making(b.desired.resources[address].needs)
            b.add(Provision(b.provision(address), address, needs, b.revision(address), _endpoint_action(b, change)))
    lost = dict.fromkeys(b.observed.restore)
    serving = {a: r for a, r in b.recorded.resources.items() if a.kind == "route" and a in b.desired.resources}
    specs = {key: b.links[key][-1] for r in serving.values() for key in chain_keys(r.spec)}
    kept = endpoint_keys(b.desired.resources) | specs.keys()
    for address, revision in lost:
        key = Key(address.name, revision)
        if address.kind == "endpoint" and key in kept:
            spec = specs[key] if key in specs else b.desired.resources[address].spec
            model = Address("model", spec["model"])
            needed = (model, spec["model_revision"]) in lost
            _restore(b, address, revision, (_restore(b, model, spec["model_revision"], ()),) if needed else ())
    # An entry of the record may have routes on an older revision of their endpoint; a rollback brings that back.
    own = {Key(a.name, r.revision) for a, r in b.desired.resources.items() if a.kind == "endpoint"}
    for key in sorted(endpoint_keys(b.desired.resources) - own - endpoint_keys(b.recorded.resources)):
        _restore(b, Address("endpoint", key.name), key.revision, ())


def running_specs(b: Builder, key: Key) -> list[Spec]:
    """How an endpoint revision is recorded to run, by itself or for a route that is still on it; and how it runs where
    nobody recorded it."""
    was = b.recorded.resources.get(Address("endpoint", key.name))
    found = [was.spec] if was and was.revision == key.revision else []
    found += [b.observed.unrecorded[key]] if key in b.observed.unrecorded else []
    return found + b.links.get(key, [])


def _endpoint_action(b: Builder, change: ResourceChange) -> Action:
    """A revision that comes back while a route still runs on it is changed in place, and not made anew."""
    want = b.desired.resources[change.address]
    running = running_specs(b, Key(change.address.name, want.revision))
    return Action.UPDATE if any(spec != want.spec for spec in running) else change.action


def _shrinking(b: Builder) -> Iterable[Key]:
    """Endpoints that are to have fewer replicas; one that does not run is only started anew."""
    lost = set(b.observed.restore)
    for address, change in b.changes.items():
        if address.kind == "endpoint" and change.after and (address, change.after) not in lost:
            want, key = b.desired.resources[address], Key(address.name, change.after)
            if any(_replicas(want.spec) < _replicas(spec) for spec in running_specs(b, key)):
                yield key


def _replicas(spec: Spec) -> int:
    return int((spec.get("replicas") or {}).get("min", 1))


def ready(b: Builder, spec: Spec) -> tuple[str, ...]:
    """The steps that a route with this spec waits for: its prompt and its endpoints.

    Not those that take replicas away, which come after the gateway has forgotten these.
    """
    prompt = Address("prompt", spec["prompt"])
    ids = [move_id(prompt), provision_id("prompt", prompt.name, spec["prompt_revision"])]
    ids += [provision_id("endpoint", k.name, k.revision) for k in chain_keys(spec) if k not in b.shrinking]
    return b.existing(ids)


def _restore_routes(b: Builder) -> None:
    """Publish recorded routes again where the gateway drifted or an endpoint comes back, maybe elsewhere.

    A route that is renamed is put right under its old name, so that the rename finds it.
    """
    back = {Key(s.address.name, s.revision) for s in b.steps.values() if isinstance(s, Provision) and s.restores}
    drifted = {address for address, _ in b.observed.restore if address.kind == "route"}
    origins = {new: old for old, new in b.moves}
    if not back and not drifted:
        return
    for address in sorted((a for a in b.recorded.resources if a.kind == "route"), key=by_name):
        if address not in b.desired.resources or address in b.held:
            continue
        was = b.recorded.resources[address]
        keys = chain_keys(was.spec)
        origin = origins.get(address, address)
        if origin in drifted or not back.isdisjoint(keys):
            needed = [provision_id("endpoint", k.name, k.revision) for k in keys if k not in b.shrinking]
            step_id = f"restore:{origin}@{was.revision}"
            b.add(Promote(step_id, origin, b.existing(needed), was.revision, Action.RESTORE))
            b.restored[address] = step_id
            if origin != address:
                b.add(replace(b.steps[move_id(address)], after=(step_id,)))


def _route(b: Builder, address: Address) -> None:
    change = b.changes[address]
    if not b.differs(address):
        return
    resource = b.desired.resources[address]
    waits = b.existing([move_id(address), *ready(b, resource.spec)])
    # A revision that is lost for good must not keep a new one from taking over: after, and not needs.
    after = (b.restored[address],) if address in b.restored else ()
    if change.before == change.after:
        step_id = b.provision(address)
        b.add(Provision(step_id, address, (*waits, *after), resource.revision, Action.UPDATE))
        return
    if change.action is Action.ADOPT:  # it has its traffic: what proves it must not be able to take that away
        proofs = _proofs(b, resource, "")
        step_id = f"promote:{address}@{resource.revision}"
        b.add(Promote(step_id, address, (*waits, *proofs), resource.revision, Action.ADOPT))
        return
    stage = Stage(f"stage:{address}@{resource.revision}", address, waits, resource.revision, after=after)
    b.add(stage)
    last = _shift(b, resource, change.before, (stage.id, *_proofs(b, resource, change.before)))
    b.add(Promote(f"promote:{address}@{resource.revision}", address, (last,), resource.revision, change.action))


def _proofs(b: Builder, route: Resource, before: str) -> tuple[str, ...]:
    """The gates that a revision of a route must pass: those that are desired, and those that judge as recorded."""
    if not b.gated:
        return ()
    address = route.address
    proofs = [run_gate(b, gate, route, before) for gate in b.gates.get(address, ())]
    return (*proofs, *(run_gate(b, gate, route, before, recorded=True) for gate in b.old_gates.get(address, ())))


def _names_taken_over(b: Builder) -> None:
    """A route answers to an alias until the route that is now declared under that name serves."""
    for address in [a for a in b.changes if a.kind == "route" and a in b.recorded.resources]:
        for step_id in b.existing([b.provision(address), f"stage:{address}@{b.revision(address)}"]):
            b.add(replace(b.steps[step_id], needs=(*b.steps[step_id].needs, *successors(b, address))))


def successors(b: Builder, address: Address) -> tuple[str, ...]:
    """The steps after which new routes serve under names that a recorded route answers to as aliases."""
    names = [Address("route", alias) for alias in b.recorded.resources[address].spec.get("aliases") or ()]
    return b.existing(f"promote:{new}@{b.revision(new)}" for new in names if new != address)


def _shift(b: Builder, route: Resource, before: str, needs: tuple[str, ...]) -> str:
    """One step a percentage of the canary. A route that serves nothing yet takes all traffic at once, and so does
    a rollback: what it goes back to was proven, and what it leaves does harm."""
    address, revision = route.address, route.revision
    rollout = route.spec.get("rollout") or {}
    percents = [p for p in rollout.get("canary") or () if p < 100] if before and b.gated else []
    for percent in percents:
        step_id = f"shift:{address}:{percent}@{revision}"
        weights = ((before, 100 - percent), (revision, percent))
        b.add(Shift(step_id, address, needs, revision, weights, float(rollout.get("hold_s") or 0)))
        needs = (step_id,)
    last = f"shift:{address}@{revision}"
    b.add(Shift(last, address, needs, revision, ((before, 0), (revision, 100)) if before else ((revision, 100),)))
    return last


def run_gate(b: Builder, gate: Address, route: Resource, baseline: str, *, recorded: bool = False) -> str:
    """Prove what is desired of a route by a gate as desired, or as it is ``recorded``."""
    address, revision = route.address, route.revision
    judge = (b.recorded if recorded else b.desired).resources[gate].spec
    dataset = Address("dataset", judge["dataset"])
    stage = f"stage:{address}@{revision}"
    restored = (b.restored[address],) if address in b.restored else ()
    served = b.existing([stage]) or (*b.existing([move_id(address)]), *restored)
    data = b.existing([move_id(dataset), provision_id("dataset", dataset.name, judge["dataset_revision"])])
    declared, baseline = f"gate:{gate.name}:{address}@{revision}", "" if baseline == revision else baseline
    step_id = recorded_run(gate, address, revision) if recorded else declared
    after = b.existing([declared]) if recorded else ()  # one by one: the two would slow down each other's requests
    b.add(RunGate(step_id, gate, (*served, *data), address, revision, baseline, after=after, as_recorded=recorded))
    return step_id


def _skipped_before(b: Builder) -> None:
    """Gates that a break-glass skipped run on what serves, or will. One that asks for less now, or goes, runs as it is
    recorded as well, before that: otherwise what was skipped would never be proven."""
    for gate in [g for g in b.unproven if b.gated and g not in b.held]:
        want = b.desired.resources.get(gate)
        if want is not None and Address("route", want.spec["route"]) not in b.held:
            _proof(b, gate)
        for route in [r for r, gates in b.old_gates.items() if gate in gates and r not in b.held]:
            if route in b.desired.resources and recorded_run(gate, route, b.revision(route)) not in b.steps:
                run_gate(b, gate, b.desired.resources[route], "", recorded=True)


def recorded_run(gate: Address, route: Address, revision: str) -> str:
    """The id of the run of a gate as it is recorded."""
    return f"gate:{gate.name}(recorded):{route}@{revision}"


def _rules(b: Builder) -> None:
    """Gates and policies: a gate is recorded once it is proven on what serves; policies were judged before."""
    for address, change in b.changes.items():
        if kind_of(address.kind).role is not Role.RULE or change.action is Action.DELETE or not b.differs(address):
            continue
        needs = b.existing([move_id(address)])
        if address.kind == "gate":
            route = Address("route", b.desired.resources[address].spec["route"])
            serves = b.existing([move_id(route), f"promote:{route}@{b.revision(route)}"])
            needs += (_proof(b, address),) if b.gated and _asks_anew(b, address) else serves
            needs = tuple(dict.fromkeys((*needs, *weakened_after(b, address))))
        b.add(Provision(b.provision(address), address, needs, b.revision(address), _unmoved(change)))


def weakened_after(b: Builder, gate: Address) -> tuple[str, ...]:
    """A gate is weakened or deleted once the routes that it must still prove as recorded were promoted.

    Otherwise the next apply would know of the weaker gate alone.
    """
    routes = [route for route, gates in b.old_gates.items() if gate in gates]
    runs = [recorded_run(gate, route, b.revision(route)) for route in routes if gate in b.unproven]
    return b.existing([*(f"promote:{route}@{b.revision(route)}" for route in routes), *runs])


def _asks_anew(b: Builder, gate: Address) -> bool:
    """Whether a gate asks for anything else than recorded; a rename of its route is nothing else."""
    was, want = b.recorded.resources.get(gate), b.desired.resources[gate]
    if was is None:
        return True
    before = with_new_names(gate, was.spec, b.moves)
    return any(want.spec.get(f) != before.get(f) for f in kind_of("gate").serving)


def _proof(b: Builder, gate: Address) -> str:
    route = b.desired.resources[Address("route", b.desired.resources[gate].spec["route"])]
    step_id = f"gate:{gate.name}:{route.address}@{route.revision}"
    return step_id if step_id in b.steps else run_gate(b, gate, route, "")


def _resources(b: Builder) -> None:
    """The live things of plug-ins, each after all that it needs."""
    mine = [a for a, c in b.changes.items() if _single(a) and c.action is not Action.DELETE]
    back = [a for a, _ in b.observed.restore if _single(a) and a in b.desired.resources and a not in b.changes]
    wanted = {a: b.desired.resources[a].needs for a in (*mine, *back)}
    for address in in_order(wanted):
        if address not in wanted:
            continue
        needs = [s.id for s in b.steps.values() if s.address in wanted[address] and not isinstance(s, RunGate)]
        if address in b.changes:
            action = b.changes[address].action
            b.add(Provision(b.provision(address), address, tuple(needs), b.revision(address), action))
        else:
            _restore(b, address, b.revision(address), tuple(needs))


def _single(address: Address) -> bool:
    return kind_of(address.kind).role is Role.RESOURCE
