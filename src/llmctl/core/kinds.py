"""The kinds of resources, and which of their fields decide the answer.

A kind's *serving* fields make up its revision: change one and a new revision is proven and rolled out.
All other fields are *operating* fields: recorded, and changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from llmctl.core.digests import Json, revision
from llmctl.core.errors import LlmctlError


class Role(Enum):
    """What a kind is to plan and apply."""

    ARTIFACT = "artifact"  # immutable content, stored by digest: dataset, model, prompt
    DEPLOYMENT = "deployment"  # runs: endpoint
    ROUTE = "route"  # is proven, shifted, promoted, rolled back
    RULE = "rule"  # judges others: gate, policy
    RESOURCE = "resource"  # one live thing a name, made and changed in place: the kinds of plug-ins


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: its name in addresses, its section in the file, and its serving fields."""

    name: str
    section: str
    role: Role
    serving: tuple[str, ...]

    def revision(self, spec: dict[str, Json]) -> str:
        """The revision of a resolved spec: a digest of its serving fields alone."""
        return revision({"kind": self.name, **{f: spec.get(f) for f in self.serving}})


# The resolved spec of each kind, as JSON. A field not listed under "serving" is an operating field.
# Every kind has `protect` (bool), which refuses delete and replace. Durations are seconds, as floats.
#
# dataset   source (path), format, columns, checks, license, sensitivity, digest, bytes, rows
# model     source (path or provider:name), license, lineage, card, api_key ({"env": NAME} or null),
#           weights {"digest", "adapters": [{"digest", "scale"}]} or {"remote": "openai:NAME"},
#           files [{"path", "digest", "bytes"}]
# prompt    messages [{"role", "content"}], variables {name: type}, parameters {}
# endpoint  model (name), model_revision, engine, context, options, replicas {"min", "max"},
#           timeouts {"ready_s", "drain_s"}, weights (as the model's), api_key (as the model's)
# route     prompt, endpoint, fallback (names), prompt_revision,
#           template {"messages", "variables", "parameters"},
#           chain [{"endpoint", "revision", "spec"}]: the endpoint, then its fallbacks,
#           rollout {"canary": [percent, …, 100], "hold_s"}, aliases [old names, from `moved:`]
# gate      route, dataset (names), dataset_revision, dataset_digest, dataset_format, inputs, expected,
#           metrics, slices {column: {metric: thresholds}}, confidence, concurrency,
#           timeouts {"request_s", "run_s"}
# policy    applies_to (a kind, or "plan"), require, severity, message,
#           waivers [{"resource", "until": "YYYY-MM-DD", "reason", "approved_by"}]
KINDS: tuple[Kind, ...] = (
    Kind("dataset", "datasets", Role.ARTIFACT, ("digest", "format", "columns")),
    Kind("model", "models", Role.ARTIFACT, ("weights",)),
    Kind("prompt", "prompts", Role.ARTIFACT, ("messages", "variables", "parameters")),
    Kind("endpoint", "endpoints", Role.DEPLOYMENT, ("model_revision", "engine", "context", "options")),
    Kind("route", "routes", Role.ROUTE, ("prompt_revision", "chain_revisions")),
    Kind(
        "gate",
        "gates",
        Role.RULE,
        ("dataset_revision", "route", "inputs", "expected", "metrics", "slices", "confidence"),
    ),
    Kind("policy", "policies", Role.RULE, ("applies_to", "require", "severity", "message")),
)
BY_NAME: dict[str, Kind] = {kind.name: kind for kind in KINDS}


def kind_of(name: str) -> Kind:
    """The kind with that name, built in or of an installed package; raises ``LlmctlError`` when nobody has it."""
    kind = BY_NAME.get(name)
    if kind is None:
        from llmctl.core.plugins import installed  # looks at every installed package

        plugin = installed().get(name)
        if plugin is None:
            raise LlmctlError(
                f"no installed package provides the kind {name!r}",
                hint="Install the package that does; its entry point is in the group `llmctl.kinds`.",
            )
        kind = plugin.kind
    return kind
