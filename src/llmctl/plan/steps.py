"""The steps that turn recorded into desired, as a DAG of values.

Ids are stable between runs: they name what is done to which revision. What takes things away is in
``plan/teardown.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from llmctl.core.address import Address
from llmctl.core.kinds import Role, kind_of
from llmctl.core.resources import Desired, Key, RecordState
from llmctl.core.steps import Action, Promote, Provision, RunGate, Shift, Stage, Step
from llmctl.plan.drift import Observed
from llmctl.plan.model import ResourceChange
from llmctl.plan.routes import chain_keys, endpoint_keys


@dataclass
class Builder:
    """Collects steps while they are derived; ``needs`` only ever names steps that exist in the end."""

    desired: Desired
    recorded: RecordState
    observed: Observed
    changes: dict[Address, ResourceChange]
    gated: bool
    steps: dict[str, Step] = field(default_factory=dict)
    restored: dict[Address, str] = field(default_factory=dict)  # route: id of the step that restores it
    gates: dict[Address, list[Address]] = field(default_factory=dict)  # route: its desired gates

    def __post_init__(self) -> None:
        for address, resource in sorted(self.desired.resources.items()):
            if address.kind == "gate":
                self.gates.setdefault(Address("route", resource.spec["route"]), []).append(address)

    def add(self, step: Step) -> None:
        self.steps[step.id] = step

    def existing(self, ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(i for i in ids if i in self.steps))

    def revision(self, address: Address) -> str:
        resource = self.desired.resources.get(address)
        return resource.revision if resource else ""


def provision_id(kind: str, name: str, revision: str) -> str:
    return f"provision:{kind}.{name}@{revision}"


def build_up(builder: Builder) -> None:
    """Everything that is made, brought back, proven and promoted."""
    _artifacts(builder)
    _endpoints(builder)
    _restore_routes(builder)
    for address in sorted(a for a in builder.desired.resources if a.kind == "route"):
        _route(builder, address)
    _rules(builder)


def _artifacts(b: Builder) -> None:
    for address, change in b.changes.items():
        if kind_of(address.kind).role is Role.ARTIFACT and change.action is not Action.DELETE:
            b.add(Provision(_id(b, address), address, (), b.revision(address), change.action))
    for address, revision in b.observed.restore:
        if kind_of(address.kind).role is Role.ARTIFACT and b.revision(address) == revision:
            _restore(b, address, revision, ())
    for address in [s.address for s in b.steps.values()]:
        step = b.steps[_id(b, address)]
        needs = b.existing(_id(b, need) for need in b.desired.resources[address].needs)
        b.add(replace(step, needs=needs))


def _id(b: Builder, address: Address) -> str:
    return provision_id(address.kind, address.name, b.revision(address))


def _restore(b: Builder, address: Address, revision: str, needs: tuple[str, ...]) -> str:
    step_id = provision_id(address.kind, address.name, revision)
    if step_id not in b.steps:
        b.add(Provision(step_id, address, needs, revision, Action.RESTORE, restores=True))
    return step_id


def _endpoints(b: Builder) -> None:
    """New revisions beside the old ones, and every revision that serves before or after this plan."""
    for address, change in b.changes.items():
        if address.kind == "endpoint" and change.action is not Action.DELETE:
            needs = b.existing(_id(b, need) for need in b.desired.resources[address].needs)
            b.add(Provision(_id(b, address), address, needs, b.revision(address), change.action))
    lost = dict.fromkeys(b.observed.restore)
    serving = {a: r for a, r in b.recorded.resources.items() if a.kind == "route" and a in b.desired.resources}
    specs = {
        Key(link["endpoint"], link["revision"]): link["spec"] for r in serving.values() for link in r.spec["chain"]
    }
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


def _restore_routes(b: Builder) -> None:
    """Publish recorded routes again where the gateway drifted or an endpoint comes back, maybe elsewhere."""
    back = {Key(s.address.name, s.revision) for s in b.steps.values() if isinstance(s, Provision) and s.restores}
    drifted = {address for address, _ in b.observed.restore if address.kind == "route"}
    for address, was in sorted(b.recorded.resources.items()):
        if address.kind != "route" or address not in b.desired.resources:
            continue
        keys = chain_keys(was.spec)
        if address in drifted or not back.isdisjoint(keys):
            ready = b.existing(provision_id("endpoint", key.name, key.revision) for key in keys)
            step = Promote(f"restore:{address}@{was.revision}", address, ready, was.revision, Action.RESTORE)
            b.add(step)
            b.restored[address] = step.id


def _route(b: Builder, address: Address) -> None:
    change = b.changes.get(address)
    if change is None:
        return
    resource = b.desired.resources[address]
    name, revision = address.name, resource.revision
    ready = [provision_id("prompt", resource.spec["prompt"], resource.spec["prompt_revision"])]
    ready += [provision_id("endpoint", key.name, key.revision) for key in chain_keys(resource.spec)]
    # A revision that is lost for good must not keep a new one from taking over: after, and not needs.
    after = (b.restored[address],) if address in b.restored else ()
    if change.action is Action.UPDATE:
        step_id = provision_id("route", name, revision)
        b.add(Provision(step_id, address, (*b.existing(ready), *after), revision, Action.UPDATE))
        return
    was = b.recorded.resources.get(address)
    before = was.revision if was else ""
    stage = Stage(f"stage:{address}@{revision}", address, b.existing(ready), revision, after=after)
    b.add(stage)
    gates = [_run_gate(b, gate, address, revision, before) for gate in b.gates.get(address, ())] if b.gated else []
    weights = ((before, 0), (revision, 100)) if before not in ("", revision) else ((revision, 100),)
    shift = Shift(f"shift:{address}@{revision}", address, (stage.id, *gates), revision, weights)
    b.add(shift)
    b.add(Promote(f"promote:{address}@{revision}", address, (shift.id,), revision, change.action))


def _run_gate(b: Builder, gate: Address, route: Address, revision: str, baseline: str) -> str:
    dataset = Address("dataset", b.desired.resources[gate].spec["dataset"])
    stage = f"stage:{route}@{revision}"
    served = b.existing([stage]) or ((b.restored[route],) if route in b.restored else ())
    step_id = f"gate:{gate.name}:{route}@{revision}"
    needs = (*served, *b.existing([_id(b, dataset)]))
    b.add(RunGate(step_id, gate, needs, route, revision, "" if baseline == revision else baseline))
    return step_id


def _rules(b: Builder) -> None:
    """Gates and policies: a gate is recorded once it is proven on what serves; policies were judged before."""
    for address, change in b.changes.items():
        if kind_of(address.kind).role is not Role.RULE or change.action is Action.DELETE:
            continue
        needs: tuple[str, ...] = ()
        if address.kind == "gate":
            route = Address("route", b.desired.resources[address].spec["route"])
            revision = b.revision(route)
            needs = b.existing([f"promote:{route}@{revision}"])
            if b.gated and change.before != change.after:
                step_id = f"gate:{address.name}:{route}@{revision}"
                needs = (step_id if step_id in b.steps else _run_gate(b, address, route, revision, ""),)
        b.add(Provision(_id(b, address), address, needs, b.revision(address), change.action))
