"""Words that the design names and the code does not serve yet: refused by name, never accepted and ignored."""

from __future__ import annotations

#: Keys by the place they belong to: the file, an environment, or a kind of resource and maps in it.
KEYS: dict[str, frozenset[str]] = {
    "file": frozenset({"guardrails", "indexes", "monitors", "access", "variants"}),
    "environment": frozenset({"region", "access", "backend", "account", "timeouts", "limits"}),
    "gateway": frozenset({"host", "access", "cache", "limits"}),
    "dataset": frozenset({"access", "include"}),
    "checks": frozenset({"pii"}),
    "model": frozenset({"train", "quantization", "access"}),
    "prompt": frozenset({"access", "variants"}),
    "endpoint": frozenset(
        {"accelerator", "region", "limits", "hold", "keep", "strategy", "quantization", "access"},
    ),
    "route": frozenset(
        {
            *("guardrails", "limits", "variants", "select", "access", "indexes", "timeouts"),
            *("strategy", "keep", "hold", "monitors"),
        }
    ),
    "rollout": frozenset({"min_requests", "abort_if", "keep", "strategy"}),
    "gate": frozenset({"repeat", "runner", "judge", "limits"}),
    "policy": frozenset({"approvals"}),
}

#: Values by place and key.
VALUES: dict[tuple[str, str], frozenset[str]] = {
    ("environment", "target"): frozenset({"aws", "external", "kubernetes", "sagemaker"}),
    ("endpoint", "engine"): frozenset({"vllm", "sagemaker", "kubernetes"}),
    ("policy", "applies_to"): frozenset({"guardrail", "index", "monitor"}),
}

#: Kinds of sources: ``scheme:…``.
SCHEMES = frozenset({"hf", "s3", "mlflow", "oci"})


def not_served(place: str, key: str) -> bool:
    """Whether a key is reserved at that place."""
    return key in KEYS.get(place, ())
