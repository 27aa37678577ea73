"""Per-sample rows in the artifact store: JSON lines, the first one says what was asked.

They hold texts, so they never go into git; evidence names them by digest alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmctl.core.digests import Json, digest_bytes
from llmctl.core.errors import LlmctlError
from llmctl.core.evidence import Evidence
from llmctl.core.protocols import ArtifactStore
from llmctl.gates.keys import scoring_digest

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """What one row gave. ``scores`` is empty when there was no answer to score, which counts as 0.

    ``baseline`` holds the scores of the revision that was live, where they were compared; empty when that
    gave no answer. ``error`` says why the request of ``latency_ms`` failed, "" when it did not; the latency
    is None where this run made no request, because an earlier one that was cut short had the answer.
    """

    id: str
    answer: str
    scores: Mapping[str, float]
    latency_ms: float | None
    error: str = ""
    baseline: Mapping[str, float] = field(default_factory=dict)


def write_rows(
    store: ArtifactStore, spec: Mapping[str, Json], versions: Mapping[str, str], rows: Sequence[ScoredRow]
) -> str:
    """Store the rows of one run; returns their digest."""
    head = {"format": FORMAT, "scoring": scoring_digest(spec), "versions": dict(versions)}
    lines = [head, *(_to_json(row) for row in rows)]
    # Escaped to ASCII, as an answer may hold what UTF-8 cannot.
    return store.put_bytes(b"".join(json.dumps(line, sort_keys=True).encode() + b"\n" for line in lines))


def read_rows(store: ArtifactStore, evidence: Evidence) -> list[ScoredRow] | None:
    """The rows of evidence; None when the store no longer has them as they were."""
    lines = _lines(store, evidence.rows)
    return None if lines is None else [_from_json(line) for line in lines[1:]]


def comparable_scores(
    store: ArtifactStore,
    known: Sequence[Evidence],
    spec: Mapping[str, Json],
    revision: str,
    versions: Mapping[str, str],
) -> dict[str, Mapping[str, float]] | None:
    """The scores by row id that a route revision got on the same questions, by the same scorers.

    None when no evidence has them all, without a failed request.
    """
    for evidence in sorted(known, key=lambda e: e.measured_at, reverse=True):
        if evidence.route_revision != revision or evidence.dataset_digest != spec["dataset_digest"]:
            continue
        lines = _lines(store, evidence.rows)
        if lines is None or lines[0].get("scoring") != scoring_digest(spec):
            continue
        scored_by = lines[0].get("versions", {})
        rows = [_from_json(line) for line in lines[1:]]
        same = all(scored_by.get(name) == version for name, version in versions.items())
        if same and all(row.scores for row in rows):
            return {row.id: row.scores for row in rows}
    return None


def _lines(store: ArtifactStore, digest: str) -> list[dict[str, Json]] | None:
    """The lines behind a digest; None when they are not there, or not those."""
    try:
        if not digest or not store.has(digest):
            return None
        data = store.path(digest).read_bytes()
    except (LlmctlError, OSError):
        return None
    if digest_bytes(data) != digest:
        return None
    try:
        lines = [json.loads(line) for line in data.splitlines()]
    except ValueError:
        return None
    known = bool(lines) and isinstance(lines[0], dict) and lines[0].get("format") == FORMAT
    return lines if known else None


def _to_json(row: ScoredRow) -> dict[str, Json]:
    return {
        "id": row.id,
        "answer": row.answer,
        "scores": dict(row.scores),
        "latency_ms": None if row.latency_ms is None else round(row.latency_ms, 3),
        "error": row.error,
        "baseline": dict(row.baseline),
    }


def _from_json(data: Mapping[str, Json]) -> ScoredRow:
    return ScoredRow(
        id=data["id"],
        answer=data["answer"],
        scores=data["scores"],
        latency_ms=data["latency_ms"],
        error=data["error"],
        baseline=data["baseline"],
    )
