"""Evidence: what a gate measured, bound to the revisions that it measured. No texts, only numbers and ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from llmctl.core.digests import Json, digest

FORMAT = 1


class Verdict(Enum):
    """FAIL and INCONCLUSIVE both block; the difference is what to do about it."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_APPLICABLE = "N/A"  # max_drop when nothing is live

    @property
    def blocks(self) -> bool:
        return self in (Verdict.FAIL, Verdict.INCONCLUSIVE)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One threshold of one metric, judged from an interval.

    ``rule`` is ``min``, ``max`` or ``max_drop``; ``estimate`` the point value (for ``max_drop`` the drop);
    ``lower`` and ``upper`` are the one-sided bounds at ``confidence``; ``samples_needed`` is what would
    settle an inconclusive one, 0 when unknown.
    """

    metric: str
    rule: str
    threshold: float
    estimate: float
    lower: float
    upper: float
    samples: int
    confidence: float
    method: str
    verdict: Verdict
    samples_needed: int = 0
    slice: str = ""  # "language=de" when only those rows were judged, "" for all

    def to_json(self) -> dict[str, Json]:
        return {
            "metric": self.metric,
            "rule": self.rule,
            "threshold": self.threshold,
            "estimate": self.estimate,
            "lower": self.lower,
            "upper": self.upper,
            "samples": self.samples,
            "confidence": self.confidence,
            "method": self.method,
            "verdict": self.verdict.value,
            "samples_needed": self.samples_needed,
            "slice": self.slice,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Judgement:
        return cls(**{**data, "verdict": Verdict(data["verdict"])})


@dataclass(frozen=True, slots=True)
class Evidence:
    """One run of one gate against one route revision.

    ``key`` is the digest of all that decided the quality figures; evidence is reused while it stands.
    ``rows`` is the digest of the per-sample rows in the artifact store. ``failing`` lists row ids, worst
    first, and never their texts.
    """

    gate: str
    gate_revision: str
    gate_spec: Mapping[str, Json]  # the resolved spec with its thresholds; its revision is `gate_revision`
    route: str
    route_revision: str
    baseline_revision: str  # "" when nothing was live
    dataset_digest: str
    key: str
    samples: int
    judgements: tuple[Judgement, ...]
    verdict: Verdict
    rows: str = ""
    failing: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)  # scorer and library versions
    measured_at: str = ""  # ISO 8601, UTC
    seconds: float = 0.0

    def to_json(self) -> dict[str, Json]:
        return {
            "format": FORMAT,
            "gate": self.gate,
            "gate_revision": self.gate_revision,
            "gate_spec": dict(self.gate_spec),
            "route": self.route,
            "route_revision": self.route_revision,
            "baseline_revision": self.baseline_revision,
            "dataset_digest": self.dataset_digest,
            "key": self.key,
            "samples": self.samples,
            "judgements": [j.to_json() for j in self.judgements],
            "verdict": self.verdict.value,
            "rows": self.rows,
            "failing": list(self.failing),
            "versions": dict(self.versions),
            "measured_at": self.measured_at,
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Evidence:
        """Read evidence from the record; unknown keys of later formats are left aside."""
        known = {f: data[f] for f in cls.__slots__ if f in data}
        return cls(
            **{
                **known,
                "judgements": tuple(Judgement.from_json(j) for j in data["judgements"]),
                "verdict": Verdict(data["verdict"]),
                "failing": tuple(data.get("failing", ())),
            }
        )

    @property
    def digest(self) -> str:
        """The digest of the whole evidence: its file name in the record."""
        return digest(self.to_json())
