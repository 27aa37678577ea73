"""Words that the design names and the code does not serve yet: refused by name, never accepted and ignored."""

from __future__ import annotations

#: Keys by the place they belong to: the file, an environment, or a kind of resource and maps in it.
KEYS: dict[str, frozenset[str]] = {
    "file": frozenset({"include", "moved", "guardrails", "indexes", "monitors", "access", "record", "variants"}),
    "environment": frozenset(
        {"region", "promote_from", "approvals", "record", "access", "backend", "account", "timeouts", "limits"}
    ),
    "gateway": frozenset({"host", "access", "cache", "limits"}),
    "dataset": frozenset({"protect", "access", "include"}),
    "checks": frozenset({"pii"}),
    "model": frozenset({"protect", "train", "quantization", "access"}),
    "prompt": frozenset({"protect", "access", "variants"}),
    "endpoint": frozenset(
        {"protect", "accelerator", "region", "timeouts", "limits", "hold", "keep", "strategy", "quantization", "access"}
    ),
    "route": frozenset(
        {
            *("protect", "guardrails", "rollout", "limits", "variants", "select", "access", "indexes", "timeouts"),
            *("strategy", "keep", "hold", "monitors"),
        }
    ),
    "gate": frozenset({"protect", "repeat", "runner", "judge", "timeouts", "limits"}),
    "policy": frozenset({"waivers", "protect", "approvals"}),
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
