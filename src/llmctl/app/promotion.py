"""Use case: nothing reaches an environment that has not passed in the one before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from llmctl import spec
from llmctl.app.workspace import Workspace
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.core.resources import Environment, RecordState, Spec
from llmctl.plan import Plan
from llmctl.record import Reader


@dataclass(frozen=True, order=True, slots=True)
class Artifact:
    """One artifact revision that a route uses."""

    address: Address
    revision: str

    def __str__(self) -> str:
        return f"{self.address}@{self.revision[:8]}"


@dataclass
class _Route:
    """What is known of a route in the source environment, as far as its record was read."""

    want: frozenset[Artifact]
    passed: bool = False
    serves: frozenset[Artifact] = frozenset()
    seen: set[Artifact] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)  # route revisions that would fit and were rolled back


def readers(workspace: Workspace) -> Callable[[str], Reader]:
    """Opens the record of any environment of the file; that raises ``InvalidInput`` for one that is not in it."""
    return lambda name: Reader(workspace.repository, spec.environment_name(workspace.document, name))


def promotion_source(environment: Environment, asked: str = "") -> str:
    """The environment whose record decides, "" for none; raises ``InvalidInput`` for one that cannot be it."""
    declared = environment.promote_from
    name = environment.name
    if asked == name:
        raise InvalidInput([Diagnostic(f"{name} cannot be promoted from itself", hint="Name two environments.")])
    if asked and declared and asked != declared:
        raise InvalidInput(
            [
                Diagnostic(
                    f"{name} is promoted from {declared}, not from {asked}",
                    hint=f"Run `llmctl promote {declared} {name}`, or change its `promote_from`.",
                )
            ]
        )
    return asked or declared


def artifacts_of(route: Spec) -> frozenset[Artifact]:
    """The artifact revisions that a route's resolved spec uses: its prompt, and the models of its whole chain."""
    endpoints = (link["spec"] for link in route["chain"])
    return frozenset(
        {
            Artifact(Address("prompt", route["prompt"]), route["prompt_revision"]),
            *(Artifact(Address("model", e["model"]), e["model_revision"]) for e in endpoints),
        }
    )


def promoted(made: Plan) -> Mapping[Address, frozenset[Artifact]]:
    """The routes that get a new revision by this plan, each with the artifact revisions that it uses."""
    resources = made.desired.resources
    changed = (c for c in made.changes if c.address.kind == "route" and c.after and c.after != c.before)
    return {c.address: artifacts_of(resources[c.address].spec) for c in changed}


def missing_promotions(made: Plan, reader_of: Callable[[str], Reader], source: str = "") -> tuple[Diagnostic, ...]:
    """Why an apply is denied: what its routes use has not passed together in the environment before.

    ``source`` is what `promote` was asked for; else `promote_from` decides, and without that nothing is
    missing. What passed is what an applied entry of that record has a route of the same name on; a route
    revision that a rollback left there does not count. A rollback and a destroy need no promotion.
    """
    source = promotion_source(made.desired.environment, source)
    if not source or made.action != "apply":
        return ()
    reader = reader_of(source)
    routes = {address: _Route(want) for address, want in promoted(made).items()}
    if not routes:
        return ()
    now = reader.state()
    for address, route in routes.items():
        if address in now.resources:
            route.serves = artifacts_of(now.resources[address].spec)
    for state in _applied_states(reader, now, routes):
        _look(routes, state, now)
        if all(route.passed for route in routes.values()):
            break
    name = made.desired.environment.name
    return tuple(_denial(name, source, address, r, now) for address, r in sorted(routes.items()) if not r.passed)


def _applied_states(reader: Reader, now: RecordState, routes: Mapping[Address, _Route]) -> Iterator[RecordState]:
    """What applied entries recorded, newest first, as far as it can tell more of the routes that still miss.

    Mostly the current state is all that has to be read.
    """
    newest = reader.entries(limit=1)
    fresh = not newest or newest[0].outcome != "applied"
    if not fresh:
        yield now
    for entry in reader.entries():
        if fresh and entry.outcome == "applied":
            yield reader.state_at(entry.serial)
            fresh = False
        missing = {address for address, route in routes.items() if not route.passed}
        fresh = fresh or not missing.isdisjoint(entry.resources)


def _look(routes: Mapping[Address, _Route], state: RecordState, now: RecordState) -> None:
    rejected = {(r.address, r.revision) for r in now.rejections}
    for address, route in routes.items():
        recorded = state.resources.get(address)
        if recorded is None:
            continue
        there = artifacts_of(recorded.spec)
        if (address, recorded.revision) in rejected:
            if route.want <= there:
                route.rejected.add(recorded.revision)
            continue
        route.seen |= there
        route.passed = route.passed or route.want <= there


def _denial(name: str, source: str, address: Address, route: _Route, now: RecordState) -> Diagnostic:
    lacking = route.want - route.seen or route.want
    what = " and ".join(str(artifact) for artifact in sorted(lacking))
    has = "has" if len(lacking) == 1 else "have"
    summary = f"{what} {has} not passed in {source}"
    hint = f"Run `llmctl apply -e {source}` first; what passes its gates there may be applied to {name}."
    if route.rejected:
        revision = min(route.rejected)[:8]
        summary = f"{what} {has} been rolled back in {source}, as {address}@{revision}"
        hint = f"Change it, or run `llmctl unreject {revision} -e {source} --reason …` to say why it is good again."
    elif route.want <= route.seen:
        summary = f"{what} have passed in {source} only apart, never together"
    serves = " and ".join(str(artifact) for artifact in sorted(route.serves))
    detail = f"{source} serves {serves}." if serves else f"{source} serves no {address}."
    if not now.serial:
        detail = f"Nothing is applied in {source} yet."
    return Diagnostic(summary, address=address, detail=detail, hint=hint)
