"""What a policy can read: ``resource`` or ``plan``, and ``environment`` and ``project``.

Null safety, in one place. Every field of the kind is there: one that is not set is ``null``. An object with
fields of its own that is set has all of them too (``resource.weights.remote == null`` for local weights); one
that is not set is ``null`` itself, and reading a field of ``null`` is an error, which denies. To allow it,
say so: ``resource.api_key == null || resource.api_key.env == "OPENAI_API_KEY"``. A ``map`` (``options``,
``parameters``, ``lineage.hyperparameters`` …) has the keys that the user wrote: ask with ``has(…)``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.plugins import FieldType, installed
from llmctl.core.resources import Environment, Resource
from llmctl.core.steps import Action

if TYPE_CHECKING:
    from llmctl.plan import Plan, ResourceChange

#: A type by its name, an object by its fields, a list by the shape of its items.
Shape = FieldType
Fields = dict[str, Shape]

#: What policies of a plan as a whole apply to.
PLAN = "plan"

_COMMON: Fields = {"name": "string", "kind": "string", "revision": "string", "protect": "boolean"}
_WEIGHTS: Fields = {"digest": "string", "adapters": [{"digest": "string", "scale": "number"}], "remote": "string"}
_TEMPLATE: Fields = {
    "messages": [{"role": "string", "content": "string"}],
    "variables": "map",
    "parameters": "map",
}
_COUNTED = (Action.CREATE, Action.UPDATE, Action.REPLACE, Action.DELETE, Action.ADOPT, Action.RESTORE, Action.MOVE)

#: The fields of ``resource`` by kind (those of the resolved spec, see ``core.kinds``, and three more) and of ``plan``.
FIELDS: Mapping[str, Fields] = {
    "dataset": {
        **_COMMON,
        "source": "string",
        "format": "string",
        "columns": "map",
        "checks": {"min_rows": "number", "unique": ["string"], "not_null": ["string"]},
        "license": "string",
        "sensitivity": "string",
        "digest": "string",
        "bytes": "number",
        "rows": "number",
    },
    "model": {
        **_COMMON,
        "source": "string",
        "license": "string",
        "lineage": {"base": "string", "trained_on": ["string"], "method": "string", "hyperparameters": "map"},
        "card": {"intended_use": "string", "limitations": "string"},
        "api_key": {"env": "string"},
        "weights": _WEIGHTS,
        "files": [{"path": "string", "digest": "string", "bytes": "number"}],
    },
    "prompt": {**_COMMON, **_TEMPLATE},
    "endpoint": {
        **_COMMON,
        "model": "string",
        "model_revision": "string",
        "engine": "string",
        "context": "number",
        "options": "map",
        "replicas": {"min": "number", "max": "number"},
        "timeouts": {"ready_s": "number", "drain_s": "number"},
        "weights": _WEIGHTS,
        "api_key": {"env": "string"},
    },
    "route": {
        **_COMMON,
        "prompt": "string",
        "endpoint": "string",
        "fallback": ["string"],
        "prompt_revision": "string",
        "template": _TEMPLATE,
        "chain": [{"endpoint": "string", "revision": "string", "spec": "map"}],
        "rollout": {"canary": ["number"], "hold_s": "number"},
        "aliases": ["string"],
    },
    "gate": {
        **_COMMON,
        "route": "string",
        "dataset": "string",
        "dataset_revision": "string",
        "dataset_digest": "string",
        "dataset_format": "string",
        "inputs": "map",
        "expected": "string",
        "metrics": "map",
        "slices": "map",
        "confidence": "number",
        "concurrency": "number",
        "timeouts": {"request_s": "number", "run_s": "number"},
    },
    "policy": {
        **_COMMON,
        "applies_to": "string",
        "require": "string",
        "severity": "string",
        "message": "string",
        "waivers": [{"resource": "string", "until": "string", "reason": "string", "approved_by": "string"}],
    },
    PLAN: {
        "action": "string",
        "counts": {action.value: "number" for action in _COUNTED},
        "changes": [
            {"address": "string", "kind": "string", "name": "string", "action": "string", "reason": "string"},
        ],
        "deletions": ["string"],
        "weakened": ["string"],
        "gates": "number",
        "drift": "number",
        "break_glass": "string",
        "skipped_gates": ["string"],
    },
}

ENVIRONMENT: Fields = {"name": "string", "target": "string"}


def fields_of(applies_to: str) -> Fields | None:
    """The fields of a kind, built in or of an installed package, or of the plan; ``None`` for anything else."""
    if applies_to in FIELDS:
        return FIELDS[applies_to]
    plugin = installed().get(applies_to)
    return {**_COMMON, **plugin.fields} if plugin else None


def root_of(applies_to: str) -> str:
    """The variable that a rule is about: ``plan``, or ``resource``."""
    return PLAN if applies_to == PLAN else "resource"


def resource_view(resource: Resource, wanted: Collection[str] | None = None) -> dict[str, Json]:
    """A resource as a policy sees it, or only the fields that are ``wanted``.

    Raises ``KeyError`` for a kind that has none.
    """
    shape = fields_of(resource.address.kind)
    if shape is None:
        raise KeyError(resource.address.kind)
    known = {
        **resource.spec,
        "name": resource.address.name,
        "kind": resource.address.kind,
        "revision": resource.revision,
    }
    return {field: filled(shape[field], known.get(field)) for field in shape if wanted is None or field in wanted}


def plan_view(plan: Plan) -> dict[str, Json]:
    """A plan as a policy sees it."""
    # A rule that names a gate means it by the name that it had, too.
    renamed = [str(c.moved_from or "") for c in plan.changes if c.address in plan.skipped_gates]
    restored = {step.address for step in plan.steps if getattr(step, "action", None) is Action.RESTORE}
    return {
        **changes_view(plan.changes, restored=len(restored)),
        "action": plan.action,
        "weakened": sorted({str(weakening.address) for weakening in plan.weakened}),
        "gates": len(plan.gates),
        "drift": len(plan.drift),
        "break_glass": plan.break_glass,
        "skipped_gates": [*map(str, plan.skipped_gates), *(name for name in renamed if name)],
    }


def changes_view(changes: Collection[ResourceChange], *, restored: int = 0) -> dict[str, Json]:
    """What a policy sees of the changes of a plan: each of them, how many of which sort, what is deleted."""
    counts = {action.value: sum(c.action is action for c in changes) for action in _COUNTED}
    counts[Action.RESTORE.value] = restored
    counts[Action.MOVE.value] = sum(c.moved_from is not None for c in changes)
    return {
        "counts": counts,
        "changes": [
            {
                "address": str(c.address),
                "kind": c.address.kind,
                "name": c.address.name,
                "action": c.action.value,
                "reason": c.reason,
            }
            for c in changes
        ],
        "deletions": [str(c.address) for c in changes if c.action is Action.DELETE],
    }


def environment_view(environment: Environment) -> dict[str, Json]:
    """An environment as a policy sees it."""
    return {"name": environment.name, "target": environment.target}


def plan_address(environment: Environment) -> Address:
    """How the plan as a whole is named in results and waivers: ``plan.dev``."""
    return Address(PLAN, environment.name)


def filled(shape: Shape, value: Json) -> Json:
    """An object that is set gets all its fields."""
    if isinstance(shape, dict) and isinstance(value, dict):
        return {**dict.fromkeys(shape), **value}
    return value
