"""The evidence key: all that decided the quality figures, so that they stand as long as it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmctl.core.digests import Json, digest
from llmctl.core.evidence import Evidence
from llmctl.gates.metrics import METRICS, versions
from llmctl.gates.request import GateRequest
from llmctl.gates.slices import slices_of


def scoring_digest(spec: Mapping[str, Json]) -> str:
    """Names what is asked and expected, row by row: two runs with the same one can be paired."""
    return digest({field: spec.get(field) for field in ("route", "dataset_digest", "inputs", "expected")})


def evidence_key(request: GateRequest, versions: Mapping[str, str], failed: Sequence[str] = ()) -> str:
    """The digest of what decided the quality figures of a request.

    ``failed`` are the ids of rows that got no answer. They decided the figures too, and no later request
    asks for the same failures: such evidence is never reused, so a bad hour of a network is not for good.
    """
    spec = request.spec
    quality = set(request.quality)
    return digest(
        {
            "scoring": scoring_digest(spec),
            "metrics": {name: given for name, given in spec["metrics"].items() if name in quality},
            "slices": slices_of(spec),
            "confidence": request.confidence,
            "route_revision": request.route_revision,
            "baseline_revision": request.compared_with,
            "versions": {n: v for n, v in versions.items() if n not in METRICS or n in quality},
            "failed": sorted(failed),
        }
    )


def find_cached(request: GateRequest, known: Sequence[Evidence]) -> Evidence | None:
    """The latest known evidence whose quality figures answer this request; None when it must be measured.

    Metrics of requests (latency, errors) are measured anew even then. A gate without any metric of
    quality has nothing to reuse.
    """
    likely = [e for e in known if e.route_revision == request.route_revision and e.key]
    if not likely or not request.quality:
        return None
    key = evidence_key(request, versions(request.spec["metrics"]))
    return max((e for e in likely if e.key == key), key=lambda e: e.measured_at, default=None)
