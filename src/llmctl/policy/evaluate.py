"""Evaluate policies: on resources, on a plan as a whole, and as they were before a change loosened them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.policies import PolicyResult
from llmctl.core.resources import Environment, Resource
from llmctl.core.steps import Action
from llmctl.policy.check import understood
from llmctl.policy.engine import ERRORS
from llmctl.policy.fields import PLAN, environment_view, plan_address, plan_view, resource_view
from llmctl.policy.waivers import waived

if TYPE_CHECKING:
    from llmctl.plan import Plan

Specs = Mapping[str, Mapping[str, Json]]

#: What a policy asks for. Who may be excepted is a part of it: a new waiver lets through what was refused before.
_ASKS = ("applies_to", "require", "severity", "waivers")

_LOOSENED = "apply the loosened policy in a change of its own first"


def evaluate(
    policies: Specs, resources: Mapping[Address, Resource], environment: Environment, *, project: str, today: date
) -> tuple[PolicyResult, ...]:
    """Judge every resource by every policy that applies to its kind, sorted by policy and address.

    ``policies`` maps names to resolved specs, ``today`` is the date in UTC by which waivers are in force.
    Never raises for what a policy does: that is a denial.
    """
    shared = {"environment": environment_view(environment), "project": project}
    by_kind: dict[str, list[Resource]] = {}
    for address in sorted(resources):
        by_kind.setdefault(address.kind, []).append(resources[address])
    results = []
    for name, spec in sorted(policies.items()):
        wanted = understood(spec["applies_to"], spec["require"]).wanted
        for resource in by_kind.get(spec["applies_to"], ()):
            view = {**shared, "resource": resource_view(resource, wanted)}
            results.append(_result(name, spec, resource.address, view, today))
    return tuple(results)


def evaluate_plan(policies: Specs, plan: Plan, *, today: date) -> tuple[PolicyResult, ...]:
    """Judge a plan by the policies that apply to plans, sorted by policy; the address is ``plan.<environment>``."""
    desired = plan.desired
    ours = sorted((name, spec) for name, spec in policies.items() if spec["applies_to"] == PLAN)
    if not ours:
        return ()
    view = {
        "environment": environment_view(desired.environment),
        "project": desired.project,
        PLAN: plan_view(plan),
    }
    return tuple(_result(name, spec, plan_address(desired.environment), view, today) for name, spec in ours)


def evaluate_base(
    before: Specs, now: Specs, plan: Plan, head: Iterable[PolicyResult], *, today: date
) -> tuple[PolicyResult, ...]:
    """Judge what a plan changes by the policies as they were ``before`` it, where that is not as they are ``now``.

    Only results are kept that are worse than those of ``head``, which are of the policies as they are now. What
    the plan leaves as it is recorded is not judged, nor is the plan as a whole when it changes nothing but
    policies: otherwise a policy could never be loosened.
    """
    desired = plan.desired
    others = {name: spec for name, spec in before.items() if _asks(spec) != _asks(now.get(name, {}))}
    if not others:
        return ()
    changed = {
        c.address: desired.resources[c.address]
        for c in plan.changes
        if c.action not in (Action.DELETE, Action.MOVE) and c.address in desired.resources
    }
    found = evaluate(others, changed, desired.environment, project=desired.project, today=today)
    if any(c.address.kind != "policy" for c in plan.changes):
        found += evaluate_plan(others, plan, today=today)
    let_through = {(r.policy, r.address): _weight(r) for r in head}
    return tuple(
        replace(r, basis="base", note=_LOOSENED)
        for r in found
        if _weight(r) > let_through.get((r.policy, r.address), 0) and r.address != Address("policy", r.policy)
    )


def outcome(applies_to: str, require: str, view: Mapping[str, Json]) -> tuple[bool, str]:
    """Whether a rule holds over its variables, and why it could not be told ("" when it could).

    Rules of the record never passed this version's ``check``, so it is made again; it is cached.
    """
    rule = understood(applies_to, require)
    if rule.program is None:
        return False, "; ".join(complaint.summary for complaint, _ in rule.faults)
    try:
        result = rule.program.execute(dict(view))
    except KeyError as error:
        return False, f"a key is not there: {error.args[0]}"
    except ERRORS as error:
        return False, str(error)
    if not isinstance(result, bool):
        return False, f"the rule gives {_type(result)}, not true or false"
    return result, ""


def severity_of(spec: Mapping[str, Json]) -> str:
    """``warn`` only when just that is said."""
    return "warn" if spec.get("severity") == "warn" else "deny"


def _result(
    name: str, spec: Mapping[str, Json], address: Address, view: Mapping[str, Json], today: date
) -> PolicyResult:
    ok, error = outcome(spec["applies_to"], spec["require"], view)
    result = PolicyResult(name, severity_of(spec), address, ok, spec.get("message") or "", error)
    return waived(result, spec.get("waivers") or (), today)


def _asks(spec: Mapping[str, Json]) -> list[Json]:
    return [spec.get(field) or None for field in _ASKS]


def _weight(result: PolicyResult) -> int:
    if result.denies:
        return 2
    return int(not result.ok and result.waiver is None)


def _type(value: object) -> str:
    return "null" if value is None else f"a value of type {type(value).__name__}"
