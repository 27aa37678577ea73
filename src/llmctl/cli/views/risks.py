"""What a plan risks, a line each, the gravest first. Read off the plan; nothing is judged here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from llmctl.cli.views.changed import phrase
from llmctl.cli.views.layout import count, listed
from llmctl.core.address import Address
from llmctl.core.decisions import BreakGlass
from llmctl.core.policies import PolicyResult
from llmctl.core.resources import Recorded, Resource
from llmctl.core.steps import Action, Promote, Provision, RunGate
from llmctl.plan import Consent, GateForecast, Plan
from llmctl.plan.drift import UNMANAGED
from llmctl.plan.weakened import RECORD


class Tone(Enum):
    """How a line is meant: it stops the apply, it asks for a second look, it only tells."""

    BAD = "bad"
    WARN = "warn"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Point:
    """One line of the gist."""

    sign: str
    text: str
    tone: Tone


def risks(plan: Plan) -> list[Point]:
    """All of them; an ordinary change has none."""
    sources: tuple[Callable[[Plan], Iterator[Point]], ...] = (
        _emergency, _still_open, _blocked, _denials, _policies_that_deny, _gates_known_to_fail, _weakened, _deletions,
        _names_given_up, _unproven, _approvals, _warnings, _other_policies, _twice, _drift, _left_out,
    )  # fmt: skip
    return [point for source in sources for point in source(plan)]


def proven(forecast: GateForecast) -> str:
    """``proven on 2026-11-21 by recorded evidence: PASS``, "" when the gate's verdict is not known yet."""
    if not forecast.cached:
        return ""
    word = "proven" if forecast.cached == "PASS" else "judged"
    day = f" on {forecast.cached_at[:10]}" if forecast.cached_at else ""
    return f"already {word}{day} by recorded evidence: {forecast.cached}"


def reason_of(result: PolicyResult) -> str:
    """The policy's own message, why it could not be judged, and what else is to be known."""
    told = " ".join(text for text in (result.message, f"[{result.error}]" if result.error else "") if text)
    return "; ".join(text for text in (told.removesuffix(".") if result.note else told, result.note) if text)


def stood_then(plan: Plan, policy: str, basis: str) -> str:
    """Which text of a policy judged, to be said after its name; "" for the file's."""
    if basis != "base":
        return ""
    against = {w.against for w in plan.weakened if w.address == Address("policy", policy)}
    others = " and ".join(f"in {name}" for name in sorted(against - {RECORD}))
    if others and RECORD not in against:
        return f", as {others},"
    return f", as it was before this change{f' or {others}' if others else ''},"


def _emergency(plan: Plan) -> Iterator[Point]:
    if plan.break_glass:
        yield Point(
            "✗", f"BREAK-GLASS skips {_skips(plan.skipped_gates, plan.approvals.missing)}: {plan.break_glass}", Tone.BAD
        )


def _still_open(plan: Plan) -> Iterator[Point]:
    for each in plan.recorded.break_glass:
        yield Point("✗", open_since(each), Tone.BAD)


def open_since(found: BreakGlass) -> str:
    """A break-glass that nothing has put right yet, in one line."""
    who = f"{found.actor.split(' <')[0]}, {found.at[:10]}"
    what = _skips(found.gates, found.approvals)
    return f"BREAK-GLASS of serial {found.serial} is open ({who}): {what} skipped, because: {found.reason}"


def _skips(gates: Sequence[Address], approvals: int) -> str:
    parts = [listed(gates)] if gates else []
    parts += [count(approvals, "approval")] if approvals else []
    return " and ".join(parts) or "nothing"


def _approvals(plan: Plan) -> Iterator[Point]:
    consent = plan.approvals
    if consent.required:
        tone = Tone.WARN if consent.missing else Tone.PLAIN
        yield Point("!" if consent.missing else "✓", needed(consent), tone)


def needed(consent: Consent) -> str:
    """How many approvals a plan needs, how many it has, and from whom."""
    has = f"has {len(consent.given)}" + (f": {listed(consent.given)}" if consent.given else "")
    lowered = f" (the file asks for {consent.declared} now)" if consent.declared < consent.required else ""
    others = len(consent.refused)
    more = f"; {others:,} more {'does' if others == 1 else 'do'} not count" if others else ""
    return f"needs {count(consent.required, 'approval')}{lowered}, {has}{more}"


def _blocked(plan: Plan) -> Iterator[Point]:
    for finding in plan.blocked:
        about = f"{finding.address}: " if finding.address else ""
        yield Point("✗", f"{about}{finding.summary}", Tone.BAD)
    if plan.waiting:
        names = listed(plan.waiting)
        yield Point(
            "!", f"{count(len(plan.waiting), 'change')} held, they need what cannot be read: {names}", Tone.WARN
        )


def _denials(plan: Plan) -> Iterator[Point]:
    for denial in plan.denials:
        about = f"{denial.address}: " if denial.address else ""
        yield Point("✗", f"{about}{denial.summary}", Tone.BAD)


def _policies_that_deny(plan: Plan) -> Iterator[Point]:
    yield from _by_policy(plan, denies=True)


def _by_policy(plan: Plan, *, denies: bool) -> Iterator[Point]:
    """One line a policy, however many resources it is about."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for result in plan.policies:
        if not result.ok and result.denies is denies and result.waiver is None:
            groups.setdefault((result.policy, result.basis, reason_of(result)), []).append(str(result.address))
    for (policy, basis, reason), names in groups.items():
        stood = stood_then(plan, policy, basis)
        word, sign, tone = ("denies", "✗", Tone.BAD) if denies else ("warns about", "!", Tone.WARN)
        yield Point(sign, f"policy.{policy}{stood} {word} {listed(names)}: {reason}", tone)


def _gates_known_to_fail(plan: Plan) -> Iterator[Point]:
    for forecast in plan.gates:
        if forecast.cached in ("FAIL", "INCONCLUSIVE"):
            yield Point("✗", f"{forecast.gate} will stop {forecast.route}: {proven(forecast)}", Tone.BAD)


def _weakened(plan: Plan) -> Iterator[Point]:
    rules = {c.address: f"require: {phrase(d)}" for c in plan.changes for d in c.diffs if d.path == "require"}
    for weakening in plan.weakened:
        against = "" if weakening.against == RECORD else f" than in {weakening.against}"
        rule = f" ({rules[weakening.address]})" if weakening.address in rules else ""
        yield Point("▼", f"{weakening.address} asks for less{against}: {'; '.join(weakening.what)}{rule}", Tone.WARN)


def _deletions(plan: Plan) -> Iterator[Point]:
    gone = [c.address for c in plan.changes if c.action is Action.DELETE]
    routes = [a for a in gone if a.kind == "route"]
    if routes:
        yield Point("-", f"deletes {listed(routes)}: requests to it fail from then on", Tone.WARN)
    others = [a for a in gone if a.kind != "route"]
    if others:
        yield Point("-", f"deletes {listed(others, 5)}", Tone.WARN)


def _names_given_up(plan: Plan) -> Iterator[Point]:
    """Aliases that no route answers to any more; of a route that is deleted itself they are told too."""
    if plan.action == "destroy":
        return
    before = {alias for a, was in plan.recorded.resources.items() for alias in _aliases(a, was)}
    routes = {a: want for a, want in plan.desired.resources.items() if a.kind == "route"}
    after = {name for a, want in routes.items() for name in (a.name, *_aliases(a, want))}
    lost = sorted(before - after)
    if lost:
        yield Point("-", f"no route answers to {listed(lost)} any more: requests to it fail from then on", Tone.WARN)


def _aliases(address: Address, resource: Resource | Recorded) -> tuple[str, ...]:
    return tuple(resource.spec.get("aliases") or ()) if address.kind == "route" else ()


def _unproven(plan: Plan) -> Iterator[Point]:
    """A rollback needs no gate: its target was proven when it was first applied."""
    if plan.action != "apply":
        return
    proofs = {(s.route, s.revision) for s in plan.steps if isinstance(s, RunGate)}
    bare = [
        s.address
        for s in plan.steps
        if isinstance(s, Promote) and s.action is not Action.RESTORE and (s.address, s.revision) not in proofs
    ]
    if bare:
        verb, on = ("goes", "it") if len(bare) == 1 else ("go", "them")
        why = "gates are skipped" if plan.skipped_gates else f"no gate is on {on}"
        yield Point("!", f"{listed(bare)} {verb} live unproven: {why}", Tone.WARN)


def _warnings(plan: Plan) -> Iterator[Point]:
    for warning in plan.warnings:
        about = f"{warning.address}: " if warning.address else ""
        yield Point("!", f"{about}{warning.summary}", Tone.WARN)


def _other_policies(plan: Plan) -> Iterator[Point]:
    yield from _by_policy(plan, denies=False)
    for result in plan.policies:
        if result.waiver is not None and not result.ok:
            until = f"until {result.waiver.until}"
            text = f"policy.{result.policy} is waived for {result.address} {until}: {result.waiver.reason}"
            yield Point("!", f"{text}{f'; {result.note}' if result.note else ''}", Tone.WARN)
        elif result.note and result.ok:
            yield Point("!", f"policy.{result.policy} on {result.address}: {result.note}", Tone.WARN)


def _twice(plan: Plan) -> Iterator[Point]:
    double = [
        s.address
        for s in plan.steps
        if isinstance(s, Provision) and s.address.kind == "endpoint" and s.action is Action.REPLACE
    ]
    if double:
        verb = "runs" if len(double) == 1 else "run"
        yield Point(
            "!", f"{listed(double)} {verb} twice during the rollout, the new revision beside the old", Tone.WARN
        )


def _drift(plan: Plan) -> Iterator[Point]:
    drifted = [d for d in plan.drift if not d.summary.startswith(UNMANAGED)]
    if drifted:
        said = listed((f"{d.address} ({d.summary})" for d in drifted), 2)
        yield Point("↺", f"{len(drifted):,} drifted from the record and restored: {said}", Tone.WARN)
    others = [d for d in plan.drift if d.summary.startswith(UNMANAGED)]
    if others:
        said = listed((f"{d.address} ({d.summary.removeprefix(UNMANAGED)})" for d in others), 2)
        what = "taken away where llmops.yaml does not declare it, unless `llmctl import` takes it in"
        yield Point("-", f"{len(others):,} unmanaged, {what}: {said}", Tone.WARN)


def _left_out(plan: Plan) -> Iterator[Point]:
    if plan.left_out:
        names = listed(plan.left_out)
        yield Point("!", f"left out by --target, though it would change too: {names}", Tone.WARN)
    if plan.offline:
        yield Point("!", "live state unknown (--offline): drift is not shown, and this cannot be applied", Tone.WARN)
