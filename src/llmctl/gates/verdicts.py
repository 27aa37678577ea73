"""Verdicts: PASS when the bound on the bad side meets the threshold, FAIL when the other bound misses it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmctl.core.evidence import Judgement, Verdict
from llmctl.gates import intervals, paired
from llmctl.gates.intervals import Interval
from llmctl.gates.metrics import METRICS, Figure
from llmctl.gates.sizes import least_rows

POINT = "point"
NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Threshold:
    """One threshold of one metric. ``point`` judges the estimate alone, ``slice`` names the rows ("" for all)."""

    metric: str
    rule: str  # min, max or max_drop
    value: float
    confidence: float
    point: bool = False
    slice: str = ""


def decide(rule: str, threshold: float, estimate: float, lower: float, upper: float) -> Verdict:
    """The verdict that an estimate's bounds give. For one on the point, both bounds are the estimate."""
    if not lower <= estimate <= upper:
        raise ValueError("an estimate lies between its bounds")
    if rule == "min":
        return Verdict.PASS if lower >= threshold else Verdict.FAIL if upper < threshold else Verdict.INCONCLUSIVE
    return Verdict.PASS if upper <= threshold else Verdict.FAIL if lower > threshold else Verdict.INCONCLUSIVE


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of a gate: the worst of its judgements; of nothing judged there is none."""
    present = set(verdicts)
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS, Verdict.NOT_APPLICABLE):
        if verdict in present:
            return verdict
    return Verdict.INCONCLUSIVE


def judge(threshold: Threshold, values: Sequence[float], ceiling: float) -> Judgement:
    """Judge scores (0 to 1), latencies (ms, at most ``ceiling``) or failures (0 or 1) by min or max."""
    metric, confidence = METRICS[threshold.metric], threshold.confidence
    if metric.figure is Figure.MEAN:
        found = intervals.mean(values, confidence)
        return _judgement(threshold, found, lambda: intervals.mean_needed(values, confidence, threshold.value))
    if metric.figure is Figure.QUANTILE:
        which = metric.quantile
        found = intervals.quantile(values, confidence, ceiling, which)
        return _judgement(
            threshold, found, lambda: intervals.quantile_needed(values, confidence, threshold.value, which)
        )
    hits = round(sum(values))
    found = intervals.share(hits, len(values), confidence)
    return _judgement(threshold, found, lambda: intervals.share_needed(hits, len(values), confidence, threshold.value))


def judge_drop(threshold: Threshold, pairs: Sequence[tuple[float, float]]) -> Judgement:
    """Judge by max_drop: ``pairs`` are the scores of baseline and candidate on the same rows."""
    confidence = threshold.confidence
    if METRICS[threshold.metric].figure is Figure.YES_NO:
        lost = sum(before > after for before, after in pairs)
        won = sum(before < after for before, after in pairs)
        found = paired.paired_drop(lost, won, len(pairs), confidence)
        return _judgement(
            threshold, found, lambda: paired.paired_needed(lost, won, len(pairs), confidence, threshold.value)
        )
    drops = [before - after for before, after in pairs]
    found = intervals.mean_drop(drops, confidence)
    return _judgement(
        threshold,
        found,
        lambda: intervals.mean_needed([(1 - d) / 2 for d in drops], confidence, (1 - threshold.value) / 2),
    )


def not_applicable(threshold: Threshold) -> Judgement:
    """The judgement of a max_drop while nothing is live."""
    return _result(threshold, Interval(0.0, 0.0, 0.0, 0, NOT_APPLICABLE), Verdict.NOT_APPLICABLE)


def _judgement(threshold: Threshold, found: Interval, needed: intervals.Needed) -> Judgement:
    if found.samples == 0:
        least = least_rows(threshold.metric, threshold.rule, threshold.value, threshold.confidence) or 0
        return _result(threshold, found, Verdict.INCONCLUSIVE, least)
    bounds = (found.estimate, found.estimate) if threshold.point else (found.lower, found.upper)
    verdict = decide(threshold.rule, threshold.value, found.estimate, *bounds)
    return _result(threshold, found, verdict, needed() if verdict is Verdict.INCONCLUSIVE else 0)


def _result(threshold: Threshold, found: Interval, verdict: Verdict, needed: int = 0) -> Judgement:
    point = threshold.point and verdict is not Verdict.NOT_APPLICABLE
    return Judgement(
        metric=threshold.metric,
        rule=threshold.rule,
        threshold=threshold.value,
        estimate=found.estimate,
        lower=found.lower,
        upper=found.upper,
        samples=found.samples,
        confidence=threshold.confidence,
        method=POINT if point else found.method,
        verdict=verdict,
        samples_needed=needed,
        slice=threshold.slice,
    )
