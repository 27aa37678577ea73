"""The bets behind the bounds of a mean: shared by what judges (numpy) and what only counts rows (plain).

To refute "the mean of x (0 to 1) is at most m", bet on every row at odds that are fair if m were the
mean: a fraction f of the money multiplies by 1 - f + f·x/m. If m were the mean, the money would keep its
expected value, and by Markov's inequality reach 1/α with a probability of at most α; so the bound holds
for every distribution and every number of rows, without an assumption on the variance. Several fractions
are played with a share of the money each, as nobody knows the best one beforehand. Half of the money goes
all in (f = 1), which is the best bet when all rows are equal, the case of a model that answers all.
"""

from __future__ import annotations

from math import exp, log

_STEPS = 24

#: (share of the money, fraction of it that is bet on each row); the shares sum to 1.
BETS: tuple[tuple[float, float], ...] = (
    (0.5, 1.0),
    *((0.5 / _STEPS, 2.0 ** -(8 * (step + 0.5) / _STEPS)) for step in range(_STEPS)),
)


def refutes(log_wins: list[float], rows: float, alpha: float) -> bool:
    """Whether the money reaches 1/α after ``rows`` rows; ``log_wins`` is the mean log factor of each bet."""
    exponents = [log(share) + win * rows for (share, _), win in zip(BETS, log_wins, strict=True)]
    top = max(exponents)
    return top + log(sum(exp(e - top) for e in exponents)) >= -log(alpha)


def log_wins_when_equal(value: float, mean: float) -> list[float]:
    """The log factor of each bet on a row of that value, against that mean (both above 0)."""
    return [log(1 - fraction + fraction * value / mean) for _, fraction in BETS]
