"""The plan as JSON: for ``--json`` and for the plan file. Reading one back is in ``plan/saved.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum

from llmctl import __version__
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json, digest
from llmctl.core.steps import Step
from llmctl.plan.model import FORMAT, Plan

#: What the digest of a plan covers as it is: what it was made from, what it would do, and what a reviewer is shown.
_COVERED = (
    *("action", "project", "environment", "target", "offline", "rollback_to", "empty", "targets", "inputs", "steps"),
    *("changes", "impact", "waiting", "left_out"),
    *("break_glass", "skipped_gates", "reconciles", "open_break_glass"),
)
#: … and of lists of these, which fields: not what another day, another machine or another measurement says of the
#: same plan. What drifted and what cannot be read is in the inputs, too; its text may name a process.
_COVERED_FIELDS = {
    "drift": ("address",),
    "gates": ("gate", "route", "revision", "baseline", "why", "rules", "as_recorded"),
    "policies": ("policy", "severity", "address", "ok", "message", "error", "basis"),
    "weakened": ("address", "what", "against"),
    "denials": ("address", "summary", "detail"),
    "blocked": ("address",),
}


def _plain(value: object) -> Json:
    """Any frozen plan value as JSON; addresses become ``kind.name``."""
    if isinstance(value, Address):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return value


def step_json(step: Step) -> dict[str, Json]:
    """A step with its type: ``{"type": "stage", "id": …}``."""
    return {"type": type(step).__name__, **_plain(step)}


def diagnostic_json(diagnostic: Diagnostic) -> dict[str, Json]:
    """A diagnostic for programs; ``where`` has file, line and column."""
    where = diagnostic.where
    return {
        "severity": diagnostic.severity.value,
        "summary": diagnostic.summary,
        "address": str(diagnostic.address) if diagnostic.address else None,
        "where": {"file": where.file, "line": where.line, "column": where.column} if where else None,
        "detail": diagnostic.detail,
        "hint": diagnostic.hint,
    }


def plan_digest(plan: Plan) -> str:
    """Names the plan: what it was made from, what it would do, what is against it. This is what people approve."""
    return body_digest(_body(plan))


def body_digest(body: Mapping[str, Json]) -> str:
    """The digest that a plan's JSON should name."""
    return digest(covered(body))


def covered(body: Mapping[str, Json]) -> dict[str, Json]:
    """What of a plan's JSON its digest covers, by part; the same for every plan where nothing has moved."""
    parts: dict[str, Json] = {key: body[key] for key in _COVERED}
    for key, names in _COVERED_FIELDS.items():
        parts[key] = [{name: item[name] for name in names} for item in body[key]]
    parts["weakened"].sort(key=lambda item: (item["address"], item["against"], item["what"]))
    return parts


def covered_of(plan: Plan) -> dict[str, Json]:
    """What the digest of a plan covers, by part."""
    return covered(_body(plan))


def sealed(data: Mapping[str, Json]) -> dict[str, Json]:
    """A plan's JSON with the digest of all of it, so that also an edit of what the plan's own digest leaves out, such
    as its warnings, is noticed. Who approves a plan signs both."""
    return {**data, "seal": seal_of(data)}


def seal_of(data: Mapping[str, Json]) -> str:
    """The seal that a plan's JSON should have."""
    return digest({key: value for key, value in data.items() if key != "seal"})


def plan_json(plan: Plan) -> dict[str, Json]:
    """The whole plan for programs, versioned by ``format``; its schema is ``schema/plan.schema.json``."""
    body = _body(plan)
    return {"format": FORMAT, "llmctl": __version__, "digest": body_digest(body), **body}


def _body(plan: Plan) -> dict[str, Json]:
    return {
        "action": plan.action,
        "project": plan.desired.project,
        "environment": plan.desired.environment.name,
        "target": plan.desired.environment.target,
        "source_commit": plan.source_commit,
        "offline": plan.offline,
        "rollback_to": plan.rollback_to,
        "empty": plan.is_empty,
        "targets": _plain(plan.targets),
        "changes": _plain(plan.changes),
        "drift": _plain(plan.drift),
        "steps": [step_json(s) for s in plan.steps],
        "gates": _plain(plan.gates),
        "impact": list(plan.impact),
        "policies": _plain(plan.policies),
        "weakened": _plain(plan.weakened),
        "denials": [diagnostic_json(d) for d in plan.denials],
        "blocked": [diagnostic_json(d) for d in plan.blocked],
        "waiting": _plain(plan.waiting),
        "left_out": _plain(plan.left_out),
        "warnings": [diagnostic_json(d) for d in plan.warnings],
        "inputs": _plain(plan.inputs),
        "break_glass": plan.break_glass,
        "skipped_gates": _plain(plan.skipped_gates),
        "reconciles": list(plan.reconciles),
        "open_break_glass": [b.to_json() for b in plan.recorded.break_glass],
        "approvals": _plain(plan.approvals),
    }
