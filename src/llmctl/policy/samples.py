"""A plain resource of each kind, as a file resolves that says no more than it must, and an empty plan."""

from __future__ import annotations

from collections.abc import Mapping

from llmctl.core.digests import Json
from llmctl.policy.fields import PLAN, Shape, changes_view, fields_of

_DIGEST = "sha256:" + "0" * 64
_REVISION = "0" * 16
_COMMON = {"name": "sample", "revision": _REVISION, "protect": False}
_WEIGHTS = {"digest": _DIGEST, "adapters": []}
_TEMPLATE = {"messages": [{"role": "user", "content": "Hello"}], "variables": {}, "parameters": {}}
_ENDPOINT = {
    "model": "sample",
    "model_revision": _REVISION,
    "engine": "llama.cpp",
    "context": 2048,
    "options": {"slots": 4, "threads": 1},
    "replicas": {"min": 1, "max": 1},
    "timeouts": {"ready_s": 180.0, "drain_s": 30.0},
    "weights": _WEIGHTS,
    "api_key": None,
}

SAMPLES: Mapping[str, Mapping[str, Json]] = {
    "dataset": {
        **_COMMON,
        "source": "data/sample.jsonl",
        "format": "jsonl",
        "columns": {},
        "checks": {"min_rows": 0, "unique": [], "not_null": []},
        "license": "",
        "sensitivity": "",
        "digest": _DIGEST,
        "bytes": 0,
        "rows": 0,
    },
    "model": {
        **_COMMON,
        "source": "models/sample.gguf",
        "license": "",
        "lineage": {"base": "", "trained_on": [], "method": "", "hyperparameters": {}},
        "card": {"intended_use": "", "limitations": ""},
        "api_key": None,
        "weights": _WEIGHTS,
        "files": [{"path": "models/sample.gguf", "digest": _DIGEST, "bytes": 0}],
    },
    "prompt": {**_COMMON, **_TEMPLATE},
    "endpoint": {**_COMMON, **_ENDPOINT},
    "route": {
        **_COMMON,
        "prompt": "sample",
        "endpoint": "sample",
        "fallback": [],
        "prompt_revision": _REVISION,
        "template": _TEMPLATE,
        "chain": [{"endpoint": "sample", "revision": _REVISION, "spec": {**_ENDPOINT, "protect": False}}],
        "rollout": {"canary": [100], "hold_s": 0.0},
        "aliases": [],
    },
    "gate": {
        **_COMMON,
        "route": "sample",
        "dataset": "sample",
        "dataset_revision": _REVISION,
        "dataset_digest": _DIGEST,
        "dataset_format": "jsonl",
        "inputs": {},
        "expected": None,
        "metrics": {},
        "slices": {},
        "confidence": 0.95,
        "concurrency": 16,
        "timeouts": {"request_s": 60.0, "run_s": 1800.0},
    },
    "policy": {
        **_COMMON,
        "applies_to": "model",
        "require": "true",
        "severity": "deny",
        "message": "",
        "waivers": [],
    },
    PLAN: {
        "action": "apply",
        **changes_view([]),
        "weakened": [],
        "gates": 0,
        "drift": 0,
        "break_glass": "",
        "skipped_gates": [],
    },
}


def sample_of(kind: str) -> Mapping[str, Json]:
    """The sample of a kind; of a plug-in's, every field is empty: nobody here knows what its entries say."""
    if kind in SAMPLES:
        return SAMPLES[kind]
    return {name: _empty(shape) for name, shape in (fields_of(kind) or {}).items()} | {**_COMMON, "kind": kind}


def _empty(shape: Shape) -> Json:
    if isinstance(shape, dict):
        return {name: _empty(inner) for name, inner in shape.items()}
    if isinstance(shape, list):
        return []
    return {"string": "", "number": 0, "boolean": False, "map": {}}[shape]
