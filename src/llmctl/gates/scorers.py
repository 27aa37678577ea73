"""Scores of answers: what is expected and what was answered → 0 to 1. Libraries load on first use.

Each name below makes the scorer of one metric from what the gate says of it; ``BadScorer`` when that is
wrong. A scorer may be called from any thread and keeps nothing between calls.
"""

from __future__ import annotations

import importlib
import json
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from llmctl.core.digests import Json
from llmctl.core.errors import LlmctlError

#: (expected, answer) → 0 to 1
Score = Callable[[str, str], float]

#: Seconds that one search of a pattern may take. An honest pattern takes microseconds on the longest answer.
SEARCH_S = 5.0

# Scripts that are written without spaces: each of their characters counts as a word.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_WORD = rf"(?V1){_UNSPACED}|[[\p{{L}}\p{{M}}\p{{N}}]--{_UNSPACED}]+"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class BadScorer(Exception):
    """What a gate says of a metric cannot be used. ``hint`` tells what can."""

    def __init__(self, summary: str, hint: str) -> None:
        super().__init__(summary)
        self.hint = hint


def exact_match(_: Mapping[str, Json]) -> Score:
    """1.0 when the texts are equal, case and punctuation too; only runs of whitespace count as one space."""
    return lambda expected, answer: float(_plain(expected) == _plain(answer))


def contains(_: Mapping[str, Json]) -> Score:
    """1.0 when the answer contains the expected text, whatever the case; an empty one only in an empty answer."""

    def score(expected: str, answer: str) -> float:
        wanted, given = _plain(expected).casefold(), _plain(answer).casefold()
        return float(wanted in given if wanted else not given)

    return score


def rouge_l(_: Mapping[str, Json]) -> Score:
    """ROUGE-L F1 over words in lower case, without stemming.

    A word is a run of letters, marks and digits of any script; in scripts without spaces every character is
    one. On ASCII texts that is what the library rouge-score gives, which drops every other letter.
    """
    words = importlib.import_module("regex").compile(_WORD).findall

    def score(expected: str, answer: str) -> float:
        wanted, given = (words(unicodedata.normalize("NFC", text).lower()) for text in (expected, answer))
        if not wanted or not given:
            return 0.0
        return 2 * _longest_common_subsequence(wanted, given) / (len(wanted) + len(given))

    return score


def bleu(_: Mapping[str, Json]) -> Score:
    """BLEU of the one answer as sacrebleu gives it (13a tokens, exponential smoothing, effective order).

    The gate judges the mean of these, which is not corpus BLEU: that counts n-grams over all rows before it
    divides, has no score of a single row, and so no interval. Texts without spaces between words need ``chrf``.
    """
    metric = importlib.import_module("sacrebleu.metrics.bleu").BLEU(effective_order=True)
    return lambda expected, answer: _share(metric.sentence_score(answer, [expected]).score)


def chrf(_: Mapping[str, Json]) -> Score:
    """chrF2 of the one answer as sacrebleu gives it: character n-grams up to 6. Its mean is not corpus chrF."""
    metric = importlib.import_module("sacrebleu.metrics.chrf").CHRF()
    return lambda expected, answer: _share(metric.sentence_score(answer, [expected]).score)


def regex(given: Mapping[str, Json]) -> Score:
    """1.0 when the pattern is found anywhere in the answer. What is expected is not looked at.

    The library ``regex`` searches, which takes Python's patterns and, unlike ``re``, can be stopped: a search
    that takes longer than ``SEARCH_S`` ends the gate with an error. It never counts as a miss, as then the
    score would depend on the machine.
    """
    pattern = given.get("pattern")
    if not isinstance(pattern, str):
        raise BadScorer("it has no pattern", "Say what to search: `pattern: …`.")
    _check_pattern(pattern)
    return lambda _, answer: float(_found(pattern, answer))


def json_schema(given: Mapping[str, Json]) -> Score:
    """1.0 when the whole answer is JSON and valid against the schema; ``format`` is not checked.

    References must lead to somewhere in the schema itself: nothing is ever fetched.
    """
    validator = _validator(given.get("schema"))

    def score(_: str, answer: str) -> float:
        try:
            value = json.loads(answer, parse_constant=_not_json)
        except (ValueError, RecursionError):
            return 0.0
        try:
            return float(validator.is_valid(value))
        except RecursionError:  # it nests deeper than anybody reads
            return 0.0

    return score


def _validator(given: Json) -> Any:
    """The validator of a schema; one that is wrong is a ``BadScorer``."""
    validators = importlib.import_module("jsonschema.validators")
    if not isinstance(given, Mapping):
        raise BadScorer("it has no schema", "Give a JSON Schema: `schema: {type: object, …}`.")
    dialect = given.get("$schema", _DIALECT)
    kind = validators.validator_for({"$schema": dialect}, default=None)
    if kind is None:
        raise BadScorer(f"its schema is of an unknown kind, {dialect}", f"Write `$schema: {_DIALECT}`.")
    # With it, what refers to the root would be read by the library's own class and not by the one made here.
    schema = {key: value for key, value in given.items() if key != "$schema"}
    try:
        kind.check_schema(schema)
        _check_parts(dialect, schema)
        validator = validators.extend(kind, {"pattern": _pattern_keyword})(schema, registry=_registry())
        validator.is_valid(None)
    except importlib.import_module("jsonschema.exceptions").SchemaError as error:
        raise BadScorer(f"its schema is wrong at {error.json_path}: {error.message}", "Mend the schema.") from None
    except RecursionError:
        raise BadScorer("its schema nests without end", "End the circle of `$ref`.") from None
    return validator


def _registry() -> Any:
    """The schemas that may be referred to: those of JSON Schema itself."""
    return importlib.import_module("jsonschema_specifications").REGISTRY


def _check_parts(dialect: str, schema: dict[str, Json]) -> None:
    """Every reference must lead somewhere and every pattern be one to ``regex`` too, before an answer gets there."""
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import specification_with

    resource: Any = specification_with(dialect).create_resource(schema)
    waiting = [(resource, _registry().resolver_with_root(resource))]
    while waiting:
        part, resolver = waiting.pop()
        contents = part.contents if isinstance(part.contents, Mapping) else {}
        if isinstance(pattern := contents.get("pattern"), str):
            _check_pattern(pattern)
        for keyword in ("$ref", "$dynamicRef"):
            try:
                resolver.lookup(contents.get(keyword, "#"))
            except Unresolvable:
                where = contents[keyword]
                hint = "Put what it refers to under `$defs`: nothing is fetched."
                raise BadScorer(f"its schema refers to {where}, which is not in it", hint) from None
        waiting += [(inner, resolver.in_subresource(inner)) for inner in part.subresources()]


def _pattern_keyword(validator: Any, pattern: str, instance: Json, _: Json) -> Any:
    """The keyword ``pattern`` with a search that can be stopped."""
    from jsonschema.exceptions import ValidationError

    if validator.is_type(instance, "string") and not _found(pattern, instance):
        yield ValidationError("the pattern is not found")


def _check_pattern(pattern: str) -> None:
    library = importlib.import_module("regex")
    try:
        library.compile(pattern, library.V0)
    except library.error as error:
        raise BadScorer(f"the pattern {pattern} is not a regular expression: {error}", "Mend the pattern.") from None


def _found(pattern: str, text: str) -> bool:
    """Whether a pattern is found; raises ``LlmctlError`` when that cannot be told in reasonable time."""
    library = importlib.import_module("regex")  # it keeps what it compiled
    try:
        return library.search(pattern, text, library.V0, timeout=SEARCH_S) is not None
    except TimeoutError:
        raise LlmctlError(
            f"the pattern {pattern} takes more than {SEARCH_S:g} s on one answer",
            detail="It tries a number of ways that grows with every character of the text.",
            hint="Write it without repetitions inside of repetitions, such as (a+)+ or (a|a)*.",
        ) from None


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _share(percent: float) -> float:
    return min(1.0, max(0.0, percent / 100))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _longest_common_subsequence(one: list[str], other: list[str]) -> int:
    row = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for at, candidate in enumerate(other, 1):
            above = row[at]
            row[at] = diagonal + 1 if word == candidate else max(above, row[at - 1])
            diagonal = above
    return row[-1]
