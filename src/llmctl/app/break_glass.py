"""Use case: an emergency. What a break-glass skips, what stays open after it, and what closes that again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date

from llmctl.app.policies import judge
from llmctl.app.workspace import Workspace
from llmctl.apply import ApplyResult, State
from llmctl.core.address import Address
from llmctl.core.decisions import BreakGlass
from llmctl.core.diagnostics import Diagnostic, printable
from llmctl.core.digests import Json
from llmctl.core.errors import InvalidInput
from llmctl.core.evidence import Evidence, Verdict
from llmctl.core.policies import PolicyResult
from llmctl.core.protocols import Change
from llmctl.core.resources import Desired, Recorded
from llmctl.core.steps import Move
from llmctl.plan import Plan, skippable, skipped, undone

LEAST = 10  # characters of a reason: a word is none


def checked_reason(text: str) -> str:
    """The reason on one line, without what steers a terminal; raises ``InvalidInput`` for one that says nothing."""
    reason = printable(" ".join(text.split()))
    if len(reason) < LEAST:
        hint = f"Say in a sentence what is broken and why it cannot wait, in {LEAST} characters or more."
        raise InvalidInput([Diagnostic("--break-glass needs a reason that others can judge by later", hint=hint)])
    return reason


def broken(made: Plan, desired: Desired, reason: str, missing: int, day: date) -> Plan:
    """The plan without the gates that could stop it and that policy lets it skip; so many approvals are ``missing``.

    The plan as it is when nothing had to be skipped: then it is an ordinary one. ``desired`` is all that the file
    asks for. Policies judge the plan anew, as the emergency that it is; what they deny stays denied.
    """
    gates = skippable(made)
    if not gates and not missing:
        return made
    least = _judged(skipped(made, (), reason), desired, day)
    allowed = _denying(least)
    chosen: tuple[Address, ...] = ()
    found = least
    for gate in gates:
        results = _judged(skipped(made, (*chosen, gate), reason), desired, day)
        if _denying(results) <= allowed:
            chosen, found = (*chosen, gate), results
    if not chosen and not missing:
        raise InvalidInput(
            [
                Diagnostic(
                    f"policies let this break-glass skip none of {', '.join(map(str, gates))}",
                    hint="Run it without --break-glass; the gates then decide.",
                )
            ]
        )
    emergency = replace(skipped(made, chosen, reason), policies=found)
    if not emergency.steps and not emergency.blocked:
        summary = "nothing is to be done but to put an earlier break-glass right, and a break-glass does not do that"
        raise InvalidInput([Diagnostic(summary, hint="Run it without --break-glass.")])
    return emergency


def _judged(made: Plan, desired: Desired, day: date) -> tuple[PolicyResult, ...]:
    """What policies say of a break-glass; those of another revision of the file said it when the plan was saved."""
    results = judge(made, desired, None, day)
    known = {(r.policy, r.address) for r in results if r.basis == "base"}
    kept = [r for r in made.policies if r.basis == "base" and (r.policy, r.address) not in known]
    return tuple(sorted((*results, *kept), key=lambda r: (r.policy, r.address, r.basis != "head")))


def _denying(results: Iterable[PolicyResult]) -> set[tuple[str, Address, str]]:
    return {(r.policy, r.address, r.basis) for r in results if r.denies}


def opening(own: BreakGlass) -> Change:
    """The first change of a break-glass: the history says so before anything is done."""
    return Change(f"break-glass: {own.reason}", trailers=[("Break-Glass", own.reason)])


@dataclass(frozen=True, slots=True)
class Ended:
    """What an apply left: ``still_open`` are all that hold from now on, ``closed`` the serials that it closed."""

    still_open: tuple[BreakGlass, ...]
    closed: tuple[int, ...]


def ended(
    made: Plan, result: ApplyResult | None, known: Iterable[Evidence], own: BreakGlass | None, *, finished: bool
) -> Ended:
    """What of earlier break-glasses, and of this one (``own``), is still to be put right.

    A gate is, until there is evidence that it let pass what now serves: also when a rollback or a new revision
    replaced what was unproven. Missing approvals are, until a whole apply was approved. A destroy ends everything.
    """
    before = made.recorded.break_glass
    if made.action == "destroy" and finished:
        return Ended((), tuple(b.serial for b in before))
    after = result.resources if result else made.recorded.resources
    done = [r.step for r in result.results if r.state is State.DONE] if result else []
    to = {step.origin: step.address for step in done if isinstance(step, Move)}
    found = [*known, *(report.evidence for report in (result.gates if result else ()) if not report.as_recorded)]
    proofs = _Proofs(after, found, any_gate=made.action == "rollback")
    approved = finished and not made.break_glass and not made.targets and not made.blocked
    left = []
    for each in before:
        gates = tuple(g for g in (to.get(gate, gate) for gate in each.gates) if not proofs.has(g))
        left.append(replace(each, gates=gates, approvals=0 if approved else each.approvals))
    if own is not None and (finished or dict(after) != dict(made.recorded.resources)):
        left.append(replace(own, gates=tuple(gate for gate in own.gates if not proofs.has(gate))))
    still = tuple(b for b in left if b.gates or b.approvals)
    serials = {b.serial for b in still}
    return Ended(still, tuple(b.serial for b in before if b.serial not in serials))


class _Proofs:
    """Which gates have passed what serves, by the evidence."""

    def __init__(self, after: Mapping[Address, Recorded], found: Iterable[Evidence], *, any_gate: bool) -> None:
        self._after = after
        self._any_gate = any_gate  # what a rollback goes back to passed the gate as it was then
        self._passed = {
            (e.gate, e.route_revision, "" if any_gate else e.gate_revision) for e in found if e.verdict is Verdict.PASS
        }

    def has(self, gate: Address) -> bool:
        """Whether it passed, or has nothing to pass any more."""
        judge = self._after.get(gate)
        route = self._after.get(Address("route", judge.spec["route"])) if judge else None
        if judge is None or route is None:
            return True
        return (gate.name, route.revision, "" if self._any_gate else judge.revision) in self._passed


def interrupted(workspace: Workspace, tip: str, serial: int, decisions: Mapping[str, Json]) -> tuple[BreakGlass, ...]:
    """What is to be put right after an attempt that was interrupted; ``tip`` is its last commit, "" for none, and
    ``decisions`` what had been decided before it began.

    When it was a break-glass itself, that is open too: what it had done when it was killed, nobody knows for sure.
    """
    before = workspace.recorded()
    found = list(before.break_glass)
    if found and tip:
        to = {old: new for new, old in undone(before, workspace.reader.state_of(tip))}
        found = [replace(b, gates=tuple(to.get(gate, gate) for gate in b.gates)) for b in found]
    if own := decisions.get("break_glass"):
        found.append(replace(BreakGlass.from_json(own), serial=serial))
    return tuple(found)
