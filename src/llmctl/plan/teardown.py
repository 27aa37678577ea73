"""The steps that take things away: nothing goes before everything has stopped using it."""

from __future__ import annotations

from collections.abc import Iterable

from llmctl.core.address import Address
from llmctl.core.resources import Key
from llmctl.core.steps import Action, Destroy, Promote, Provision, Retire
from llmctl.graph import users_of
from llmctl.plan.routes import chain_keys, endpoint_keys
from llmctl.plan.steps import Builder, provision_id


def tear_down(b: Builder) -> None:
    """Old revisions once nothing serves from them, then deleted resources, then strays."""
    _retire(b)
    _destroy(b)
    _strays(b)


def _retire(b: Builder) -> None:
    leaving: dict[Key, list[str]] = {}
    for address, was in sorted(b.recorded.resources.items()):
        change = b.changes.get(address)
        if address.kind != "route" or change is None:
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
        if key not in needed and Address("endpoint", key.name) in b.desired.resources:
            _retire_endpoint(b, key, steps)


def _retire_endpoint(b: Builder, key: Key, after: Iterable[str]) -> None:
    address = Address("endpoint", key.name)
    b.add(Retire(f"retire:{address}@{key.revision}", address, tuple(dict.fromkeys(after)), key.revision))


def _destroy_id(address: Address) -> str:
    return f"destroy:{address}"


def _destroy(b: Builder) -> None:
    """Dependents first, and after the steps of those that stop needing it."""
    users = users_of({address: resource.needs for address, resource in b.recorded.resources.items()})
    moved: dict[Address, list[str]] = {}
    for step in b.steps.values():
        if isinstance(step, Promote | Retire | Provision):
            moved.setdefault(step.address, []).append(step.id)
    for address, was in sorted(b.recorded.resources.items()):
        if address in b.desired.resources:
            continue
        needs: list[str] = []
        for user in users.get(address, ()):
            needs += moved.get(user, []) if user in b.desired.resources else [_destroy_id(user)]
        b.add(Destroy(_destroy_id(address), address, tuple(dict.fromkeys(needs)), was.revision))


def _strays(b: Builder) -> None:
    """What nobody recorded goes once every route is as it should be: traffic may still go to a stray."""
    for name in b.observed.stray_routes:
        route = Address("route", name)
        if route not in b.desired.resources:
            b.add(Retire(f"retire:{route}", route, (), ""))
    settled = [
        s.id for s in b.steps.values() if s.address.kind == "route" and isinstance(s, Promote | Retire | Destroy)
    ]
    for key in b.observed.strays:
        _retire_endpoint(b, key, settled)
