"""What a policy can read: ``resource``, ``environment`` and ``project``.

Null safety, in one place. Every field of the kind is there: one that is not set is ``null``. An object of
``NESTED`` that is set has all its fields too (``resource.weights.remote == null`` for local weights); one
that is not set is ``null`` itself, and reading a field of ``null`` is an error, which denies. To allow it,
say so: ``resource.lineage == null || resource.lineage.base == "tiny-base"``. Objects with free keys
(``options``, ``parameters``, ``lineage.hyperparameters`` …) have what the user wrote: ask with ``has(…)``.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmctl.core.digests import Json
from llmctl.core.resources import Environment, Resource

_COMMON = ("name", "kind", "revision")

#: The fields of ``resource`` by kind: those of the resolved spec (``core.kinds``) and three of every kind.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "dataset": (*_COMMON, "source", "format", "columns", "checks", "license", "sensitivity", "digest", "bytes", "rows"),
    "model": (*_COMMON, "source", "license", "lineage", "card", "api_key", "weights", "files"),
    "prompt": (*_COMMON, "messages", "variables", "parameters"),
    "endpoint": (
        *(*_COMMON, "model", "model_revision", "engine", "context", "options", "replicas"),
        *("weights", "api_key"),
    ),
    "route": (*_COMMON, "prompt", "endpoint", "fallback", "prompt_revision", "template", "chain"),
    "gate": (
        *(*_COMMON, "route", "dataset", "dataset_revision", "dataset_digest", "dataset_format"),
        *("inputs", "expected", "metrics", "confidence"),
    ),
    "policy": (*_COMMON, "applies_to", "require", "severity", "message"),
}

#: Objects with fixed fields inside ``resource``, whatever its kind.
NESTED: Mapping[str, tuple[str, ...]] = {
    "weights": ("digest", "adapters", "remote"),
    "lineage": ("base", "trained_on", "method", "hyperparameters"),
    "card": ("intended_use", "limitations"),
    "api_key": ("env",),
    "replicas": ("min", "max"),
    "template": ("messages", "variables", "parameters"),
}

ENVIRONMENT: tuple[str, ...] = ("name", "target")


def resource_view(resource: Resource) -> dict[str, Json]:
    """A resource as a policy sees it. Raises ``KeyError`` for a kind that is not in ``FIELDS``."""
    known = {
        **resource.spec,
        "name": resource.address.name,
        "kind": resource.address.kind,
        "revision": resource.revision,
    }
    return {field: _filled(field, known.get(field)) for field in FIELDS[resource.address.kind]}


def environment_view(environment: Environment) -> dict[str, Json]:
    """An environment as a policy sees it."""
    return {"name": environment.name, "target": environment.target}


def _filled(field: str, value: Json) -> Json:
    if field in NESTED and isinstance(value, dict):
        return {**dict.fromkeys(NESTED[field]), **value}
    return value
