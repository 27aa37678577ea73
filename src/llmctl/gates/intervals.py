"""One-sided bounds of a figure: honest for every number of rows, and with a rule for every degenerate case.

=================  ===================================================================================
share (yes/no)     Clopper-Pearson, exact. All equal: the bound that looks at the other side is
                   ``α^(1/n)`` or ``1 - α^(1/n)``, the near one 1 or 0.
mean (0 to 1)      bets (see ``bets``). All equal: as above with half the money, so a few rows more.
a percentile       order statistics, exact by the binomial distribution. Too few rows for an upper bound:
                   the request's time-out, which nothing that is measured exceeds.
no rows            the whole range, and no verdict.
=================  ===================================================================================

Each function also tells how many rows would settle an open threshold if the figure stayed as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, fsum

from llmctl.gates.bets import BETS, refutes
from llmctl.gates.sizes import smallest

_HALVINGS = 40

#: Tells, when asked, how many rows would settle an open threshold.
Needed = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its one-sided lower and upper bound, from so many samples."""

    estimate: float
    lower: float
    upper: float
    samples: int
    method: str


def share(successes: int, samples: int, confidence: float) -> Interval:
    """Clopper-Pearson bounds of a probability."""
    if samples == 0:
        return Interval(0.0, 0.0, 1.0, 0, "clopper-pearson")
    estimate = successes / samples
    lower = _share_lower(successes, samples, confidence)
    upper = 1 - _share_lower(samples - successes, samples, confidence)
    return Interval(estimate, min(lower, estimate), max(upper, estimate), samples, "clopper-pearson")


def share_needed(successes: int, samples: int, confidence: float, threshold: float) -> int:
    """Rows after which the bound of a probability that stays as it is leaves the threshold; 0 for never."""
    estimate = successes / samples
    if estimate == threshold:
        return 0
    # From below a threshold the same question is asked of the failures.
    good, goal = (estimate, threshold) if estimate > threshold else (1 - estimate, 1 - threshold)
    return smallest(lambda n: _share_lower(good * n, n, confidence) >= goal, samples + 1) or 0


def mean(values: Sequence[float], confidence: float) -> Interval:
    """Bounds of the mean of values between 0 and 1, by bets."""
    if not values:
        return Interval(0.0, 0.0, 1.0, 0, "bets")
    estimate = fsum(values) / len(values)
    lower = mean_lower(values, confidence)
    upper = 1 - mean_lower([1 - v for v in values], confidence)
    return Interval(estimate, min(lower, estimate), max(upper, estimate), len(values), "bets")


def mean_drop(drops: Sequence[float], confidence: float) -> Interval:
    """Bounds of the mean of paired differences between -1 and 1, by the same bets."""
    if not drops:
        return Interval(0.0, -1.0, 1.0, 0, "paired bets")
    inner = mean([(1 - drop) / 2 for drop in drops], confidence)
    estimate = fsum(drops) / len(drops)
    lower, upper = 1 - 2 * inner.upper, 1 - 2 * inner.lower
    return Interval(estimate, min(lower, estimate), max(upper, estimate), len(drops), "paired bets")


def mean_lower(values: Sequence[float], confidence: float) -> float:
    """The largest mean that the bets refute, 0 when they refute none."""
    low, high = 0.0, fsum(values) / len(values)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle > 0 and refutes(_log_wins(values, middle), len(values), 1 - confidence):
            low = middle
        else:
            high = middle
    return low


def mean_needed(values: Sequence[float], confidence: float, threshold: float) -> int:
    """Rows like these after which the bets settle the threshold; 0 for never."""
    estimate = fsum(values) / len(values)
    if estimate == threshold:
        return 0
    above = estimate > threshold
    held, goal = (values, threshold) if above else ([1 - v for v in values], 1 - threshold)
    if goal <= 0:
        return 0
    wins = _log_wins(held, goal)
    return smallest(lambda n: refutes(wins, n, 1 - confidence), len(values) + 1) or 0


def quantile(values: Sequence[float], confidence: float, ceiling: float, which: float) -> Interval:
    """Bounds of the quantile ``which`` (0 to 1) by order statistics; ``ceiling`` is the most that a value can be."""
    from scipy.special import bdtr

    count = len(values)
    if count == 0:
        return Interval(0.0, 0.0, ceiling, 0, "order statistics")
    ranked = sorted(values)
    # bdtr(k, n, q): at most k of n values lie at or below the true quantile.
    below = [float(bdtr(rank, count, which)) for rank in range(count)]
    upper = next((ranked[rank] for rank in range(count) if below[rank] >= confidence), ceiling)
    lower = next((ranked[rank] for rank in reversed(range(count)) if below[rank] <= 1 - confidence), 0.0)
    # At low confidence both ranks may lie on one side of the estimate's.
    estimate = ranked[ceil(which * count - 1e-9) - 1]
    return Interval(estimate, min(lower, estimate), max(upper, estimate), count, "order statistics")


def quantile_needed(values: Sequence[float], confidence: float, threshold: float, which: float) -> int:
    """Requests after which the threshold is settled: it is when the share at or below it is, against ``which``."""
    return share_needed(sum(v <= threshold for v in values), len(values), confidence, which)


def _share_lower(successes: float, samples: int, confidence: float) -> float:
    """The Clopper-Pearson lower bound, also between whole numbers of successes."""
    from scipy.special import betaincinv

    if successes <= 0:
        return 0.0
    return float(betaincinv(successes, samples - successes + 1, 1 - confidence))


def _log_wins(values: Sequence[float], against: float) -> list[float]:
    """The mean log factor of each bet on these values; -inf for one that loses all."""
    import numpy as np

    fractions = np.array([fraction for _, fraction in BETS])[:, None]
    with np.errstate(divide="ignore"):
        factors = np.log(1 - fractions + fractions * (np.array(values)[None, :] / against))
    return [float(win) for win in factors.mean(axis=1)]
