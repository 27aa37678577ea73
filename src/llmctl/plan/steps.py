"""The steps that turn recorded into desired, as a DAG of values.

Ids are stable between runs: they name what is done to which revision.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from llmctl.core.address import Address
from llmctl.core.kinds import Role, kind_of
from llmctl.core.resources import Desired, Key, RecordState
from llmctl.core.steps import Action, Destroy, Promote, Provision, Retire, RunGate, Shift, Stage, Step
from llmctl.graph import in_order
from llmctl.plan.drift import Observed
from llmctl.plan.model import ResourceChange
from llmctl.plan.routes import chain_keys

_ROLLOUT = (Action.CREATE, Action.REPLACE, Action.ADOPT)


@dataclass
class _Builder:
    """Collects steps while they are derived; ``needs`` only ever names steps that exist."""

    desired: Desired
    recorded: RecordState
    observed: Observed
    changes: dict[Address, ResourceChange]
    live_routes: dict[str, str]  # route name: revision that has the traffic now
    gated: bool
    steps: dict[str, Step] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        self.steps[step.id] = step

    def existing(self, ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(i for i in ids if i in self.steps))

    def rollout(self, route: Address) -> ResourceChange | None:
        change = self.changes.get(route)
        return change if change and change.action in _ROLLOUT else None


def build_steps(
    desired: Desired,
    recorded: RecordState,
    observed: Observed,
    changes: Iterable[ResourceChange],
    live_routes: dict[str, str],
    *,
    gated: bool,
) -> tuple[Step, ...]:
    """All steps in an order in which they could run one by one. ``gated`` is false for a rollback."""
    builder = _Builder(desired, recorded, observed, {c.address: c for c in changes}, live_routes, gated)
    _provision(builder)
    _restore(builder)
    _routes(builder)
    _rules(builder)
    _restore_routes(builder)
    _retire(builder)
    _destroy(builder)
    order = in_order({step.id: step.needs for step in builder.steps.values()})
    return tuple(builder.steps[step_id] for step_id in order)


def _provision_id(kind: str, name: str, revision: str) -> str:
    return f"provision:{kind}.{name}@{revision}"


def _provision(b: _Builder) -> None:
    """Artifacts, then the endpoints that need them."""
    for role in (Role.ARTIFACT, Role.DEPLOYMENT):
        for address, change in b.changes.items():
            if kind_of(address.kind).role is not role or change.action is Action.DELETE:
                continue
            resource = b.desired.resources[address]
            needs = b.existing(_provision_id(n.kind, n.name, _revision(b, n)) for n in resource.needs)
            step_id = _provision_id(address.kind, address.name, resource.revision)
            b.add(Provision(step_id, address, needs, resource.revision, change.action))


def _revision(b: _Builder, address: Address) -> str:
    resource = b.desired.resources.get(address)
    return resource.revision if resource else ""


def _restore(b: _Builder) -> None:
    """Bring back artifacts and endpoint revisions that drifted, where the plan does not replace them unused."""
    kept = _endpoints_in_use(b)
    for address, revision in b.observed.restore:
        step_id = _provision_id(address.kind, address.name, revision)
        if address.kind == "route" or step_id in b.steps or address not in b.desired.resources:
            continue
        if address.kind == "endpoint" and Key(address.name, revision) not in kept:
            continue
        needs = tuple(
            s.id for s in b.steps.values() if isinstance(s, Provision) and s.restores and s.address.kind == "model"
        )
        step_needs = needs if address.kind == "endpoint" else ()
        b.add(Provision(step_id, address, step_needs, revision, Action.RESTORE, restores=True))


def _endpoints_in_use(b: _Builder) -> frozenset[Key]:
    """Endpoint revisions that serve before or after this plan: what serves now keeps serving meanwhile."""
    keys = {Key(a.name, r.revision) for a, r in b.desired.resources.items() if a.kind == "endpoint"}
    for address, was in b.recorded.resources.items():
        if address.kind == "route" and address in b.desired.resources:
            keys.update(chain_keys(was.spec))
    return frozenset(keys)


def _routes(b: _Builder) -> None:
    for address, resource in sorted(b.desired.resources.items()):
        change = b.changes.get(address)
        if address.kind != "route" or change is None:
            continue
        name, revision = address.name, resource.revision
        if change.action is Action.UPDATE:
            b.add(Provision(_provision_id("route", name, revision), address, (), revision, Action.UPDATE))
            continue
        serves = Key(name, revision)
        ready = [_provision_id("prompt", resource.spec["prompt"], resource.spec["prompt_revision"])]
        ready += [_provision_id("endpoint", key.name, key.revision) for key in chain_keys(resource.spec)]
        stage = Stage(f"stage:route.{serves}", address, b.existing(ready), revision)
        b.add(stage)
        before = b.live_routes.get(name, "")
        gates = [_run_gate(b, gate, address, revision, before) for gate in _gates_of(b, address)] if b.gated else []
        weights = ((before, 0), (revision, 100)) if before not in ("", revision) else ((revision, 100),)
        shift = Shift(f"shift:route.{serves}", address, (stage.id, *gates), revision, weights)
        b.add(shift)
        b.add(Promote(f"promote:route.{serves}", address, (shift.id,), revision, change.action))


def _gates_of(b: _Builder, route: Address) -> list[Address]:
    return sorted(
        a for a, r in b.desired.resources.items() if a.kind == "gate" and Address("route", r.spec["route"]) == route
    )


def _run_gate(b: _Builder, gate: Address, route: Address, revision: str, baseline: str) -> str:
    spec = b.desired.resources[gate].spec
    dataset = Address("dataset", spec["dataset"])
    needs = b.existing((f"stage:{route}@{revision}", _provision_id("dataset", dataset.name, _revision(b, dataset))))
    step_id = f"gate:{gate.name}:{route}@{revision}"
    b.add(RunGate(step_id, gate, needs, route, revision, "" if baseline == revision else baseline))
    return step_id


def _rules(b: _Builder) -> None:
    """Gates and policies: recorded once they are proven on what serves; policies were judged before."""
    for address, change in b.changes.items():
        if kind_of(address.kind).role is not Role.RULE or change.action is Action.DELETE:
            continue
        resource = b.desired.resources[address]
        needs: tuple[str, ...] = ()
        if address.kind == "gate" and b.gated:
            needs = (_gate_before_recording(b, address),) if change.before != change.after else ()
        elif address.kind == "gate":
            needs = b.existing(
                [f"promote:route.{resource.spec['route']}@{_revision(b, Address('route', resource.spec['route']))}"]
            )
        step_id = _provision_id(address.kind, address.name, resource.revision)
        b.add(Provision(step_id, address, needs, resource.revision, change.action))


def _gate_before_recording(b: _Builder, gate: Address) -> str:
    route = Address("route", b.desired.resources[gate].spec["route"])
    revision = b.desired.resources[route].revision
    step_id = f"gate:{gate.name}:{route}@{revision}"
    return step_id if step_id in b.steps else _run_gate(b, gate, route, revision, "")


def _restore_routes(b: _Builder) -> None:
    """Publish recorded routes again where the gateway drifted or an endpoint comes back elsewhere."""
    back = {Key(s.address.name, s.revision) for s in b.steps.values() if isinstance(s, Provision) and s.restores}
    drifted = {address for address, _ in b.observed.restore if address.kind == "route"}
    for address, was in sorted(b.recorded.resources.items()):
        if address.kind != "route" or address not in b.desired.resources:
            continue
        keys = set(chain_keys(was.spec))
        if address not in drifted and not keys & back:
            continue
        ready = b.existing(_provision_id("endpoint", key.name, key.revision) for key in keys)
        step = Promote(f"restore:{address}@{was.revision}", address, ready, was.revision, Action.RESTORE)
        b.add(step)
        _order_after_restore(b, address, step.id)


def _order_after_restore(b: _Builder, route: Address, restore_id: str) -> None:
    """What serves is brought back before anything else is done to the same route."""
    for step in list(b.steps.values()):
        same = step.address == route or (isinstance(step, RunGate) and step.route == route)
        if same and step.id != restore_id and restore_id not in step.needs:
            b.add(replace(step, needs=(*step.needs, restore_id)))


def _retire(b: _Builder) -> None:
    """Old revisions go once nothing serves from them; strays go at once."""
    retiring: dict[Key, list[str]] = {}
    for address, was in sorted(b.recorded.resources.items()):
        change = b.changes.get(address)
        if address.kind != "route" or change is None or change.action is not Action.REPLACE:
            continue
        promote = f"promote:{address}@{change.after}"
        step = Retire(f"retire:{address}@{was.revision}", address, (promote,), was.revision)
        b.add(step)
        for key in chain_keys(was.spec):
            retiring.setdefault(key, []).append(step.id)
    for address, change in b.changes.items():
        if address.kind == "endpoint" and change.action is Action.REPLACE:
            key = Key(address.name, change.before)
            retiring.setdefault(key, []).append(_provision_id("endpoint", address.name, change.after))
    needed = {Key(a.name, r.revision) for a, r in b.desired.resources.items() if a.kind == "endpoint"}
    for key, after in sorted(retiring.items()):
        if key not in needed and Address("endpoint", key.name) in b.desired.resources:
            _retire_endpoint(b, key, after)
    for key in b.observed.strays:
        _retire_endpoint(b, key, [])
    for name in b.observed.stray_routes:
        route = Address("route", name)
        if route not in b.desired.resources:
            b.add(Retire(f"retire:{route}", route, (), ""))


def _retire_endpoint(b: _Builder, key: Key, after: list[str]) -> None:
    address = Address("endpoint", key.name)
    b.add(Retire(f"retire:{address}@{key.revision}", address, b.existing(after), key.revision))


def _destroy(b: _Builder) -> None:
    """Deleted resources, dependents first, after whatever stops using them."""
    gone = {a: r for a, r in b.recorded.resources.items() if a not in b.desired.resources}
    for address, was in sorted(gone.items()):
        users = [f"destroy:{a}" for a, r in gone.items() if address in r.needs]
        leaving = [a for a, r in b.recorded.resources.items() if address in r.needs and a not in gone]
        moved = [s.id for s in b.steps.values() if s.address in leaving and isinstance(s, Promote | Retire | Provision)]
        b.add(Destroy(f"destroy:{address}", address, tuple(dict.fromkeys([*users, *moved])), was.revision))
