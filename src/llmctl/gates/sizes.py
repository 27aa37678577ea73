"""How many rows a threshold needs at the very least. Closed form, no library: this runs in ``validate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, log

from llmctl.core.digests import Json
from llmctl.gates.bets import log_wins_when_equal, refutes
from llmctl.gates.metrics import METRICS, Figure
from llmctl.gates.request import confidence_of, is_point, rules_of
from llmctl.gates.slices import slices_of, value_findings

#: More rows than anybody asks: a search that gets here says "never".
MOST = 10_000_000
_NAMED = 5  # slices that a finding names
_NEVER = "no number of rows can (move the threshold, or use `decide: point`)"


def too_small(spec: Mapping[str, Json], rows: int, slices: Mapping[str, Mapping[str, int]] | None = None) -> list[str]:
    """Say which thresholds a dataset of so many rows cannot prove, even when every answer is perfect.

    ``slices`` are the counts of ``slice_counts``; without them nothing is said of slices.
    """
    findings = []
    confidence = confidence_of(spec)
    for name, given in spec["metrics"].items():
        for rule, threshold in rules_of(given) if not is_point(given) else []:
            needed = least_rows(name, rule, threshold, confidence)
            what = f"{name}: {rows} rows cannot prove {rule} {threshold:g} at {confidence:g} confidence, even with "
            what += "equal answers" if rule == "max_drop" else "a perfect result"
            if needed is None:
                findings.append(f"{what}; {_NEVER}")
            elif rows < needed:
                findings.append(f"{what}; {needed} rows can")
    if slices is not None:
        findings += [text for column in slices_of(spec) for text in _small_slices(spec, column, slices[column])]
    return findings


def _small_slices(spec: Mapping[str, Json], column: str, counts: Mapping[str, int]) -> list[str]:
    """A line for each threshold that some slices of the column are too small for."""
    findings = [what for what, _ in value_findings({column: counts})]
    confidence = confidence_of(spec)
    for name, given in slices_of(spec)[column].items() if not findings else ():
        for rule, threshold in rules_of(given) if not is_point(given) else []:
            needed = least_rows(name, rule, threshold, confidence)
            what = f"{name} in slices of {column}: "
            proof = f"prove {rule} {threshold:g} at {confidence:g} confidence, even with a perfect result"
            small = [f"{value} has {count}" for value, count in counts.items() if needed and count < needed]
            if needed is None:
                findings.append(f"{what}nothing can {proof}; {_NEVER}")
            elif small:
                more = f" and {len(small) - _NAMED} more slices have too few" if len(small) > _NAMED else ""
                findings.append(f"{what}it takes {needed} rows to {proof}; {', '.join(small[:_NAMED])}{more}")
    return findings


def least_rows(name: str, rule: str, threshold: float, confidence: float) -> int | None:
    """The fewest rows that can prove a threshold; None when none can."""
    alpha = 1 - confidence
    metric = METRICS[name]
    if metric.figure is Figure.QUANTILE:
        return ceil(log(alpha) / log(metric.quantile) - 1e-9)
    # What must be shown to be at least so much, where every row shows 1.
    share = threshold if rule == "min" else 1 - threshold
    if share <= 0:
        return 1
    if share >= 1:
        return None
    if metric.figure is Figure.MEAN:
        wins = log_wins_when_equal(1.0, share)
        return smallest(lambda rows: refutes(wins, rows, alpha), 1)
    # A hair below the whole number is that number: 0.05 ** (1 / 59) and the like are not exact.
    return ceil(log(alpha) / log(share) - 1e-9)


def smallest(holds: Callable[[int], bool], start: int) -> int | None:
    """The smallest number from ``start`` (1 or more) on for which ``holds``, which stays true; None beyond ``MOST``."""
    low, high = start - 1, start
    while not holds(high):
        if high >= MOST:
            return None
        low, high = high, min(high * 2, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def whole(rows: float) -> int:
    """A number of rows for people: rounded up, 0 (never) when it is beyond ``MOST``."""
    return ceil(rows) if 0 < rows < MOST else 0
