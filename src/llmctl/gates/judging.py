"""From scored rows to judgements: one for each threshold of the gate, over all rows and over each slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmctl.core.evidence import Evidence, Judgement
from llmctl.gates.metrics import METRICS, Figure
from llmctl.gates.request import GateRequest, is_point, rules_of
from llmctl.gates.rows import ScoredRow
from llmctl.gates.slices import name_of, parts, slices_of
from llmctl.gates.verdicts import Threshold, judge, judge_drop, not_applicable


def judgements(
    request: GateRequest, rows: Sequence[ScoredRow], known: Evidence | None, ceiling_ms: float
) -> tuple[Judgement, ...]:
    """Judge every threshold, in the order of the spec, then slice by slice in the order of their values.

    Each is judged at the gate's confidence by itself; slices are not corrected for how many there are.
    Those of quality are taken from ``known``. ``ceiling_ms`` is the most that a request can take.
    """
    stand = {(j.metric, j.rule, j.slice): j for j in known.judgements} if known else {}
    found = []
    for threshold, ids in _thresholds(request):
        key = (threshold.metric, threshold.rule, threshold.slice)
        if threshold.metric in request.quality and key in stand:
            found.append(stand[key])
        else:
            chosen = [row for row in rows if row.id in ids] if threshold.slice else rows
            found.append(_judged(request, threshold, chosen, ceiling_ms))
    return tuple(found)


def _thresholds(request: GateRequest) -> Iterator[tuple[Threshold, frozenset[str]]]:
    """Each threshold with the ids of its rows, which count for slices only."""
    confidence = request.confidence
    for name, given in request.spec["metrics"].items():
        for rule, value in rules_of(given):
            yield Threshold(name, rule, value, confidence, is_point(given)), frozenset()
    for column, metrics in slices_of(request.spec).items():
        for text, ids in parts(column, ((row.id, row.values) for row in request.rows)).items():
            for name, given in metrics.items():
                for rule, value in rules_of(given):
                    threshold = Threshold(name, rule, value, confidence, is_point(given), name_of(column, text))
                    yield threshold, frozenset(ids)


def _judged(request: GateRequest, threshold: Threshold, rows: Sequence[ScoredRow], ceiling_ms: float) -> Judgement:
    name, figure = threshold.metric, METRICS[threshold.metric].figure
    if threshold.rule == "max_drop":
        if not request.compared_with:
            return not_applicable(threshold)
        # A row that the baseline did not answer says nothing about it, least of all that it was bad.
        pairs = [(row.baseline[name], row.scores.get(name, 0.0)) for row in rows if name in row.baseline]
        return judge_drop(threshold, pairs)
    if figure is Figure.QUANTILE:
        return judge(threshold, [row.latency_ms for row in rows if row.latency_ms is not None], ceiling_ms)
    if figure is Figure.RATE:
        return judge(threshold, [float(bool(row.error)) for row in rows if row.latency_ms is not None], ceiling_ms)
    return judge(threshold, [row.scores.get(name, 0.0) for row in rows], ceiling_ms)
