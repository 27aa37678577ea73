"""Use case: nothing reaches an environment that has not passed in the one before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from llmctl import spec
from llmctl.app.promotion_proof import Origin, Sought, find_origin, nowhere, open_break_glass
from llmctl.app.workspace import Workspace
from llmctl.core.address import Address
from llmctl.core.decisions import PromotionProof
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.digests import Json
from llmctl.core.errors import InvalidInput
from llmctl.core.resources import Environment, Recorded, RecordState, Spec
from llmctl.plan import Plan
from llmctl.record import Reader, Verification


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
    proof: Mapping[str, Json] | None = None  # that it passed there, as the entry of the apply keeps it
    gates: tuple[str, ...] = ()  # with which it passed
    serves: frozenset[Artifact] = frozenset()
    seen: set[Artifact] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)  # route revisions that would fit and were rolled back
    unproven: str = ""  # why the newest entry that has it does not count


@dataclass(frozen=True, slots=True)
class Promotion:
    """Whether what a plan brings to its routes has passed in the environment before, and what that rests on."""

    denials: tuple[Diagnostic, ...] = ()
    warnings: tuple[Diagnostic, ...] = ()
    proof: PromotionProof | None = None


NOTHING = Promotion()


def origins(workspace: Workspace, sought: Sought) -> Callable[[str], Origin]:
    """Opens the record of any environment of the file; that raises ``InvalidInput`` for one that is not in it."""

    def origin_of(name: str) -> Origin:
        declared = workspace.document.environments[spec.environment_name(workspace.document, name)]
        return find_origin(workspace.repository, declared, sought)

    return origin_of


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


def promotion(made: Plan, origin_of: Callable[[str], Origin], source: str = "") -> Promotion:
    """Why an apply is denied: what its routes use has not passed together in the environment before; or else what
    it rests on.

    ``source`` is what `promote` was asked for; else `promote_from` decides, and without that nothing is missing.
    What passed is what an applied entry of that record has a route of the same name on, with evidence that every
    gate that was recorded for it let it pass; a route revision that a rollback left there does not count. The
    record must verify. A rollback and a destroy need no promotion.
    """
    source = promotion_source(made.desired.environment, source)
    routes = {address: _Route(want) for address, want in promoted(made).items()}
    if not source or made.action != "apply" or not routes:
        return NOTHING
    origin = origin_of(source)
    now = origin.state()
    if not now.serial:
        return Promotion(tuple(_denial(made, origin, a, r, now) for a, r in sorted(routes.items())))
    if now.project != made.desired.project:
        return Promotion((_other_project(made, origin, now),))
    verified = origin.verified()
    if verified.findings:
        return Promotion((_unverified(origin, verified),))
    for address, route in routes.items():
        if address in now.resources:
            route.serves = artifacts_of(now.resources[address].spec)
    for state in _applied_states(origin.reader, now, routes):
        _look(origin, routes, state, now)
        if all(route.proof for route in routes.values()):
            break
    denials = tuple(_denial(made, origin, a, r, now) for a, r in sorted(routes.items()) if not r.proof)
    if denials:
        return Promotion(denials)
    found = {str(address): route.proof or {} for address, route in sorted(routes.items())}
    proof = PromotionProof(source, verified.head, now.serial, verified.anchor, found)
    ungated = tuple(_ungated(source, a, r) for a, r in sorted(routes.items()) if not r.gates)
    return Promotion(warnings=ungated, proof=proof)


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
        missing = {address for address, route in routes.items() if not route.proof}
        # With the gates of before the same revision may have been proven.
        fresh = fresh or any(a in missing or a.kind == "gate" for a in entry.resources)


def _look(origin: Origin, routes: Mapping[Address, _Route], state: RecordState, now: RecordState) -> None:
    rejected = {(r.address, r.revision) for r in now.rejections}
    for address, route in routes.items():
        recorded = state.resources.get(address)
        if recorded is None or route.proof:
            continue
        there = artifacts_of(recorded.spec)
        if (address, recorded.revision) in rejected:
            if route.want <= there:
                route.rejected.add(recorded.revision)
            continue
        route.seen |= there
        if route.want <= there:
            _prove(origin, route, recorded, state, now)


def _prove(origin: Origin, route: _Route, recorded: Recorded, state: RecordState, now: RecordState) -> None:
    """Find evidence of every gate that was recorded for the route then; keep it, or why there is none."""
    gates = [
        resource
        for address, resource in sorted(state.resources.items())
        if address.kind == "gate" and resource.spec["route"] == recorded.address.name
    ]
    evidence: list[str] = []
    for gate in gates:
        if skipped := open_break_glass(now, state.serial, gate):
            skip = f"Apply serial {skipped} skipped {gate.address} in an emergency, and nothing has passed it since."
            route.unproven = route.unproven or skip
            return
        found = origin.proof_of(recorded, gate)
        if found is None:
            which = f"{recorded.address}@{recorded.revision[:8]} of serial {state.serial}"
            route.unproven = route.unproven or f"No evidence there says that {which} passed {gate.address}."
            return
        evidence.append(f"{found.gate} {found.digest}")
    route.gates = tuple(gate.address.name for gate in gates)
    route.proof = {
        "serial": state.serial,
        "revision": recorded.revision,
        "artifacts": [f"{a.address}@{a.revision}" for a in sorted(artifacts_of(recorded.spec))],
        "evidence": evidence,
    }


def _ungated(source: str, address: Address, route: _Route) -> Diagnostic:
    serial = (route.proof or {}).get("serial")
    return Diagnostic(
        f"{address} had no gate in {source}: it was applied there (serial {serial}), and nothing was measured",
        Severity.WARNING,
        address=address,
        hint="Add a gate for it; what passes that may be promoted.",
    )


def _unverified(origin: Origin, found: Verification) -> Diagnostic:
    first, *more = found.findings
    others = f" and {len(more)} more" if more else ""
    return Diagnostic(
        f"the record of {origin.environment} does not verify, so it vouches for nothing: {first.reason}{others}",
        address=Address("environment", origin.environment),
        detail=f"Commit {first.commit[:12] or 'none'} ({first.anchor}).",
        hint=f"`llmctl audit verify -e {origin.environment} --signed-from 1` where that record lies lists all that it "
        "finds. One that began unsigned vouches where nobody said whose signatures count, or is begun anew, signed.",
    )


def _other_project(made: Plan, origin: Origin, now: RecordState) -> Diagnostic:
    name = origin.environment
    return Diagnostic(
        f"the record of {name} is one of project {now.project}, and this is {made.desired.project}",
        address=Address("environment", name),
        hint=f"Name the record of {made.desired.project}'s own {name}.",
    )


def _denial(made: Plan, origin: Origin, address: Address, route: _Route, now: RecordState) -> Diagnostic:
    name, source = made.desired.environment.name, origin.environment
    lacking = route.want - route.seen or route.want
    what = " and ".join(str(artifact) for artifact in sorted(lacking))
    has = "has" if len(lacking) == 1 else "have"
    summary = f"{what} {has} not passed in {source}"
    hint = f"Run `llmctl apply -e {source}` first; what passes its gates there may be applied to {name}."
    serves = " and ".join(str(artifact) for artifact in sorted(route.serves))
    detail = f"{source} serves {serves}." if serves else f"{source} serves no {address}."
    if route.rejected:
        revision = min(route.rejected)[:8]
        summary = f"{what} {has} been rolled back in {source}, as {address}@{revision}"
        hint = f"Change it, or run `llmctl unreject {revision} -e {source} --reason …` to say why it is good again."
    elif route.unproven:
        summary = f"{what} {has} been applied in {source}, and not been proven there"
        detail = route.unproven
        hint = f"Run `llmctl apply -e {source}`, whose gates must pass; what passes there may be applied to {name}."
    elif route.want <= route.seen:
        summary = f"{what} have passed in {source} only apart, never together"
    if not now.serial:
        detail, hint = f"Nothing is applied in {source} yet.", f"{hint}\n{nowhere(source)}"
    return Diagnostic(summary, address=address, detail=detail, hint=hint)
