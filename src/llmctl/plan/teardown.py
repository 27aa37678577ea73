"""The steps that take things away: nothing goes before everything has stopped using it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from llmctl.core.address import Address
from llmctl.core.resources import Key, Spec
from llmctl.core.steps import Action, Destroy, Promote, Provision, Retire
from llmctl.graph import users_of
from llmctl.plan.changes import by_name
from llmctl.plan.routes import chain_keys, endpoint_keys
from llmctl.plan.steps import Builder, provision_id, running_specs, successors, weakened_after


def tear_down(b: Builder) -> None:
    """Old revisions once nothing serves from them, then deleted resources, then strays."""
    _stray_routes(b)
    _retire(b)
    _destroy(b)
    _shrink(b)
    _stray_endpoints(b)


def _stray_routes(b: Builder) -> None:
    for name in b.observed.stray_routes:
        route = Address("route", name)
        if route not in b.desired.resources:
            b.add(Retire(f"retire:{route}", route, (), ""))


def _settled(b: Builder) -> tuple[str, ...]:
    """The steps after which every route that nobody recorded so is gone, or as it should be.

    Until then it may have traffic to anything: an apply that was killed leaves a split to what it had made.
    """
    routes = [Address("route", name) for name in b.observed.stray_routes]
    found = [*b.existing(i for r in routes for i in (f"retire:{r}", f"promote:{r}@{b.revision(r)}"))]
    follows = dict(b.moves)
    for old in (address for address, _ in b.observed.restore if address.kind == "route"):
        new = follows.get(old, old)
        if new not in b.desired.resources:
            found.append(_destroy_id(old))
        else:
            found += b.existing([f"promote:{new}@{b.revision(new)}"]) or b.existing([b.restored.get(new, "")])
    return tuple(found)


def _retire(b: Builder) -> None:
    leaving: dict[Key, list[str]] = {}
    for address, change in b.changes.items():
        was = b.recorded.resources.get(address)
        if address.kind != "route" or was is None:
            continue
        if change.action is Action.REPLACE:
            promote = f"promote:{address}@{change.after}"
            step = Retire(f"retire:{address}@{was.revision}", address, (promote,), was.revision)
            b.add(step)
            gone = step.id
        elif change.action is Action.DELETE:
            gone = _destroy_id(address)
        else:
            continue
        for key in chain_keys(was.spec):
            leaving.setdefault(key, []).append(gone)
    for address, change in b.changes.items():
        if address.kind == "endpoint" and change.action is Action.REPLACE:
            started = provision_id("endpoint", address.name, change.after)
            leaving.setdefault(Key(address.name, change.before), []).append(started)
    needed = endpoint_keys(b.desired.resources)
    for key, steps in sorted(leaving.items()):
        if key not in needed | b.observed.in_use and Address("endpoint", key.name) in b.desired.resources:
            _retire_endpoint(b, key, (*steps, *_settled(b)))


def _retire_endpoint(b: Builder, key: Key, after: Iterable[str]) -> None:
    address = Address("endpoint", key.name)
    b.add(Retire(f"retire:{address}@{key.revision}", address, tuple(dict.fromkeys(after)), key.revision))


def _destroy_id(address: Address) -> str:
    return f"destroy:{address}"


def _destroy(b: Builder) -> None:
    """Dependents first, and after the steps of those that stop needing it."""
    gone = sorted((a for a in b.recorded.resources if a not in b.desired.resources), key=by_name)
    if not gone:
        return
    users = users_of({address: resource.needs for address, resource in b.recorded.resources.items()})
    moved: dict[Address, list[str]] = {}
    for step in b.steps.values():
        if isinstance(step, Promote | Retire | Provision):
            moved.setdefault(step.address, []).append(step.id)
    follows = dict(b.moves)
    for address in gone:
        was = b.recorded.resources[address]
        needs = [*b.making([follows[address]])] if address in follows else []
        for user in users.get(address, ()):
            needs += moved.get(user, []) if user in b.desired.resources else [_destroy_id(user)]
        if address.kind == "gate" and b.gated:
            needs += weakened_after(b, address)
        if address.kind == "endpoint":
            needs += _settled(b)
        if address.kind == "route":
            needs += successors(b, address)
        b.add(Destroy(_destroy_id(address), address, tuple(dict.fromkeys(needs)), was.revision))


def _shrink(b: Builder) -> None:
    """Replicas go after the gateway has forgotten their addresses: after every route that knows them was published.

    Where more of the endpoint changes than their number, what uses it is published once more.
    """
    for key in sorted(b.shrinking):
        step_id = provision_id("endpoint", key.name, key.revision)
        forgotten = [b.restored[a] for a in b.restored if key in chain_keys(b.recorded.resources[a].spec)]
        forgotten += _settled(b)
        for address, was in b.recorded.resources.items():
            if address.kind == "route" and key in chain_keys(was.spec):
                forgotten += (f"retire:{address}@{was.revision}", _destroy_id(address), b.provision(address))
        needs = (*b.steps[step_id].needs, *b.existing(forgotten))
        b.add(replace(b.steps[step_id], needs=tuple(dict.fromkeys(needs))))
        keys = [spec.get("api_key") for spec in (*running_specs(b, key), *_wanted_links(b, key))]
        if any(api_key != keys[0] for api_key in keys):
            _publish_again(b, key, step_id)


def _wanted_links(b: Builder, key: Key) -> Iterable[Spec]:
    routes = (r for a, r in b.desired.resources.items() if a.kind == "route" and key in chain_keys(r.spec))
    return (link["spec"] for r in routes for link in r.spec["chain"] if link["endpoint"] == key.name)


def _publish_again(b: Builder, key: Key, changed: str) -> None:
    """Also a route that does not change: an apply that failed may have recorded it, and not the endpoint after it."""
    for address, route in b.desired.resources.items():
        if address.kind == "route" and key in chain_keys(route.spec) and address not in b.held:
            serves = b.existing((f"promote:{address}@{route.revision}", b.provision(address)))
            step_id = f"publish:{address}@{route.revision}"
            b.add(Provision(step_id, address, (changed, *serves), route.revision, Action.UPDATE))


def _stray_endpoints(b: Builder) -> None:
    """What nobody recorded goes once every route is as it should be: traffic may still go to a stray."""
    settled = [
        s.id for s in b.steps.values() if s.address.kind == "route" and isinstance(s, Promote | Retire | Destroy)
    ]
    for key in b.observed.strays:
        _retire_endpoint(b, key, settled)
