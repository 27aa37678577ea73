"""Verdicts, dataset sizes, and judging evidence again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llmctl.core.evidence import Evidence, Judgement, Verdict
from llmctl.gates import rejudge, slice_counts, too_small
from llmctl.gates.sizes import least_rows
from llmctl.gates.verdicts import Threshold, decide, judge, judge_drop, not_applicable, overall
from tests.gates.parts import spec

PASS, FAIL, OPEN, NA = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.NOT_APPLICABLE


def minimum(value: float, metric: str = "exact_match", *, point: bool = False) -> Threshold:
    return Threshold(metric, "min", value, 0.95, point)


@pytest.mark.parametrize(
    ("rule", "lower", "upper", "verdict"),
    [
        ("min", 0.5, 0.9, PASS),
        ("min", 0.4, 0.49, FAIL),
        ("min", 0.4, 0.5, OPEN),
        ("max", 0.1, 0.5, PASS),
        ("max", 0.51, 0.9, FAIL),
        ("max", 0.5, 0.9, OPEN),
        ("max_drop", -0.1, 0.4, PASS),
        ("max_drop", 0.51, 0.6, FAIL),
        ("max_drop", 0.1, 0.6, OPEN),
    ],
)
def test_decide(rule: str, lower: float, upper: float, verdict: Verdict) -> None:
    assert decide(rule, 0.5, (lower + upper) / 2, lower, upper) is verdict


def test_59_right_answers_prove_095_and_58_do_not() -> None:
    assert judge(minimum(0.95), [1.0] * 59, 1.0).verdict is PASS
    short = judge(minimum(0.95), [1.0] * 58, 1.0)
    assert (short.verdict, short.samples_needed) == (OPEN, 59)


def test_all_wrong_fails() -> None:
    judgement = judge(minimum(0.95), [0.0] * 20, 1.0)
    assert (judgement.verdict, judgement.estimate, judgement.lower) == (FAIL, 0.0, 0.0)


def test_the_example_passes_rouge() -> None:
    assert judge(minimum(0.9, "rouge_l"), [1.0] * 160, 1.0).verdict is PASS
    assert judge(minimum(0.9, "rouge_l"), [1.0] * 200 + [0.2] * 6, 1.0).verdict is PASS
    assert judge(minimum(0.9, "rouge_l"), [0.5, 0.7] * 100, 1.0).verdict is FAIL
    drop = Threshold("rouge_l", "max_drop", 0.02, 0.95)
    assert judge_drop(drop, [(1.0, 1.0)] * 200).verdict is PASS
    open_one = judge_drop(drop, [(1.0, 1.0)] * 100)
    assert open_one.verdict is OPEN
    assert judge_drop(drop, [(1.0, 1.0)] * open_one.samples_needed).verdict is PASS
    assert judge_drop(drop, [(1.0, 0.6)] * 40).verdict is FAIL


def test_latency_needs_59_requests() -> None:
    limit = Threshold("latency_p95_ms", "max", 500, 0.95)
    assert judge(limit, [20.0] * 59, 30_000.0).verdict is PASS
    few = judge(limit, [20.0] * 58, 30_000.0)
    assert (few.verdict, few.upper, few.samples_needed) == (OPEN, 30_000.0, 59)
    assert judge(limit, [30_000.0] * 59, 30_000.0).verdict is FAIL


def test_the_median_needs_five_requests() -> None:
    limit = Threshold("latency_p50_ms", "max", 500, 0.95)
    assert judge(limit, [20.0] * 5, 30_000.0).verdict is PASS
    few = judge(limit, [20.0] * 4, 30_000.0)
    assert (few.verdict, few.upper, few.samples_needed) == (OPEN, 30_000.0, 5)
    assert judge(limit, [20.0] * 90 + [30_000.0] * 60, 30_000.0).verdict is PASS
    assert judge(limit, [20.0] * 60 + [30_000.0] * 90, 30_000.0).verdict is FAIL


def test_error_rate() -> None:
    limit = Threshold("error_rate", "max", 0.02, 0.95)
    assert judge(limit, [0.0] * 149, 1.0).verdict is PASS
    assert judge(limit, [0.0] * 148, 1.0).samples_needed == 149
    assert judge(limit, [1.0] * 20 + [0.0] * 80, 1.0).verdict is FAIL
    assert judge(Threshold("error_rate", "max", 0.0, 0.95), [0.0] * 500, 1.0).samples_needed == 0


def test_paired_yes_no() -> None:
    drop = Threshold("exact_match", "max_drop", 0.02, 0.95)
    assert judge_drop(drop, [(1.0, 1.0)] * 100 + [(0.0, 0.0)] * 49).verdict is PASS
    assert judge_drop(drop, [(1.0, 1.0)] * 148).verdict is OPEN
    assert judge_drop(drop, [(1.0, 0.0)] * 15 + [(1.0, 1.0)] * 135).verdict is FAIL


def test_point_compares_the_estimate_and_still_tells_the_bounds() -> None:
    passed = judge(minimum(0.9, point=True), [1.0] * 9 + [0.0], 1.0)
    assert (passed.verdict, passed.method) == (PASS, "point")
    assert passed.lower < 0.9
    assert judge(minimum(0.91, point=True), [1.0] * 9 + [0.0], 1.0).verdict is FAIL


@pytest.mark.parametrize("point", [True, False])
@pytest.mark.parametrize("metric", ["exact_match", "rouge_l", "latency_p95_ms", "error_rate"])
def test_without_samples_nothing_is_decided(metric: str, point: bool) -> None:
    rule = "min" if metric in ("exact_match", "rouge_l") else "max"
    judgement = judge(Threshold(metric, rule, 0.9, 0.95, point), [], 30_000.0)
    assert judgement.verdict is OPEN
    assert judgement.samples_needed == least_rows(metric, rule, 0.9, 0.95)
    json.dumps(judgement.to_json(), allow_nan=False)


def test_without_pairs_nothing_is_decided() -> None:
    for metric in ("exact_match", "rouge_l"):
        assert judge_drop(Threshold(metric, "max_drop", 0.02, 0.95), []).verdict is OPEN


def test_overall_is_the_worst() -> None:
    assert overall([PASS, FAIL, OPEN]) is FAIL
    assert overall([PASS, OPEN, NA]) is OPEN
    assert overall([PASS, NA]) is PASS
    assert overall([NA]) is NA
    assert overall([]) is OPEN


def test_too_small_says_what_would_do() -> None:
    gate = spec(
        exact_match={"min": 0.95, "max_drop": 0.02},
        rouge_l={"min": 0.9},
        latency_p95_ms={"max": 500},
        error_rate={"max": 0.05, "decide": "point"},
    )
    assert too_small(gate, 50) == [
        "exact_match: 50 rows cannot prove min 0.95 at 0.95 confidence, even with a perfect result; 59 rows can",
        "exact_match: 50 rows cannot prove max_drop 0.02 at 0.95 confidence, even with equal answers; 149 rows can",
        "latency_p95_ms: 50 rows cannot prove max 500 at 0.95 confidence, even with a perfect result; 59 rows can",
    ]
    assert too_small(gate, 149) == []


def test_too_small_knows_what_no_size_proves() -> None:
    assert "no number of rows can" in too_small(spec(exact_match={"min": 1.0}), 10_000)[0]
    assert "no number of rows can" in too_small(spec(exact_match={"max_drop": 0}), 10_000)[0]
    assert too_small(spec(exact_match={"min": 0.0}), 1) == []


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(
    ("metric", "rule", "value"),
    [
        ("exact_match", "min", 0.95),
        ("rouge_l", "min", 0.9),
        ("bleu", "min", 0.4),
        ("error_rate", "max", 0.03),
        ("latency_p50_ms", "max", 9),
        ("latency_p95_ms", "max", 9),
    ],
)
def test_too_small_agrees_with_the_verdicts(metric: str, rule: str, value: float, confidence: float) -> None:
    needed = least_rows(metric, rule, value, confidence)
    assert needed is not None
    threshold = Threshold(metric, rule, value, confidence)
    perfect = 1.0 if rule == "min" else 0.0
    assert judge(threshold, [perfect] * needed, 30_000.0).verdict is PASS
    assert judge(threshold, [perfect] * (needed - 1), 30_000.0).verdict is OPEN


@pytest.mark.parametrize("metric", ["exact_match", "rouge_l"])
def test_too_small_agrees_with_the_verdicts_on_drops(metric: str) -> None:
    needed = least_rows(metric, "max_drop", 0.02, 0.95)
    assert needed is not None
    threshold = Threshold(metric, "max_drop", 0.02, 0.95)
    assert judge_drop(threshold, [(1.0, 1.0)] * needed).verdict is PASS
    assert judge_drop(threshold, [(1.0, 1.0)] * (needed - 1)).verdict is OPEN


def test_too_small_names_the_rows_of_a_threshold_that_needs_very_many() -> None:
    gate = spec(rouge_l={"min": 0.999, "max_drop": 0.0001})
    assert [finding.rpartition("; ")[2] for finding in too_small(gate, 50)] == ["3601 rows can", "36025 rows can"]


def sliced(**slices: Any) -> dict[str, Any]:
    return {**spec(exact_match={"min": 0.5}), "slices": slices}


def test_too_small_speaks_of_slices_when_it_knows_their_rows() -> None:
    gate = sliced(language={"exact_match": {"min": 0.9}}, topic={"exact_match": {"min": 0.9, "decide": "point"}})
    rows = [{"language": value, "topic": "x"} for value in ["de"] * 28 + ["en"] * 40 + ["fr"] * 3]
    counts = slice_counts(gate, rows)
    assert counts == {"language": {"de": 28, "en": 40, "fr": 3}, "topic": {"x": 71}}
    assert too_small(gate, 71) == []
    assert too_small(gate, 71, counts) == [
        "exact_match in slices of language: it takes 29 rows to prove min 0.9 at 0.95 confidence, even with a perfect "
        "result; de has 28, fr has 3"
    ]
    gate = sliced(language={"exact_match": {"min": 1.0}})
    assert "no number of rows can" in too_small(gate, 71, counts)[0]


def test_too_many_values_and_long_ones_are_told_without_counting_them_all() -> None:
    gate = sliced(id={"exact_match": {"min": 0.9}}, text={"exact_match": {"min": 0.9}})
    counts = slice_counts(gate, ({"id": n, "text": "long " * 20, "other": None} for n in range(10_000)))
    assert len(counts["id"]) == 51
    found = too_small(gate, 10_000, counts)
    assert found == [
        "column id has more than 50 values to slice by",
        "column text has values longer than 60 characters to slice by",
    ]


def test_values_that_are_no_plain_text_have_a_name() -> None:
    gate = sliced(tag={"exact_match": {"min": 0.9}})
    rows: list[dict[str, Any]] = [{"tag": t} for t in ("a", "a", 5, True, "x\ny", "", None)] + [{}]
    assert slice_counts(gate, rows) == {"tag": {"": 1, '"x\\ny"': 1, "5": 1, "a": 2, "true": 1}}


def evidence(*judgements: Judgement, **changes: Any) -> Evidence:
    given: dict[str, Any] = {
        "gate": "faq",
        "gate_revision": "g",
        "gate_spec": {},
        "route": "support",
        "route_revision": "new",
        "baseline_revision": "",
        "dataset_digest": "sha256:dd",
        "key": "k",
        "samples": 60,
        "judgements": judgements,
        "verdict": overall(j.verdict for j in judgements),
    }
    return Evidence(**{**given, **changes})


GOOD = judge(minimum(0.95), [1.0] * 60, 1.0)
GATE = spec(exact_match={"min": 0.95})


def test_rejudge_accepts_what_follows() -> None:
    for judgement in (GOOD, judge(minimum(0.95), [1.0] * 40, 1.0), judge(minimum(0.5), [0.0] * 60, 1.0)):
        assert rejudge(evidence(judgement), None) == []
    assert rejudge(evidence(GOOD), GATE) == []
    both = spec(exact_match={"min": 0.95, "max_drop": 0.02})
    drop = Threshold("exact_match", "max_drop", 0.02, 0.95)
    assert rejudge(evidence(GOOD, not_applicable(drop)), both) == []
    assert rejudge(evidence(judge(minimum(0.9, point=True), [1.0] * 9 + [0.0], 1.0)), None) == []
    assert rejudge(evidence(judge(minimum(0.9), [], 1.0), samples=0), None) == []


@pytest.mark.parametrize(
    ("forged", "complaint"),
    [
        (replace(GOOD, lower=0.94), "the verdict is PASS, but its figures give INCONCLUSIVE"),
        (replace(GOOD, upper=0.5, lower=0.4, estimate=0.45), "the verdict is PASS, but its figures give FAIL"),
        (replace(GOOD, threshold=0.99), "the verdict is PASS, but its figures give INCONCLUSIVE"),
        (replace(GOOD, lower=float("nan")), "not every figure is a number"),
        (replace(GOOD, estimate=0.2), "lies outside its own bounds"),
        (replace(GOOD, samples=61), "judged on 61 samples of 60"),
        (replace(GOOD, samples=0), "its figures give INCONCLUSIVE"),
        (replace(GOOD, verdict=NA), "the verdict is N/A, but its figures give PASS"),
        (replace(GOOD, method="not applicable", verdict=NA), "the verdict is N/A, but its figures give INCONCLUSIVE"),
    ],
)
def test_rejudge_finds_forged_judgements(forged: Judgement, complaint: str) -> None:
    assert any(complaint in text for text in rejudge(evidence(forged), None))


def test_rejudge_finds_a_forged_verdict() -> None:
    bad = judge(minimum(0.95), [0.0] * 60, 1.0)
    assert rejudge(evidence(bad, verdict=PASS), None) == ["the verdict is PASS, but its judgements give FAIL"]


def test_a_drop_that_was_to_be_judged_is_not_waved_through() -> None:
    skipped = not_applicable(Threshold("exact_match", "max_drop", 0.02, 0.95))
    assert rejudge(evidence(skipped, baseline_revision="old"), None) != []
    assert rejudge(evidence(skipped, baseline_revision="new"), None) == []


@pytest.mark.parametrize(
    ("gate", "complaint"),
    [
        (spec(exact_match={"min": 0.99}), "exact_match min: judged against 0.95, the gate says 0.99"),
        (spec(exact_match={"min": 0.95, "max_drop": 0.1}), "exact_match max_drop: the gate asks for it"),
        (spec(contains={"min": 0.95}), "exact_match min: judged, and the gate does not ask for it"),
        ({**GATE, "confidence": 0.99}, "exact_match min: judged at confidence 0.95, the gate says 0.99"),
        ({**GATE, "dataset_digest": "sha256:other"}, "dataset_digest is sha256:dd, the gate says sha256:other"),
        ({**GATE, "route": "other"}, "route is support, the gate says other"),
    ],
)
def test_rejudge_compares_with_the_gate(gate: dict[str, Any], complaint: str) -> None:
    assert any(complaint in text for text in rejudge(evidence(GOOD), gate))


def test_rejudge_refuses_a_point_that_the_gate_does_not_grant() -> None:
    point = judge(minimum(0.95, point=True), [1.0] * 60, 1.0)
    assert "asks for an interval" in rejudge(evidence(point), GATE)[0]
    assert rejudge(evidence(point), spec(exact_match={"min": 0.95, "decide": "point"})) == []
    assert any("twice" in text for text in rejudge(evidence(GOOD, GOOD), GATE))


def part(name: str, rows: int, value: float = 0.9) -> Judgement:
    return judge(Threshold("exact_match", "min", value, 0.95, slice=name), [1.0] * rows, 1.0)


SLICED = {**GATE, "slices": {"language": {"exact_match": {"min": 0.9}}}}


def test_rejudge_accepts_slices_that_cover_all_rows() -> None:
    assert rejudge(evidence(GOOD, part("language=de", 30), part("language=en", 30)), SLICED) == []
    odd = {**GATE, "slices": {"a": {"exact_match": {"min": 0.9}}, "a=b": {"exact_match": {"min": 0.5}}}}
    assert rejudge(evidence(GOOD, part("a=c", 60), part("a=b=d", 60, 0.5)), odd) == []


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ([], "exact_match in slices of language: judged on 0 of 60 rows"),
        ([part("language=de", 30)], "judged on 30 of 60 rows"),
        ([part("language=de", 60, 0.8)], "exact_match min of language=de: judged against 0.8, the gate says 0.9"),
        ([part("topic=x", 60)], "exact_match min of topic=x: judged, and the gate does not ask for it"),
        ([part("language=de", 30), part("language=de", 30)], "a threshold is judged twice"),
        ([replace(part("language=de", 60), lower=0.5)], "exact_match min of language=de: the verdict is PASS, but"),
        ([replace(part("language=de", 60), rule="max")], "exact_match min of language=de: the gate asks for it"),
    ],
)
def test_rejudge_finds_forged_slices(parts: list[Judgement], complaint: str) -> None:
    assert any(complaint in text for text in rejudge(evidence(GOOD, *parts), SLICED))
    assert rejudge(evidence(GOOD, *parts), GATE) != [] or not parts
