"""The metrics: what each one measures of an answer, and how its figure may be judged."""

from __future__ import annotations

import importlib
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from llmctl.core.errors import LlmctlError

#: Version of the way scores become verdicts; raise it when a bound changes.
STATISTICS = "1"


class Figure(Enum):
    """What a metric's figure is, and so how it is judged."""

    YES_NO = "share of rows that score 1"
    MEAN = "mean of scores between 0 and 1"
    QUANTILE = "95th percentile"
    RATE = "share of requests that failed"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``score`` (expected, answer → 0 to 1) is None where the request itself is measured."""

    name: str
    figure: Figure
    version: str
    score: Callable[[str, str], float] | None = None
    library: str = ""  # the distribution whose version decides the score

    @property
    def is_quality(self) -> bool:
        """Scores of answers stand as long as the evidence key; what requests took is never reused."""
        return self.score is not None

    @property
    def rules(self) -> tuple[str, ...]:
        """The thresholds that it may have."""
        return ("min", "max_drop") if self.is_quality else ("max",)


def exact_match(expected: str, answer: str) -> float:
    """1.0 when the texts are equal, case and punctuation too; only runs of whitespace count as one space."""
    return float(_plain(expected) == _plain(answer))


def contains(expected: str, answer: str) -> float:
    """1.0 when the answer contains the expected text, whatever the case; an empty one only in an empty answer."""
    wanted, given = _plain(expected).casefold(), _plain(answer).casefold()
    return float(wanted in given if wanted else not given)


def rouge_l(expected: str, answer: str) -> float:
    """ROUGE-L F1 as rouge-score gives it without stemming: words of a-z and 0-9 in lower case, others dropped.

    Only the tokenizer of rouge-score is loaded (3 ms); its scorer would import nltk (0.7 s) for options
    that are not used here. The longest common subsequence of two token lists is the whole rest.
    """
    tokenize = importlib.import_module("rouge_score.tokenize").tokenize
    wanted, given = tokenize(expected, None), tokenize(answer, None)
    if not wanted or not given:
        return 0.0
    common = _longest_common_subsequence(wanted, given)
    return 2 * common / (len(wanted) + len(given))


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("exact_match", Figure.YES_NO, "1", exact_match),
        Metric("contains", Figure.YES_NO, "1", contains),
        Metric("rouge_l", Figure.MEAN, "1", rouge_l, library="rouge-score"),
        Metric("latency_p95_ms", Figure.QUANTILE, "1"),
        Metric("error_rate", Figure.RATE, "1"),
    )
}


def versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of all that makes scores and verdicts of these metrics."""
    found = {"statistics": STATISTICS}
    for metric in (METRICS[name] for name in names):
        found[metric.name] = metric.version
        if metric.library:
            found[metric.library] = _installed(metric.library)
    return dict(sorted(found.items()))


def _installed(distribution: str) -> str:
    metadata = importlib.import_module("importlib.metadata")
    try:
        return str(metadata.version(distribution))
    except metadata.PackageNotFoundError:
        raise LlmctlError(
            f"the library {distribution} is not installed", hint=f"Run `pip install {distribution}`."
        ) from None


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
