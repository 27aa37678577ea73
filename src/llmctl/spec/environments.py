"""Environments: choosing one, and which promotes from which."""

from __future__ import annotations

from collections.abc import Mapping

from llmctl.core.resources import Environment
from llmctl.spec.models import EnvironmentShape
from llmctl.spec.report import Report
from llmctl.spec.suggestions import suggestion


def environment_of(name: str, shape: EnvironmentShape) -> Environment:
    """The environment that a shape declares."""
    remote = "" if shape.record.remote == "none" else shape.record.remote
    return Environment(
        name, shape.target, shape.gateway.port, shape.promote_from, shape.approvals, remote, shape.record.sign
    )


def check_promotion(report: Report, name: str, environments: Mapping[str, Environment]) -> None:
    """Report a ``promote_from`` that names no other environment, or that comes back to its start."""
    location = ("environments", name, "promote_from")
    origin = environments[name].promote_from
    if origin == name:
        report.error(location, f"{name} cannot be promoted from itself", hint="Name the environment before it.")
    elif origin and origin not in environments:
        hint = suggestion(origin, set(environments) - {name}, "other environments")
        report.error(location, f"there is no environment {report.written(location)!r}", hint=hint)
    else:
        path = [name]
        while origin in environments and origin not in path:
            path.append(origin)
            origin = environments[origin].promote_from
        if origin == name and name == min(path):  # told once, at the first by name
            report.error(location, f"a cycle of promotions: {' ← '.join([*path, name])}", hint="Remove one of them.")
