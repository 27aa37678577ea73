"""Run one gate: measure what known evidence does not answer, judge, and keep the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from time import monotonic

from llmctl.core.digests import digest
from llmctl.core.errors import GateBlocked, Interrupted
from llmctl.core.evidence import Evidence
from llmctl.core.protocols import ArtifactStore, GateAccess
from llmctl.gates.answers import AnswerLog, answer_log
from llmctl.gates.judging import judgements
from llmctl.gates.keys import evidence_key, find_cached
from llmctl.gates.metrics import METRICS, versions
from llmctl.gates.request import (
    REQUEST_TIMEOUT_S,
    Failures,
    GateRequest,
    GateResult,
    Row,
    RowReport,
    check_request,
    expected_of,
    inputs_of,
    rules_of,
)
from llmctl.gates.rows import ScoredRow, comparable_scores, read_rows, write_rows
from llmctl.gates.runner import Answer, OutOfTime, Target, ask
from llmctl.gates.sizes import least_rows
from llmctl.gates.verdicts import overall

_WORST = 5
_FAILING = 100


@dataclass(frozen=True, slots=True)
class _Known:
    """What need not be measured: evidence with the same key, with its rows."""

    evidence: Evidence
    rows: Mapping[str, ScoredRow]


@dataclass
class _Asker:
    """Asks revisions rows of the request and counts; ``total`` is all that will be asked."""

    request: GateRequest
    access: GateAccess
    log: AnswerLog
    concurrency: int
    request_timeout_s: float
    deadline_s: float
    progress: Callable[[int, int], None]
    cancelled: Event
    total: int = 0
    done: int = 0

    def ask(self, revision: str, rows: Sequence[Row]) -> dict[str, Answer]:
        """The answers by row id."""

        def answered(at: int, answer: Answer) -> None:
            if not answer.error:
                self.log.keep(revision, rows[at].id, answer.text)
            self.done += 1
            self.progress(self.done, self.total)

        answers = ask(
            Target(self.access, self.request.spec["route"], revision, self.request_timeout_s),
            [inputs_of(self.request, row) for row in rows],
            concurrency=self.concurrency,
            answered=answered,
            cancelled=self.cancelled,
            deadline_s=self.deadline_s,
        )
        return {row.id: answer for row, answer in zip(rows, answers, strict=True)}


def run(
    request: GateRequest,
    access: GateAccess,
    store: ArtifactStore,
    known: Sequence[Evidence],
    *,
    concurrency: int = 16,
    request_timeout_s: float = REQUEST_TIMEOUT_S,
    run_timeout_s: float = 1800.0,
    resume: Path | None = None,
    progress: Callable[[int, int], None],
    cancelled: Event,
) -> GateResult:
    """Prove a route revision by a gate.

    Quality figures of known evidence with the same key are reused, as long as its rows are in ``store``.
    Latency and errors are never reused: then every row is asked again, those requests are judged for
    them alone, and their answers are not looked at. Nothing is asked when nothing is to be measured.
    ``max_drop`` takes the baseline's scores from known rows, or else asks the baseline too.

    In the folder ``resume`` every answer is kept as it comes; a later run of the same request takes them
    over and asks the rest, and what failed. Latency and errors are judged on this run's own requests. For a
    gate that has such metrics these are at least half of the rows, and as many as its thresholds need at
    the least: rows taken over are asked again to make up that number, which does not depend on any figure.

    A request that takes longer than ``request_timeout_s`` is an error. Latency is that of a request among
    ``concurrency`` at a time, in ms, as the client sees it. ``progress`` is called with (requests done,
    requests in all), on this thread, which must have no event loop. Raises ``InvalidInput`` for a request
    that cannot be run, ``ProviderError`` when the gateway does not serve exactly the revision asked for,
    ``GateBlocked`` when ``run_timeout_s`` is over, ``Interrupted`` when ``cancelled`` is set.
    """
    start = monotonic()
    check_request(request)
    _check(cancelled)
    cached = _find_known(request, store, known)
    if cached and not request.live:
        return _as_known(request, cached)
    key = digest([request.gate, evidence_key(request, versions(request.spec["metrics"]))])
    # What known evidence answers is asked for latency and errors alone, of which nothing is ever taken over.
    with answer_log(None if cached else resume, key) as log:
        limits = (concurrency, request_timeout_s, start + run_timeout_s)
        asker = _Asker(request, access, log, *limits, progress, cancelled)
        try:
            rows, taken_over = (_asked_again(asker, cached), 0) if cached else _asked(asker, store, known)
        except OutOfTime:
            raise _out_of_time(asker, run_timeout_s) from None
        _check(cancelled)
        evidence = replace(_evidence(asker, store, rows, cached), seconds=round(monotonic() - start, 3))
        log.remove()
    return GateResult(evidence, _worst(request, rows), request.quality if cached else (), taken_over)


def _check(cancelled: Event) -> None:
    if cancelled.is_set():
        raise Interrupted("interrupted")


def _evidence(asker: _Asker, store: ArtifactStore, rows: Sequence[ScoredRow], cached: _Known | None) -> Evidence:
    """Judge the rows, and keep them in the store."""
    request, scorers = asker.request, versions(asker.request.spec["metrics"])
    judged = judgements(request, rows, cached.evidence if cached else None, asker.request_timeout_s * 1000)
    return Evidence(
        gate=request.gate,
        gate_revision=request.gate_revision,
        gate_spec=dict(request.spec),
        route=request.spec["route"],
        route_revision=request.route_revision,
        baseline_revision=request.baseline_revision,
        dataset_digest=request.spec["dataset_digest"],
        key=evidence_key(request, scorers, [] if cached else _failed(request, rows)),
        samples=len(rows),
        judgements=judged,
        verdict=overall(j.verdict for j in judged),
        rows=write_rows(store, request.spec, scorers, rows),
        failing=tuple(row.id for row in _losing(request, rows)[:_FAILING]),
        versions=scorers,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _out_of_time(asker: _Asker, seconds: float) -> GateBlocked:
    request = asker.request
    time = f"{seconds / 60:g} m" if seconds >= 60 else f"{seconds:g} s"
    hint = "Allow it more time (the gate's `timeouts: {run: …}`) or more requests at once (`concurrency`)."
    if asker.log.path is not None:
        hint = f"Run it again: it goes on with the rest. {hint}"
    return GateBlocked(
        f"gate.{request.gate} did not end within {time}: {asker.done} of {asker.total} requests to "
        f"{request.spec['route']}@{request.route_revision[:8]} are over",
        hint=hint,
    )


def _find_known(request: GateRequest, store: ArtifactStore, known: Sequence[Evidence]) -> _Known | None:
    evidence = find_cached(request, known)
    rows = read_rows(store, evidence) if evidence else None
    if evidence is None or rows is None or {row.id for row in rows} != {row.id for row in request.rows}:
        return None
    return _Known(evidence, {row.id: row for row in rows})


def _as_known(request: GateRequest, cached: _Known) -> GateResult:
    """Known evidence as the evidence of this request; the same one when gate and baseline are."""
    judged = judgements(request, [], cached.evidence, 0.0)
    evidence = replace(
        cached.evidence,
        gate=request.gate,
        gate_revision=request.gate_revision,
        gate_spec=dict(request.spec),
        baseline_revision=request.baseline_revision,
        judgements=judged,
        verdict=overall(j.verdict for j in judged),
    )
    # Whose requests failed in that run is nothing to a gate that does not measure requests.
    rows = [replace(cached.rows[row.id], error="") for row in request.rows]
    return GateResult(evidence, _worst(request, rows), request.quality)


def _known_baseline(
    request: GateRequest, store: ArtifactStore, known: Sequence[Evidence]
) -> Mapping[str, Mapping[str, float]] | None:
    """The baseline's scores by row id: empty when nothing is compared, None when it must be asked."""
    if not request.compared_with or not request.rows:
        return {}
    quality = versions({name: given for name, given in request.spec["metrics"].items() if name in request.quality})
    found = comparable_scores(store, known, request.spec, request.compared_with, quality)
    return found if found is not None and {row.id for row in request.rows} <= found.keys() else None


def _asked_again(asker: _Asker, cached: _Known) -> list[ScoredRow]:
    """Known answers and scores with the latency and error of requests made now."""
    asker.total = len(asker.request.rows)
    answers = asker.ask(asker.request.route_revision, asker.request.rows)
    return [
        replace(cached.rows[row_id], latency_ms=answer.latency_ms, error=answer.error)
        for row_id, answer in answers.items()
    ]


def _asked(asker: _Asker, store: ArtifactStore, known: Sequence[Evidence]) -> tuple[list[ScoredRow], int]:
    """The scored rows, the baseline's scores with them, and how many answers were taken over."""
    request, log = asker.request, asker.log
    baseline = _known_baseline(request, store, known)
    before = log.known(request.compared_with) if baseline is None else {}
    taken = log.known(request.route_revision)
    before_open = [row for row in request.rows if row.id not in before] if baseline is None else []
    rest = [row for row in request.rows if row.id not in taken]
    rest += _again(request, [row for row in request.rows if row.id in taken], len(rest))
    asker.total = len(before_open) + len(rest)
    if baseline is None:
        baseline = _scores(request, before | _texts(asker.ask(request.compared_with, before_open)))
    answers = asker.ask(request.route_revision, rest)
    texts = _texts(answers) | taken
    scores = _scores(request, texts)
    rows = [
        ScoredRow(
            id=row.id,
            answer=texts.get(row.id, ""),
            scores=scores[row.id],
            latency_ms=answers[row.id].latency_ms if row.id in answers else None,
            error=answers[row.id].error if row.id in answers else "",
            baseline={n: s for n, s in baseline.get(row.id, {}).items() if n in request.quality},
        )
        for row in request.rows
    ]
    return rows, sum((row.id in taken) + (row.id in before) for row in request.rows)


def _again(request: GateRequest, taken: Sequence[Row], rest: int) -> Sequence[Row]:
    """Rows taken over that are asked again, so that ``rest`` and they are enough to judge requests by."""
    if not request.live:
        return []
    confidence = request.confidence
    given = [(n, rule, value) for n in request.live for rule, value in rules_of(request.spec["metrics"][n])]
    least = max(least_rows(name, rule, value, confidence) or 0 for name, rule, value in given)
    wanted = max(least, (len(taken) + rest + 1) // 2)
    return taken[: max(0, wanted - rest)]


def _texts(answers: Mapping[str, Answer]) -> dict[str, str]:
    return {row_id: answer.text for row_id, answer in answers.items() if not answer.error}


def _scores(request: GateRequest, texts: Mapping[str, str]) -> dict[str, Mapping[str, float]]:
    """Scores by row id; none for a row without an answer."""
    metrics = request.spec["metrics"]
    scorers = {n: scorer(metrics[n]) for n in request.quality if (scorer := METRICS[n].scorer)}
    found: dict[str, Mapping[str, float]] = {}
    for row in request.rows:
        expected = expected_of(request, row) or ""  # "" only for scorers that do not look at it
        text = texts.get(row.id)
        found[row.id] = {} if text is None else {name: score(expected, text) for name, score in scorers.items()}
    return found


def _failed(request: GateRequest, rows: Sequence[ScoredRow]) -> list[str]:
    """Rows whose failed requests, to either revision, went into the quality figures."""
    compared = bool(request.compared_with)
    return [row.id for row in rows if (row.error and not row.scores) or (compared and not row.baseline)]


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
    """Rows that failed or lost points, worst first."""
    asked = {row.id: row for row in request.rows}
    failures = _failures(rows)
    reached = {row.id: 0.0 if row.error else _total(request, row) for row in rows}
    worst = sorted((row for row in rows if reached[row.id] < 1), key=lambda row: reached[row.id])
    return tuple(
        RowReport(
            id=row.id,
            inputs=inputs_of(request, asked[row.id]),
            expected=expected_of(request, asked[row.id]),
            answer=row.answer,
            score=_total(request, row),
            error=row.error,
            failures=failures,
        )
        for row in worst[:_WORST]
    )


def _failures(rows: Sequence[ScoredRow]) -> Failures | None:
    """What became of this run's requests; None when all were answered."""
    reasons = Counter(row.error for row in rows if row.error)
    if not reasons:
        return None
    reason, alike = reasons.most_common(1)[0]
    return Failures(reasons.total(), sum(row.latency_ms is not None for row in rows), reason, alike)
