"""Use case: take into the record what runs and was never recorded. What runs is only read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from llmctl.app.recorded_change import Held, Notice, changing
from llmctl.app.workspace import Workspace
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.errors import Denied, InvalidInput, LlmctlError, ProviderError
from llmctl.core.gateway_config import Route, RouteRevision
from llmctl.core.kinds import Role, kind_of
from llmctl.core.plugins import Declared, Imports
from llmctl.core.protocols import Change
from llmctl.core.resources import ALL, Key, Recorded, Resource, Spec
from llmctl.live import LiveState, raised_in
from llmctl.plan import FieldDiff
from llmctl.plan.diff import field_diffs
from llmctl.spec.suggestions import suggestion

#: What of a live endpoint stands in its entry of the file.
_WRITTEN = ("model", "engine", "context", "options", "replicas")


@dataclass(frozen=True, slots=True)
class Imported:
    """What was taken in, the serial of its entry, and in which fields llmops.yaml wants it otherwise."""

    environment: str
    resource: Recorded
    serial: int
    differs: tuple[FieldDiff, ...]


def import_live(workspace: Workspace, text: str, found: str, reason: str, notice: Notice) -> Imported:
    """Record a live thing as the resource ``text``; ``found`` is what a plan calls it: ``support@3fa9…``, or a name.

    Raises ``InvalidInput`` for what is recorded already, not declared, not there, or of a kind that cannot be taken
    in, and ``ProviderError`` for what cannot be read.
    """
    address, key = _address(text), Key.parse(found)
    _refuse_other_kinds(address)
    if key.name != address.name:
        raise _refused(
            f"{found} lives under the name {key.name}, and {address} would look for it under its own",
            f"Take it in as {address.kind}.{key.name}; `moved:` in llmops.yaml renames it afterwards.",
        )
    declared = workspace.resolved.desired.resources
    with changing(workspace, "import", notice) as held:
        if address in held.state.resources:
            was = held.state.resources[address]
            hint = f"`llmctl state rm {address} --reason …` has the record forget it."
            raise _refused(f"{address} is recorded already, as v{was.version} {was.revision[:8]}", hint)
        workspace.target.serve([address])
        live = workspace.read_live(workspace.resolved.desired, held.state)
        want = declared.get(address)
        if address.kind == "route":
            key, there = _served_route(address, key, want, live, held)
        else:
            key, there = _live_thing(workspace, address, key, live)
        if want is None:
            raise _undeclared(address, there.spec)
        kind = kind_of(address.kind)
        spec = {"protect": False, **there.spec}
        revision = kind.revision(spec)
        _refuse_rejected(held, address, revision)
        taken = Recorded(address, spec, revision, 1, there.needs, (revision,))
        return Imported(
            workspace.environment.name,
            taken,
            _record(held, taken, str(key), reason),
            field_diffs(address.kind, spec, want.spec),
        )


def _record(held: Held, taken: Recorded, key: str, reason: str) -> int:
    address, revision = taken.address, taken.revision
    change = Change(
        f"import {address} v{taken.version}",
        {address: taken},
        trailers=(("Resource", str(address)), ("Revision", revision)),
    )
    planned = [{"address": str(address), "action": "import", "reason": reason, "before": "", "after": revision}]
    subject = f"import {address} v{taken.version} from {key}" + (f": {reason}" if reason else "")
    return held.record(subject=subject, reason=reason, decided={"changes": planned, "live": key}, changes=[change])


def _refuse_rejected(held: Held, address: Address, revision: str) -> None:
    """What a rollback left behind does not get back into the record by another way."""
    for rejection in held.state.rejections:
        if (rejection.address, rejection.revision) == (address, revision):
            raise Denied(
                f"{address}@{revision[:8]} was rejected by the rollback of serial {rejection.serial}",
                detail=rejection.reason,
                hint=f"Say why it is good again: `llmctl unreject {revision[:8]} --reason …`.",
            )


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise _refused(str(error), "Write it as `llmctl plan` prints it: endpoint.support.") from None


def _refuse_other_kinds(address: Address) -> None:
    role = kind_of(address.kind).role
    if role is Role.ARTIFACT:
        raise _refused(
            f"a {address.kind} needs no import", "What is in the artifact store already is adopted by `llmctl apply`."
        )
    if role is Role.RULE:
        raise _refused(f"a {address.kind} does not run, so there is nothing to take in", "Run `llmctl apply`.")


def _live_thing(workspace: Workspace, address: Address, key: Key, live: LiveState) -> tuple[Key, Declared]:
    """The key that is meant, and what its provider says of what it has live there."""
    reading = live.readings.get(address.kind)
    keys = sorted(reading.found) if reading else []
    if address.kind == "endpoint":
        key = _only(address, key, [k for k in keys if k.name == key.name], list(reading.unreadable) if reading else [])
    elif key.revision:
        raise _refused(f"of the kind {address.kind} one thing a name is live", f"Write {key.name} without a revision.")
    unreadable = live.unreadable(address.kind, key)
    if unreadable is not None:
        raise ProviderError(
            f"{address.kind} {key} cannot be read: {unreadable.summary}",
            detail=unreadable.detail,
            hint=unreadable.hint or "What cannot be read cannot be recorded. Look at `llmctl status`.",
        )
    there = live.find(address.kind, key)
    if there is None:
        raise _not_there(address.kind, key, keys)
    if not there.healthy:
        raise ProviderError(
            f"{address.kind} {key} is not healthy, so it cannot be told what it is",
            detail=there.detail,
            hint="Mend it first, or leave it for `llmctl apply`.",
        )
    provider = workspace.target.providers[address.kind]
    if not isinstance(provider, Imports):
        raise ProviderError(
            f"the kind {address.kind} cannot be taken in",
            hint="Its provider lacks the capability `Imports`; take the thing away and let `llmctl apply` make it.",
        )
    said = _said(provider, address.kind, key)
    _require_revision(address, kind_of(address.kind).revision(said.spec), there.revision)
    return key, said


def _said(provider: Imports, kind: str, key: Key) -> Declared:
    """The provider's word; whatever else than an answer it gives is told as its defect, without its text."""
    defect = f"This is a defect of the provider of kind {kind}; please report it."
    try:
        said: object = provider.read_spec(key)
    except LlmctlError:
        raise
    except Exception as error:  # noqa: BLE001 - a package of somebody else may fail in any way
        what = f"the provider of kind {kind} raised {type(error).__name__} when it was asked for the spec of {key}"
        raise ProviderError(what, detail=raised_in(error), hint=defect) from None
    if not isinstance(said, Declared) or not isinstance(said.spec, dict):
        raise ProviderError(f"the provider of kind {kind} gave no spec of {key}", hint=defect)
    return said


def _require_revision(address: Address, declared: str, live: str) -> None:
    if declared != live:
        raise ProviderError(
            f"what runs as {address} says that it is revision {live[:8] or 'unknown'}, its spec is {declared[:8]}",
            detail="One of the two was changed by other means. Nothing was recorded.",
            hint="Take it away, and let `llmctl apply` make what llmops.yaml declares.",
        )


def _served_route(
    address: Address, key: Key, want: Resource | None, live: LiveState, held: Held
) -> tuple[Key, Declared]:
    """A route as the gateway serves it; what a gateway does not know of it is as llmops.yaml has it."""
    if live.gateway.unreadable:
        raise ProviderError(f"the gateway cannot be read: {live.gateway.unreadable}", hint="Look at `llmctl status`.")
    config = live.gateway_config()
    if config is None:
        raise ProviderError("the gateway does not run", hint="`llmctl local start` starts it.")
    route = config.routes.get(key.name)
    if route is None:
        raise _not_there("route", key, [Key(name, r.promoted) for name, r in sorted(config.routes.items())])
    if not route.promoted or not route.promoted.startswith(key.revision):
        serves = f"Serving is {Key(key.name, route.promoted)}." if route.promoted else "No revision of it serves yet."
        raise _refused(f"route {key} does not serve", serves)
    alike = all(other.routes.get(key.name) == route for other in live.gateway.configs.values())
    if not alike or dict(route.weights) != {route.promoted: 100}:
        raise ProviderError(
            f"route {key.name} is in the middle of a change",
            detail="Its traffic is split, or the gateway's replicas serve it differently.",
            hint="Wait until it is over; a split that nobody renews is reverted by the gateway.",
        )
    spec = _route_spec(route, want, live, held)
    _require_revision(address, kind_of("route").revision(spec), route.promoted)
    needs = (Address("prompt", spec["prompt"]), *(Address("endpoint", link["endpoint"]) for link in spec["chain"]))
    return Key(key.name, route.promoted), Declared(spec, tuple(dict.fromkeys(needs)))


def _route_spec(route: Route, want: Resource | None, live: LiveState, held: Held) -> Spec:
    served = route.revisions[route.promoted]
    said = served.to_json()
    template = {field: said[field] for field in ("messages", "variables", "parameters")}
    prompt_revision = kind_of("prompt").revision(template)
    chain = _chain(served, live, held)
    names = [link["endpoint"] for link in chain]
    return {
        **(want.spec if want else {}),
        "prompt": _prompt(prompt_revision, want, held),
        "endpoint": names[0],
        "fallback": names[1:],
        "prompt_revision": prompt_revision,
        "template": template,
        "chain": chain,
        "chain_revisions": [f"{link['endpoint']}@{link['revision']}" for link in chain],
        "aliases": sorted(route.aliases),
    }


def _chain(served: RouteRevision, live: LiveState, held: Held) -> list[dict[str, Json]]:
    """The endpoints that a route goes to, each with the spec that it really runs with."""
    chain = []
    for upstream in served.upstreams:
        key = Key(upstream.endpoint, upstream.revision)
        there = live.find("endpoint", key)
        was = held.state.resources.get(Address("endpoint", key.name))
        if there is not None and there.healthy:
            spec = there.state
        elif was is not None and was.revision == key.revision:
            spec = was.spec
        else:
            raise ProviderError(
                f"the route goes to endpoint {key}, which does not run and is not recorded",
                hint="Bring it back with `llmctl local start`, or let `llmctl apply` put the route right.",
            )
        chain.append({"endpoint": key.name, "revision": key.revision, "spec": spec})
    return chain


def _prompt(revision: str, want: Resource | None, held: Held) -> str:
    """The name of the prompt that a route has: a gateway knows its text alone."""
    declared = str(want.spec["prompt"]) if want else ""
    known = [(a, r.revision) for a, r in held.workspace.resolved.desired.resources.items()]
    known += [(a, was.revision) for a, was in held.state.resources.items()]
    found = sorted({a.name for a, there in known if a.kind == "prompt" and there == revision})
    return declared if declared in found or not found else found[0]


def _only(address: Address, key: Key, keys: Sequence[Key], unreadable: Sequence[Key]) -> Key:
    """The one live revision that a key's first digits name; the key itself where none is, for it is told then."""
    if ALL in unreadable:
        return key
    found = [k for k in (*keys, *(k for k in unreadable if k.name == key.name)) if k.revision.startswith(key.revision)]
    if len(found) > 1:
        names = ", ".join(map(str, found))
        raise _refused(f"several revisions of {address} are live and begin so", f"Name one of: {names}.")
    return found[0] if found else key


def _not_there(kind: str, key: Key, there: Sequence[Key]) -> InvalidInput:
    hint = suggestion(str(key), [str(k) for k in there], "live") if there else f"No {kind} is live."
    return _refused(f"no {kind} {key} is live", hint)


def _undeclared(address: Address, spec: Spec) -> InvalidInput:
    """The next apply would take it away: it must be wanted first."""
    section = kind_of(address.kind).section
    if address.kind == "endpoint":
        entry: Spec = {field: spec[field] for field in _WRITTEN if spec.get(field) is not None}
    elif address.kind == "route":
        entry = {"prompt": spec["prompt"] or "NAME", "endpoint": spec["endpoint"]}
        entry |= {"fallback": spec["fallback"]} if spec["fallback"] else {}
    else:
        entry = {}
    what = f"Write under `{section}:` in llmops.yaml: `{address.name}: {json.dumps(entry, ensure_ascii=False)}`"
    return InvalidInput(
        [
            Diagnostic(
                f"llmops.yaml does not declare {address}, so the next apply would take away what was taken in",
                address=address,
                hint=f"{what if entry else f'Declare it under `{section}:` in llmops.yaml'}; then run it again.",
            )
        ]
    )


def _refused(summary: str, hint: str) -> InvalidInput:
    return InvalidInput([Diagnostic(summary, hint=hint)])
