"""Scores of answers."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from typing import Any, NoReturn

import pytest

from llmctl.core.digests import Json
from llmctl.core.errors import LlmctlError
from llmctl.gates import scorers
from llmctl.gates.metrics import METRICS, versions
from llmctl.gates.scorers import BadScorer, Score


def scorer(metric: str, **given: Json) -> Score:
    make = METRICS[metric].scorer
    assert make is not None
    return make(given)


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
    assert scorer("exact_match")(expected, answer) == score


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
    assert scorer("contains")(expected, answer) == score


def test_rouge_l_of_ascii_is_that_of_rouge_score() -> None:
    library = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    score = scorer("rouge_l")
    chance = random.Random(7)
    words = ["We", "accept", "cards,", "PayPal", "bank-transfer", "1,000", "snake_case", "it's", "--", "the", "\x00\t"]
    for _ in range(300):
        one, other = (" ".join(chance.choices(words, k=chance.randrange(12))) for _ in range(2))
        assert score(one, other) == pytest.approx(library.score(one, other)["rougeL"].fmeasure, abs=1e-12), (one, other)


@pytest.mark.parametrize(
    ("expected", "answer", "score"),
    [
        ("the same words", "The same words!", 1.0),
        ("", "", 0.0),
        ("--", "--", 0.0),
        ("Die Lieferung dauert fünf Tage", "die lieferung dauert FU\u0308NF tage.", 1.0),
        ("Доставка занимает пять дней", "Доставка занимает три дня", 0.5),
        ("मुझे हिन्दी आती है", "मुझे हिन्दी नहीं आती", 0.75),
        ("配送需要五天", "配送需要三天", 10 / 12),
        ("配送 5 日", "配送5日", 1.0),
    ],
)
def test_rouge_l_reads_every_script(expected: str, answer: str, score: float) -> None:
    assert scorer("rouge_l")(expected, answer) == pytest.approx(score)


def test_bleu_and_chrf_are_those_of_sacrebleu_and_lie_between_0_and_1() -> None:
    import sacrebleu

    bleu, chrf = scorer("bleu"), scorer("chrf")
    chance = random.Random(7)
    words = ["We", "accept", "cards,", "PayPal", "1,000", "caf\u00e9", "\u4f60\u597d", "--", "the", "."]
    for _ in range(100):
        one, other = (" ".join(chance.choices(words, k=chance.randrange(12))) for _ in range(2))
        theirs = sacrebleu.sentence_bleu(other, [one], use_effective_order=True).score
        assert bleu(one, other) == pytest.approx(theirs / 100, abs=1e-12)
        assert chrf(one, other) == pytest.approx(sacrebleu.sentence_chrf(other, [one]).score / 100, abs=1e-12)
        assert 0 <= bleu(one, other) <= 1
        assert 0 <= chrf(one, other) <= 1
    assert bleu("the cat", "the cat") == 1.0  # the library says 100.00000000000004
    assert bleu("", "") == bleu("x", "") == chrf("", "x") == chrf("\ud800", "") == 0.0
    assert 0 < bleu("It takes three to five days.", "It takes three days.") < 1


@pytest.mark.parametrize(
    ("pattern", "answer", "score"),
    [
        ("^[A-Z]", "Yes.", 1.0),
        ("^[A-Z]", "yes.", 0.0),
        ("days?$", "It takes five days", 1.0),
        (r"(?i)\byes\b", "Oh YES, it does", 1.0),
        (r"\d{3}", "\ud800 12", 0.0),
    ],
)
def test_regex(pattern: str, answer: str, score: float) -> None:
    assert scorer("regex", pattern=pattern)("", answer) == score


def test_a_pattern_without_end_is_an_error_and_no_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorers, "SEARCH_S", 0.1)
    trap = "a" * 5000 + "b"  # by trying all ways, longer than the universe is old
    with pytest.raises(LlmctlError, match=r"takes more than 0\.1 s on one answer"):
        scorer("regex", pattern="^(a|a)*$")("", trap)
    with pytest.raises(LlmctlError, match=r"takes more than 0\.1 s on one answer"):
        scorer("json_schema", schema={"pattern": "^(a|a)*$"})("", f'"{trap}"')


ANSWER: dict[str, Json] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["answer"],
    "properties": {"answer": {"type": "string", "pattern": "^[A-Z]"}, "more": {"$ref": "#/$defs/more"}},
    "$defs": {"more": {"type": "array", "items": {"$ref": "#"}}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"answer": "Yes."}', 1.0),
        (' {"answer": "Yes.", "more": [{"answer": "No."}]}\n', 1.0),
        ('{"answer": "yes."}', 0.0),
        ('{"answer": "Yes.", "more": [{"answer": "no."}]}', 0.0),
        ('{"answer": 7}', 0.0),
        ("{}", 0.0),
        ("Yes.", 0.0),
        ('```json\n{"answer": "Yes."}\n```', 0.0),
        ('{"answer": "Yes."} and more', 0.0),
        ("", 0.0),
        ("[" * 100_000, 0.0),
        ('{"answer": "Yes.", "more": [' * 400 + "]}" * 400, 0.0),
        ("1" * 5000, 0.0),
    ],
)
def test_json_schema(answer: str, score: float) -> None:
    assert scorer("json_schema", schema=ANSWER)("", answer) == score


def test_json_schema_takes_no_number_that_json_has_not() -> None:
    score = scorer("json_schema", schema={})
    assert (score("", "1.5"), score("", "NaN"), score("", "[Infinity]")) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("metric", "given", "complaint"),
    [
        ("regex", {}, "it has no pattern"),
        ("regex", {"pattern": "(a"}, "is not a regular expression: missing \\)"),
        ("json_schema", {}, "it has no schema"),
        ("json_schema", {"schema": {"type": "objekt"}}, r"wrong at \$.type: 'objekt' is not valid"),
        ("json_schema", {"schema": {"$schema": "http://example.invalid/draft"}}, "of an unknown kind"),
        ("json_schema", {"schema": {"items": {"pattern": "[a"}}}, r"wrong at \$.items.pattern: '\[a'"),
        ("json_schema", {"schema": {"patternProperties": {"(": {}}}}, r"wrong at \$.patternProperties: '\('"),
        ("json_schema", {"schema": {"items": {"$ref": "#/$defs/gone"}}}, "refers to #/\\$defs/gone"),
        ("json_schema", {"schema": {"$ref": "http://example.invalid/x.json"}}, "refers to http://example.invalid/x"),
        ("json_schema", {"schema": {"$ref": "#"}}, "nests without end"),
    ],
)
def test_a_pattern_or_schema_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch, metric: str, given: dict[str, Any], complaint: str
) -> None:
    def no_network(*_: object) -> NoReturn:
        raise AssertionError("nothing may be fetched")

    monkeypatch.setattr(socket, "socket", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with pytest.raises(BadScorer, match=complaint) as caught:
        scorer(metric, **given)
    assert caught.value.hint


def test_references_inside_a_schema_and_to_json_schema_itself_are_followed() -> None:
    older: dict[str, Json] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "definitions": {"id": {"$id": "#id", "type": "integer"}},
        "items": {"$ref": "#id"},
    }
    score = scorer("json_schema", schema=older)
    assert (score("", "[1]"), score("", '["1"]')) == (1.0, 0.0)
    score = scorer("json_schema", schema={"$ref": "https://json-schema.org/draft/2020-12/schema"})
    assert (score("", '{"type": "object"}'), score("", '{"type": 1}')) == (1.0, 0.0)


def test_nothing_of_weight_loads_before_it_is_used() -> None:
    heavy = "{'asyncio', 'aiohttp', 'scipy', 'numpy', 'regex', 'sacrebleu', 'jsonschema', 'importlib.metadata', 'nltk'}"
    code = (
        f"import sys; from llmctl import gates; assert not {heavy} & set(sys.modules), sys.modules;"
        "assert gates.METRICS['rouge_l'].scorer({})('a b', 'a b') == 1.0; assert 'nltk' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"], check=False)
    assert done.returncode == 0


def test_versions_name_what_decides() -> None:
    assert versions({"exact_match": {"min": 1}}) == {"exact_match": "1", "statistics": "1"}
    found = versions({"bleu": {"min": 0.1}, "latency_p50_ms": {"max": 1}})
    assert found["bleu"].startswith("1, sacrebleu 2.")
    assert found["latency_p50_ms"] == "1"
    one, other = (versions({"regex": {"pattern": p, "min": 0.9}})["regex"] for p in ("^A", "^B"))
    assert one != other
    assert versions({"regex": {"pattern": "^A", "min": 0.1}})["regex"] == one


def test_quality_metrics_may_drop_and_the_others_have_a_ceiling() -> None:
    quality = ["exact_match", "contains", "rouge_l", "bleu", "chrf", "regex", "json_schema"]
    assert {m.name: m.rules for m in METRICS.values() if m.is_quality} == dict.fromkeys(quality, ("min", "max_drop"))
    live = ["latency_p50_ms", "latency_p95_ms", "error_rate"]
    assert {m.name: m.rules for m in METRICS.values() if not m.is_quality} == dict.fromkeys(live, ("max",))
