"""Scores of answers."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from llmctl.gates.metrics import METRICS, contains, exact_match, rouge_l, versions


@pytest.mark.parametrize(
    ("expected", "answer", "score"),
    [
        ("We accept cards.", " We  accept\ncards. ", 1.0),
        ("We accept cards.", "we accept cards.", 0.0),
        ("We accept cards.", "We accept cards", 0.0),
        ("Caf\u00e9", "Cafe\u0301", 1.0),
        ("", "", 1.0),
        ("", "x", 0.0),
    ],
)
def test_exact_match(expected: str, answer: str, score: float) -> None:
    assert exact_match(expected, answer) == score


@pytest.mark.parametrize(
    ("expected", "answer", "score"),
    [
        ("PayPal", "Yes: paypal, and cards.", 1.0),
        ("two words", "these two\n words", 1.0),
        ("STRASSE", "Hauptstra\u00dfe", 1.0),
        ("PayPal", "Only cards.", 0.0),
        ("", "anything", 0.0),
        ("", " ", 1.0),
    ],
)
def test_contains(expected: str, answer: str, score: float) -> None:
    assert contains(expected, answer) == score


def test_rouge_l_is_that_of_rouge_score() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    chance = random.Random(7)
    words = ["We", "accept", "cards,", "PayPal", "bank-transfer", "1,000", "caf\u00e9", "\u4f60\u597d", "--", "the"]
    for _ in range(300):
        one, other = (" ".join(chance.choices(words, k=chance.randrange(12))) for _ in range(2))
        theirs = scorer.score(one, other)["rougeL"].fmeasure
        assert rouge_l(one, other) == pytest.approx(theirs, abs=1e-12), (one, other)


def test_rouge_l_degenerate_cases() -> None:
    assert rouge_l("the same words", "The same words!") == 1.0
    assert rouge_l("", "") == rouge_l("x", "") == rouge_l("--", "--") == 0.0


def test_rouge_l_does_not_load_nltk() -> None:
    code = (
        "import sys; from llmctl import gates; "
        "assert not {'asyncio', 'aiohttp', 'scipy', 'numpy', 'rouge_score', 'importlib.metadata'} & set(sys.modules);"
        "assert gates.METRICS['rouge_l'].score('a b', 'a b') == 1.0; assert 'nltk' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"], check=False)
    assert done.returncode == 0


def test_versions_name_what_decides() -> None:
    assert versions(["exact_match"]) == {"exact_match": "1", "statistics": "1"}
    assert set(versions(["rouge_l", "latency_p95_ms"])) == {"rouge_l", "rouge-score", "latency_p95_ms", "statistics"}


def test_quality_metrics_may_drop_and_the_others_have_a_ceiling() -> None:
    assert {m.name: m.rules for m in METRICS.values() if m.is_quality} == dict.fromkeys(
        ["exact_match", "contains", "rouge_l"], ("min", "max_drop")
    )
    assert {m.name: m.rules for m in METRICS.values() if not m.is_quality} == dict.fromkeys(
        ["latency_p95_ms", "error_rate"], ("max",)
    )
