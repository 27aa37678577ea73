"""The metrics: what each one measures of an answer, and how its figure may be judged."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from llmctl.core.digests import Json, revision
from llmctl.core.errors import LlmctlError
from llmctl.gates import scorers
from llmctl.gates.scorers import Score

#: Version of the way scores become verdicts; raise it when a bound changes.
STATISTICS = "1"


class Figure(Enum):
    """What a metric's figure is, and so how it is judged."""

    YES_NO = "share of rows that score 1"
    MEAN = "mean of scores between 0 and 1"
    QUANTILE = "a percentile"
    RATE = "share of requests that failed"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``scorer`` makes its score from what the gate says of it, None where the request is measured."""

    name: str
    figure: Figure
    version: str
    scorer: Callable[[Mapping[str, Json]], Score] | None = None
    libraries: tuple[str, ...] = ()  # the distributions whose versions decide the score
    needs_expected: bool = True  # of one with a scorer: whether it compares with the expected answer
    parameter: str = ""  # what the gate says beside thresholds and that decides the score
    quantile: float = 0.0  # of a percentile: which one, 0 to 1

    @property
    def is_quality(self) -> bool:
        """Scores of answers stand as long as the evidence key; what requests took is never reused."""
        return self.scorer is not None

    @property
    def rules(self) -> tuple[str, ...]:
        """The thresholds that it may have."""
        return ("min", "max_drop") if self.is_quality else ("max",)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("exact_match", Figure.YES_NO, "1", scorers.exact_match),
        Metric("contains", Figure.YES_NO, "1", scorers.contains),
        Metric("rouge_l", Figure.MEAN, "2", scorers.rouge_l, ("regex",)),
        Metric("bleu", Figure.MEAN, "1", scorers.bleu, ("sacrebleu",)),
        Metric("chrf", Figure.MEAN, "1", scorers.chrf, ("sacrebleu",)),
        Metric("regex", Figure.YES_NO, "1", scorers.regex, ("regex",), needs_expected=False, parameter="pattern"),
        Metric(
            "json_schema",
            Figure.YES_NO,
            "1",
            scorers.json_schema,
            ("jsonschema", "regex"),
            needs_expected=False,
            parameter="schema",
        ),
        Metric("latency_p50_ms", Figure.QUANTILE, "1", quantile=0.5),
        Metric("latency_p95_ms", Figure.QUANTILE, "1", quantile=0.95),
        Metric("error_rate", Figure.RATE, "1"),
    )
}


def versions(metrics: Mapping[str, Mapping[str, Json]]) -> dict[str, str]:
    """The versions of all that makes scores and verdicts of a gate's ``metrics``, patterns and schemas included."""
    found = {"statistics": STATISTICS}
    for name, given in metrics.items():
        metric = METRICS[name]
        parts = [metric.version, *(f"{library} {_installed(library)}" for library in metric.libraries)]
        if metric.parameter:
            parts.append(f"{metric.parameter} {revision(given.get(metric.parameter))}")
        found[name] = ", ".join(parts)
    return dict(sorted(found.items()))


def _installed(distribution: str) -> str:
    metadata = importlib.import_module("importlib.metadata")
    try:
        return str(metadata.version(distribution))
    except metadata.PackageNotFoundError:
        raise LlmctlError(
            f"the library {distribution} is not installed", hint=f"Run `pip install {distribution}`."
        ) from None
