"""Use case: is the file right? Everything that can be said without looking at what runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from llmctl import gates, policy, spec
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, Severity, in_order
from llmctl.core.errors import InvalidInput
from llmctl.core.resources import Desired, Resource


def checked(document: spec.Document, environment: str) -> spec.Resolved:
    """Resolve one environment and run the checks that need gates and policies; with the warnings of all of them.

    Raises ``InvalidInput`` with every error.
    """
    resolved = spec.resolve(document, environment)
    findings = [*_policies(resolved.desired), *_gates(resolved.desired)]
    if any(d.is_error for d in findings):
        raise InvalidInput(in_order(findings))
    warnings = (*document.warnings, *resolved.warnings, *findings, *_too_small(resolved.desired))
    return replace(resolved, warnings=warnings)


def validate(document: spec.Document, environment: str | None) -> list[Diagnostic]:
    """Check one environment, or all of them. Returns warnings; raises ``InvalidInput`` with every error."""
    names = [spec.environment_name(document, environment)] if environment else list(document.environments)
    warnings: dict[str, Diagnostic] = {}
    errors: dict[str, Diagnostic] = {}
    for name in names:
        try:
            warnings |= {repr(d): d for d in checked(document, name).warnings}
        except InvalidInput as error:
            errors |= {repr(d): d for d in error.findings}
    if errors:
        raise InvalidInput(in_order(errors.values()))
    return in_order(warnings.values())


def _policies(desired: Desired) -> list[Diagnostic]:
    return [
        replace(finding, where=finding.where or resource.where)
        for address, resource in desired.resources.items()
        if address.kind == "policy"
        for finding in policy.check(address, resource.spec)
    ]


def _gates(desired: Desired) -> list[Diagnostic]:
    """What the scorers themselves refuse, for example a schema that refers to one that is not there."""
    return [
        Diagnostic(what, where=resource.where, address=address, hint=hint)
        for address, resource in desired.resources.items()
        if address.kind == "gate"
        for what, hint in gates.spec_findings(resource.spec)
    ]


def _too_small(desired: Desired) -> list[Diagnostic]:
    """Warn when a dataset cannot prove its gate's threshold even with a perfect score."""
    found = []
    for address, resource in desired.resources.items():
        if address.kind != "gate":
            continue
        dataset = desired.resources[Address("dataset", resource.spec["dataset"])]
        found += [
            Diagnostic(
                line,
                Severity.WARNING,
                where=resource.where,
                address=address,
                hint="Add rows, lower the threshold, or write `decide: point` for that metric.",
            )
            for line in gates.too_small(resource.spec, dataset.spec["rows"], _slices(desired, resource, dataset))
        ]
    return found


def _slices(desired: Desired, gate: Resource, dataset: Resource) -> dict[str, dict[str, int]]:
    """The rows of each slice of a gate; the dataset is read for it only when the gate has slices."""
    if not gate.spec["slices"]:
        return {}
    rows = spec.dataset_rows(Path(desired.root, dataset.spec["source"]), dataset.spec["format"])
    return gates.slice_counts(gate.spec, (row for _, row in rows))
