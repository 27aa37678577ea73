"""Run one gate: measure what known evidence does not answer, judge, and keep the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Event
from time import monotonic

from llmctl.core.errors import Interrupted
from llmctl.core.evidence import Evidence, Judgement
from llmctl.core.protocols import ArtifactStore, GateAccess
from llmctl.gates.keys import evidence_key, find_cached
from llmctl.gates.metrics import METRICS, Figure, versions
from llmctl.gates.request import (
    GateRequest,
    GateResult,
    RowReport,
    check_request,
    expected_of,
    inputs_of,
    is_point,
    rules_of,
)
from llmctl.gates.rows import ScoredRow, comparable_scores, read_rows, write_rows
from llmctl.gates.runner import TIMEOUT_S, Answer, Target, ask
from llmctl.gates.verdicts import Threshold, judge, judge_drop, not_applicable, overall

_WORST = 5
_FAILING = 100


@dataclass(frozen=True, slots=True)
class _Known:
    """What need not be measured: evidence with the same key, with its rows."""

    evidence: Evidence
    rows: Mapping[str, ScoredRow]


@dataclass(frozen=True, slots=True)
class _Asker:
    """Asks a revision all rows of the request; ``total`` is over all revisions that will be asked."""

    request: GateRequest
    access: GateAccess
    concurrency: int
    progress: Callable[[int, int], None]
    cancelled: Event
    total: int

    def ask(self, revision: str, done: int) -> dict[str, Answer]:
        """The answers by row id; ``done`` requests were made before."""
        rows = self.request.rows
        answers = ask(
            Target(self.access, self.request.spec["route"], revision),
            [inputs_of(self.request, row) for row in rows],
            concurrency=self.concurrency,
            progress=lambda count: self.progress(done + count, self.total),
            cancelled=self.cancelled,
        )
        return {row.id: answer for row, answer in zip(rows, answers, strict=True)}


def run(
    request: GateRequest,
    access: GateAccess,
    store: ArtifactStore,
    known: Sequence[Evidence],
    *,
    concurrency: int = 16,
    progress: Callable[[int, int], None],
    cancelled: Event,
) -> GateResult:
    """Prove a route revision by a gate.

    Quality figures of known evidence with the same key are reused, as long as its rows are in ``store``.
    Latency and errors are never reused: then every row is asked again, those requests are judged for
    them alone, and their answers are not looked at. Nothing is asked when nothing is to be measured.
    ``max_drop`` takes the baseline's scores from known rows, or else asks the baseline too.

    Latency is that of a request among ``concurrency`` at a time, in ms, as the client sees it.
    ``progress`` is called with (requests done, requests in all), on this thread. Raises ``InvalidInput``
    for a request that cannot be run, ``ProviderError`` when the gateway does not serve exactly the
    revision asked for, ``Interrupted`` when ``cancelled`` is set. Must not be called from an event loop.
    """
    start = monotonic()
    check_request(request)
    if cancelled.is_set():
        raise Interrupted("interrupted")
    cached = _find_known(request, store, known)
    if cached and not request.live:
        return _as_known(request, cached)
    scorers = versions(request.spec["metrics"])
    baseline = {} if cached else _known_baseline(request, store, known, scorers)
    ask_baseline = baseline is None
    total = len(request.rows) * (1 + ask_baseline)
    asker = _Asker(request, access, concurrency, progress, cancelled, total)
    if baseline is None:
        baseline = _scores(request, asker.ask(request.compared_with, 0))
    answers = asker.ask(request.route_revision, len(request.rows) * ask_baseline)
    rows = _merged(cached, answers) if cached else _scored(request, answers, baseline)
    if cancelled.is_set():
        raise Interrupted("interrupted")
    judgements = _judgements(request, rows, cached)
    failed = [] if cached else _failed(request, rows)
    evidence = Evidence(
        gate=request.gate,
        gate_revision=request.gate_revision,
        gate_spec=dict(request.spec),
        route=request.spec["route"],
        route_revision=request.route_revision,
        baseline_revision=request.baseline_revision,
        dataset_digest=request.spec["dataset_digest"],
        key=evidence_key(request, scorers, failed),
        samples=len(rows),
        judgements=judgements,
        verdict=overall(j.verdict for j in judgements),
        rows=write_rows(store, request.spec, scorers, rows),
        failing=tuple(row.id for row in _losing(request, rows)[:_FAILING]),
        versions=scorers,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(monotonic() - start, 3),
    )
    return GateResult(evidence, _worst(request, rows), request.quality if cached else ())


def _find_known(request: GateRequest, store: ArtifactStore, known: Sequence[Evidence]) -> _Known | None:
    evidence = find_cached(request, known)
    rows = read_rows(store, evidence) if evidence else None
    if evidence is None or rows is None or {row.id for row in rows} != {row.id for row in request.rows}:
        return None
    return _Known(evidence, {row.id: row for row in rows})


def _as_known(request: GateRequest, cached: _Known) -> GateResult:
    """Known evidence as the evidence of this request; the same one when gate and baseline are."""
    judgements = _judgements(request, [], cached)
    evidence = replace(
        cached.evidence,
        gate=request.gate,
        gate_revision=request.gate_revision,
        gate_spec=dict(request.spec),
        baseline_revision=request.baseline_revision,
        judgements=judgements,
        verdict=overall(j.verdict for j in judgements),
    )
    rows = [cached.rows[row.id] for row in request.rows]
    return GateResult(evidence, _worst(request, rows), request.quality)


def _known_baseline(
    request: GateRequest, store: ArtifactStore, known: Sequence[Evidence], scorers: Mapping[str, str]
) -> Mapping[str, Mapping[str, float]] | None:
    """The baseline's scores by row id: empty when nothing is compared, None when it must be asked."""
    if not request.compared_with or not request.rows:
        return {}
    quality = {n: v for n, v in scorers.items() if n not in METRICS or n in request.quality}
    found = comparable_scores(store, known, request.spec, request.compared_with, quality)
    return found if found is not None and {row.id for row in request.rows} <= found.keys() else None


def _scores(request: GateRequest, answers: Mapping[str, Answer]) -> dict[str, Mapping[str, float]]:
    """Scores by row id; none for a row without an answer."""
    found: dict[str, Mapping[str, float]] = {}
    for row in request.rows:
        answer, expected = answers[row.id], expected_of(request, row)
        scorers = {name: METRICS[name].score for name in request.quality if not answer.error}
        found[row.id] = {
            n: score(expected, answer.text) for n, score in scorers.items() if score and expected is not None
        }
    return found


def _scored(
    request: GateRequest, answers: Mapping[str, Answer], baseline: Mapping[str, Mapping[str, float]]
) -> list[ScoredRow]:
    scores = _scores(request, answers)
    return [
        ScoredRow(
            id=row.id,
            answer=answers[row.id].text,
            scores=scores[row.id],
            latency_ms=answers[row.id].latency_ms,
            error=answers[row.id].error,
            baseline={n: s for n, s in baseline.get(row.id, {}).items() if n in request.quality},
        )
        for row in request.rows
    ]


def _merged(cached: _Known, answers: Mapping[str, Answer]) -> list[ScoredRow]:
    """Known answers and scores with the latency and error of the requests made now."""
    return [
        replace(cached.rows[row_id], latency_ms=answer.latency_ms, error=answer.error)
        for row_id, answer in answers.items()
    ]


def _judgements(request: GateRequest, rows: Sequence[ScoredRow], cached: _Known | None) -> tuple[Judgement, ...]:
    """A judgement for each threshold of the gate, in the order of its spec."""
    stand = {(j.metric, j.rule): j for j in cached.evidence.judgements} if cached else {}
    found = []
    for name, given in request.spec["metrics"].items():
        for rule, value in rules_of(given):
            if name in request.quality and (name, rule) in stand:
                found.append(stand[name, rule])
            else:
                found.append(_judged(request, Threshold(name, rule, value, request.confidence, is_point(given)), rows))
    return tuple(found)


def _judged(request: GateRequest, threshold: Threshold, rows: Sequence[ScoredRow]) -> Judgement:
    name, figure = threshold.metric, METRICS[threshold.metric].figure
    if threshold.rule == "max_drop":
        if not request.compared_with:
            return not_applicable(threshold)
        # A row that the baseline did not answer says nothing about it, least of all that it was bad.
        pairs = [(row.baseline[name], row.scores.get(name, 0.0)) for row in rows if name in row.baseline]
        return judge_drop(threshold, pairs)
    ceiling = TIMEOUT_S * 1000
    if figure is Figure.QUANTILE:
        return judge(threshold, [row.latency_ms for row in rows], ceiling)
    if figure is Figure.RATE:
        return judge(threshold, [float(bool(row.error)) for row in rows], ceiling)
    return judge(threshold, [row.scores.get(name, 0.0) for row in rows], ceiling)


def _failed(request: GateRequest, rows: Sequence[ScoredRow]) -> list[str]:
    """Rows whose failed requests, to either revision, went into the quality figures."""
    compared = bool(request.compared_with)
    return [row.id for row in rows if row.error or (compared and not row.baseline)]


def _total(request: GateRequest, row: ScoredRow) -> float:
    """One figure to rank a row by: the mean of its quality scores, or whether it was answered."""
    quality = request.quality
    if not quality:
        return float(not row.error)
    return sum(row.scores.get(name, 0.0) for name in quality) / len(quality)


def _losing(request: GateRequest, rows: Sequence[ScoredRow]) -> list[ScoredRow]:
    """The rows that lost points, worst first."""
    return sorted((r for r in rows if _total(request, r) < 1), key=lambda r: _total(request, r))


def _worst(request: GateRequest, rows: Sequence[ScoredRow]) -> tuple[RowReport, ...]:
    asked = {row.id: row for row in request.rows}
    return tuple(
        RowReport(
            id=row.id,
            inputs=inputs_of(request, asked[row.id]),
            expected=expected_of(request, asked[row.id]),
            answer=row.answer,
            score=_total(request, row),
            error=row.error,
        )
        for row in _losing(request, rows)[:_WORST]
    )
