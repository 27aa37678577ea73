"""The drop of a yes/no metric between two revisions that answered the same rows: exact bounds.

Of ``n`` pairs, ``lost`` were right before and are wrong now, ``won`` the other way round; the drop is
P(lost) - P(won). The rows on which both agree carry no more than their number, but what gets better must
count against what gets worse. So the bound is an exact unconditional test, turned round: a drop of δ is
refuted when tables at least as good as the one seen have a probability of at most α, whatever P(won) is.

"As good" is ranked by ``(nδ + won - lost) / sqrt(won + lost + n|δ|)``: the distance to δ in estimated
standard deviations. First in rank, where that alone keeps α, are the tables without a lost row. That makes
the bound for n equal answers ``1 - α^(1/n)``, so that 149 rows prove a drop of at most 0.02 at 0.95.
The ranking grows with ``won`` and falls with ``lost``, so the largest probability lies at a drop of δ itself.
"""

from __future__ import annotations

from math import ceil, log, sqrt
from typing import TYPE_CHECKING, Any

from llmctl.gates.intervals import Interval
from llmctl.gates.sizes import whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_HALVINGS = 14  # of a range of at most 2: the bounds are found to 0.0002, on the safe side
_NUISANCE = 40  # values of P(won) that are tried first, then closely around the best: α is kept to 0.0001
_SPREAD = 8.0  # standard deviations of the number lost that are summed; beyond lie 1e-15


def paired_drop(lost: int, won: int, samples: int, confidence: float) -> Interval:
    """The estimate of the drop and its one-sided bounds."""
    if samples == 0:
        return Interval(0.0, -1.0, 1.0, 0, "exact paired")
    upper = _upper(lost, won, samples, 1 - confidence)
    lower = -_upper(won, lost, samples, 1 - confidence)
    return Interval((lost - won) / samples, lower, upper, samples, "exact paired")


def paired_needed(lost: int, won: int, samples: int, confidence: float, threshold: float) -> int:
    """About how many pairs like these settle the threshold; 0 for never. By the normal distribution."""
    from scipy.special import ndtri

    estimate = (lost - won) / samples
    if estimate == threshold:
        return 0
    variance = (lost + won) / samples - estimate**2
    needed = float(ndtri(confidence)) ** 2 * variance / (estimate - threshold) ** 2
    if 0 < threshold < 1:
        needed = max(needed, log(1 - confidence) / log(1 - threshold))
    return whole(max(needed, samples + 1))


def _upper(lost: int, won: int, samples: int, alpha: float) -> float:
    """The smallest drop above the estimate that is refuted."""
    if lost == samples:
        return 1.0
    clean: float = 1 - alpha ** (1 / samples)
    if lost == won == 0:
        return clean
    estimate = (lost - won) / samples

    def refuted(drop: float) -> bool:
        return _probability(lost, won, samples, drop, none_lost=drop >= clean) <= alpha

    # At `clean` the ranking changes, so each side of it is searched by itself, the far one first.
    below = lost == 0 or (estimate < clean and refuted(clean))
    low, high = (estimate, clean) if below else (max(estimate, clean), 1.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return high


def _probability(lost: int, won: int, samples: int, drop: float, *, none_lost: bool) -> float:
    """The largest probability, over P(won), of the tables that rank at least as good as this one."""
    import numpy as np

    room = (1 - abs(drop)) / 2
    at = (np.arange(_NUISANCE + 1) / _NUISANCE) ** 2 * room
    found = _tables(lost, won, samples, drop, at, none_lost)
    best = int(found.argmax())
    near = np.linspace(at[max(best - 1, 0)], at[min(best + 1, _NUISANCE)], 11)
    return float(max(found.max(), _tables(lost, won, samples, drop, near, none_lost).max()))


def _tables(lost: int, won: int, samples: int, drop: float, free: Floats, none_lost: bool) -> Floats:
    """The probability of those tables for each value of the smaller of P(lost) and P(won)."""
    import numpy as np
    from scipy.special import betainc, gammaln, xlog1py, xlogy

    p_lost = (free + max(drop, 0.0))[:, None]
    p_won = (free + max(-drop, 0.0))[:, None]
    spread = _SPREAD * np.sqrt(samples * p_lost * (1 - p_lost)) + _SPREAD
    first = np.maximum(np.floor(samples * p_lost - spread), 0.0)
    counts = first + np.arange(ceil(float(2 * spread.max())) + 1)[None, :]
    inside = counts <= samples
    b: Floats = np.minimum(counts, float(samples)).astype(np.float64)
    rest = samples - b
    least = _least_won(lost, won, samples, drop, b)
    if none_lost:
        least = np.where(b == 0, 0.0, least)
    log_pmf = gammaln(samples + 1) - gammaln(b + 1) - gammaln(rest + 1) + xlogy(b, p_lost) + xlog1py(rest, -p_lost)
    conditional = np.clip(p_won / np.maximum(1 - p_lost, 1e-300), 0.0, 1.0)
    shape: Any = np.clip(least, 1.0, np.maximum(rest, 1.0))
    tail = betainc(shape, np.maximum(rest - shape + 1, 1.0), conditional)
    tail = np.where(least <= 0, 1.0, np.where(least > rest, 0.0, tail))
    total: Floats = np.where(inside, np.exp(log_pmf) * tail, 0.0).sum(axis=1)
    return total


def _least_won(lost: int, won: int, samples: int, drop: float, b: Floats) -> Floats:
    """The fewest won with which a table of ``b`` lost ranks as good as the one seen."""
    import numpy as np

    scale = samples * abs(drop)
    seen = (samples * drop + won - lost) / sqrt(max(won + lost + scale, 1e-9))
    # rank(c) = (nδ + c - b) / sqrt(c + b + n|δ|) ≥ seen, a quadratic in that root.
    root = (seen + np.sqrt(seen**2 + 4 * (2 * b + scale - samples * drop))) / 2
    least: Floats = np.ceil(root**2 - b - scale - 1e-7)
    return least
