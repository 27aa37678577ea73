"""Use case: does the project's own law allow a plan?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime

from llmctl import policy
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.policies import PolicyResult, ran_out
from llmctl.core.resources import Desired, Recorded, Resource, Spec
from llmctl.plan import Plan
from llmctl.plan.moves import Pair, applicable, in_place


def today() -> date:
    """The date in UTC, by which waivers begin and end everywhere alike."""
    return datetime.now(UTC).date()


def judge(made: Plan, desired: Desired, base: Mapping[Address, Resource] | None, day: date) -> tuple[PolicyResult, ...]:
    """All that policies say of a plan, sorted by policy, address and basis.

    The policies of ``desired``, which is all that the file asks for, judge the resources as the plan makes
    them, and the plan as a whole. An apply is also judged by the policies as they are recorded, and as they are
    in ``base``, another revision of the file, when it is given, as far as they are loosened. A destroy is not
    judged: `protect` guards against that.
    """
    if made.action == "destroy":
        return ()
    planned = made.desired
    head = _policies(desired.resources)
    found = [
        *policy.evaluate(head, planned.resources, planned.environment, project=planned.project, today=day),
        *policy.evaluate_plan(head, made, today=day),
    ]
    if made.action == "apply":
        befores = [_policies(made.recorded.resources, planned.moved)]
        befores += [_policies(base, applicable(desired, base))] if base else []
        worse = [r for before in befores for r in policy.evaluate_base(before, head, made, found, today=day)]
        found += {(r.policy, r.address): r for r in reversed(worse)}.values()
    return tuple(sorted(found, key=lambda r: (r.policy, r.address, r.basis != "head")))


def untold(warnings: Iterable[Diagnostic], results: Iterable[PolicyResult], desired: Desired) -> tuple[Diagnostic, ...]:
    """The warnings without those of waivers that ran out where the policy's own result says that all of them did."""
    told = set()
    for result in results:
        judging = desired.resources.get(Address("policy", result.policy))
        if result.note and result.waiver is None and result.basis == "head" and judging is not None:
            mine = [w for w in judging.spec["waivers"] if w["resource"] == str(result.address)]
            told |= {(judging.address, ran_out(w["resource"], w["until"])) for w in mine}
    return tuple(warning for warning in warnings if (warning.address, warning.summary) not in told)


def refusal(result: PolicyResult) -> str:
    """What a result that denies has against its resource, in one line."""
    told = result.error or result.message
    text = "; ".join(part for part in (told.removesuffix(".") if result.note else told, result.note) if part)
    before = ", as it was before this change," if result.basis == "base" else ""
    return f"policy.{result.policy}{before} denies {result.address}" + (f": {text}" if text else "")


def _policies(
    resources: Mapping[Address, Resource] | Mapping[Address, Recorded], moves: Iterable[Pair] = ()
) -> dict[str, Spec]:
    """The specs of policies by name; names, and what waivers are for, as they are after the renames."""
    new = in_place(moves)
    return {
        new.get(address, address).name: _moved(resource.spec, new)
        for address, resource in resources.items()
        if address.kind == "policy"
    }


def _moved(spec: Spec, new: Mapping[Address, Address]) -> Spec:
    if not new or not spec.get("waivers"):
        return spec
    names = {str(old): str(address) for old, address in new.items()}
    return {**spec, "waivers": [{**w, "resource": names.get(w["resource"], w["resource"])} for w in spec["waivers"]]}
