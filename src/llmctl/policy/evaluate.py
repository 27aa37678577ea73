"""Evaluate policies on resources."""

from __future__ import annotations

from collections.abc import Mapping

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.policies import PolicyResult
from llmctl.core.resources import Environment, Resource
from llmctl.policy.check import findings
from llmctl.policy.engine import ERRORS, compiled
from llmctl.policy.fields import environment_view, resource_view


def evaluate(
    policies: Mapping[str, Mapping[str, Json]],
    resources: Mapping[Address, Resource],
    environment: Environment,
    *,
    project: str,
) -> tuple[PolicyResult, ...]:
    """Judge every resource by every policy that applies to its kind, sorted by policy and address.

    ``policies`` maps names to resolved specs. Never raises for what a policy does: that is a denial.
    """
    shared = {"environment": environment_view(environment), "project": project}
    results = []
    for name, spec in sorted(policies.items()):
        for address, resource in sorted(resources.items()):
            if address.kind == spec["applies_to"]:
                ok, error = _judge(spec, resource, shared)
                severity = "warn" if spec.get("severity") == "warn" else "deny"
                results.append(PolicyResult(name, severity, address, ok, spec.get("message") or "", error))
    return tuple(results)


def _judge(spec: Mapping[str, Json], resource: Resource, shared: Mapping[str, Json]) -> tuple[bool, str]:
    """Whether the rule holds, and why it could not be told.

    Rules of the record never passed this version's ``check``, so it is made again; it is cached.
    """
    faults = findings(spec["applies_to"], spec["require"])
    if faults:
        return False, "; ".join(complaint.summary for complaint, _ in faults)
    try:
        result = compiled(spec["require"]).execute({**shared, "resource": resource_view(resource)})
    except KeyError as error:
        return False, f"a key is not there: {error.args[0]}"
    except ERRORS as error:
        return False, str(error)
    if not isinstance(result, bool):
        return False, f"the rule gives {_type(result)}, not true or false"
    return result, ""


def _type(value: object) -> str:
    return "null" if value is None else f"a value of type {type(value).__name__}"
