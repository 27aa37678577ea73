"""Bounds: coverage by exact sums and by simulation with fixed seeds, and every degenerate case."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, lgamma, log

import numpy as np
import pytest
from scipy.special import bdtr
from scipy.stats import beta

from llmctl.gates import intervals
from llmctl.gates.paired import paired_drop, paired_needed


def test_share_is_clopper_pearson() -> None:
    for successes, samples in [(3, 20), (199, 200), (1, 1), (7, 7), (0, 7)]:
        found = intervals.share(successes, samples, 0.95)
        lower = beta.ppf(0.05, successes, samples - successes + 1) if successes else 0.0
        upper = beta.ppf(0.95, successes + 1, samples - successes) if successes < samples else 1.0
        assert found.lower == pytest.approx(lower)
        assert found.upper == pytest.approx(upper)
    assert intervals.share(59, 59, 0.95).lower == pytest.approx(0.05 ** (1 / 59))


def test_no_samples_is_the_whole_range() -> None:
    assert intervals.share(0, 0, 0.95) == intervals.Interval(0.0, 0.0, 1.0, 0, "clopper-pearson")
    assert intervals.mean([], 0.95) == intervals.Interval(0.0, 0.0, 1.0, 0, "bets")
    assert intervals.mean_drop([], 0.95) == intervals.Interval(0.0, -1.0, 1.0, 0, "paired bets")
    assert intervals.quantile([], 0.95, 30.0, 0.95) == intervals.Interval(0.0, 0.0, 30.0, 0, "order statistics")
    assert paired_drop(0, 0, 0, 0.95) == intervals.Interval(0.0, -1.0, 1.0, 0, "exact paired")


def test_mean_when_all_rows_are_equal() -> None:
    perfect = intervals.mean([1.0] * 160, 0.95)
    assert 0.97 < perfect.lower < 0.05 ** (1 / 160)
    assert perfect.upper == 1.0
    nothing = intervals.mean([0.0] * 160, 0.95)
    assert nothing.lower == 0.0
    assert nothing.upper == pytest.approx(1 - perfect.lower)
    middle = intervals.mean([0.5] * 160, 0.95)
    assert 0.48 < middle.lower < 0.5 < middle.upper < 0.52
    same = intervals.mean_drop([0.0] * 200, 0.95)
    assert same.estimate == 0.0
    assert 0 < same.upper < 0.02
    assert same.lower == pytest.approx(-same.upper)


def test_a_single_row_says_little() -> None:
    assert intervals.mean([1.0], 0.95).lower < 0.05
    assert intervals.mean([0.3], 0.95).lower == pytest.approx(0, abs=0.05)
    assert intervals.mean_drop([0.0], 0.95).upper > 0.9
    assert intervals.quantile([5.0], 0.95, 30.0, 0.95).upper == 30.0
    assert paired_drop(0, 0, 1, 0.95).upper == pytest.approx(0.95)


def _twins(chance: np.random.Generator) -> np.ndarray:
    return np.where(chance.random(60) < 0.97, 1.0, 0.0)


def _skewed(chance: np.random.Generator) -> np.ndarray:
    return 1 - chance.exponential(0.03, 60).clip(0, 1)


def _even(chance: np.random.Generator) -> np.ndarray:
    return chance.random(60)


def _mixed(chance: np.random.Generator) -> np.ndarray:
    return np.where(chance.random(60) < 0.9, 1.0, chance.random(60))


@pytest.mark.parametrize(
    ("draw", "truth"),
    [(_twins, 0.97), (_skewed, 1 - 0.03 * (1 - exp(-1 / 0.03))), (_even, 0.5), (_mixed, 0.95)],
)
def test_mean_covers_whatever_the_distribution(draw: Callable[[np.random.Generator], np.ndarray], truth: float) -> None:
    chance = np.random.default_rng(11)
    runs = 250
    missed = 0
    for _ in range(runs):
        values = draw(chance).tolist()
        missed += intervals.mean_lower(values, 0.95) > truth
        missed += 1 - intervals.mean_lower([1 - v for v in values], 0.95) < truth
    # Each side may miss 5 %; both together 25 of 500, and never more than chance allows beyond it.
    assert missed <= 2 * runs * 0.05 + 10


def test_mean_is_tighter_when_values_vary_less() -> None:
    calm = intervals.mean([0.8, 0.82] * 100, 0.95)
    wild = intervals.mean([0.62, 1.0] * 100, 0.95)
    assert calm.upper - calm.lower < (wild.upper - wild.lower) / 3


def test_quantile_bounds_are_order_statistics() -> None:
    values = [float(v) for v in range(1, 201)]
    found = intervals.quantile(values, 0.95, 30_000.0, 0.95)
    assert found.estimate == 190.0
    assert bdtr(found.upper - 1, 200, 0.95) >= 0.95 > bdtr(found.upper - 2, 200, 0.95)
    assert bdtr(found.lower - 1, 200, 0.95) <= 0.05 < bdtr(found.lower, 200, 0.95)
    middle = intervals.quantile(values, 0.95, 30_000.0, 0.5)
    assert middle.estimate == 100.0
    assert bdtr(middle.upper - 1, 200, 0.5) >= 0.95 > bdtr(middle.upper - 2, 200, 0.5)
    assert bdtr(middle.lower - 1, 200, 0.5) <= 0.05 < bdtr(middle.lower, 200, 0.5)
    assert intervals.quantile([7.0] * 59, 0.95, 30_000.0, 0.95).upper == 7.0
    assert intervals.quantile([7.0] * 58, 0.95, 30_000.0, 0.95).upper == 30_000.0


@pytest.mark.parametrize("which", [0.5, 0.95])
def test_quantile_covers(which: float) -> None:
    chance = np.random.default_rng(5)
    truth = -log(1 - which)
    found = [intervals.quantile(chance.exponential(1.0, 120).tolist(), 0.95, 1e9, which) for _ in range(400)]
    assert sum(f.upper < truth for f in found) <= 400 * 0.05 + 9
    assert sum(f.lower > truth for f in found) <= 400 * 0.05 + 9
    assert all(f.lower <= f.estimate <= f.upper for f in found)


def test_equal_answers_on_149_rows_prove_a_drop_of_two_percent() -> None:
    for samples in (1, 50, 148, 149, 5000):
        assert paired_drop(0, 0, samples, 0.95).upper == pytest.approx(1 - 0.05 ** (1 / samples))
    assert paired_drop(0, 0, 149, 0.95).upper <= 0.02 < paired_drop(0, 0, 148, 0.95).upper


def test_what_got_better_counts_against_what_got_worse() -> None:
    assert paired_drop(5, 10, 200, 0.95).upper < 0.02 < paired_drop(5, 0, 200, 0.95).upper
    assert paired_drop(0, 30, 50, 0.95).upper < 0
    assert paired_drop(30, 0, 50, 0.95).lower > 0


def test_the_paired_bounds_mirror_and_move_the_right_way() -> None:
    one, other = paired_drop(7, 3, 120, 0.95), paired_drop(3, 7, 120, 0.95)
    assert (one.lower, one.upper, one.estimate) == (-other.upper, -other.lower, -other.estimate)
    worse = [paired_drop(lost, 4, 120, 0.95).upper for lost in range(8)]
    assert worse == sorted(worse)
    better = [paired_drop(4, won, 120, 0.95).upper for won in range(8)]
    assert better == sorted(better, reverse=True)


def test_the_paired_bounds_at_the_ends() -> None:
    assert paired_drop(20, 0, 20, 0.95).upper == 1.0
    assert paired_drop(0, 20, 20, 0.95).lower == -1.0
    assert paired_drop(0, 20, 20, 0.95).upper < -0.7
    large = paired_drop(100, 120, 10_000, 0.95)
    assert large.lower < large.estimate < large.upper < 0.001


def test_the_paired_bound_covers_every_truth() -> None:
    """Summed exactly over all tables, at truths just beyond each bound, where coverage is least."""
    samples, alpha = 12, 0.1
    tables = [(lost, won) for lost in range(samples + 1) for won in range(samples + 1 - lost)]
    bounds = np.array([paired_drop(*table, samples, 1 - alpha).upper for table in tables])
    lost, won = np.array(tables).T
    same = samples - lost - won
    ways = np.array(
        [lgamma(samples + 1) - lgamma(b + 1) - lgamma(c + 1) - lgamma(samples - b - c + 1) for b, c in tables]
    )
    least = 1.0
    for truth in {float(b) + 1e-9 for b in bounds if b < 0.999}:
        for free in np.linspace(1e-6, (1 - abs(truth)) / 2 - 1e-6, 25):
            p_lost, p_won = free + max(truth, 0), free + max(-truth, 0)
            logs = ways + lost * log(p_lost) + won * log(p_won) + same * log(1 - p_lost - p_won)
            least = min(least, float(np.exp(logs)[bounds >= truth].sum()))
    assert least >= 1 - alpha - 2e-4


@pytest.mark.parametrize("successes", [0, 47, 50, 93, 97, 100])
def test_share_needed_settles_it_and_one_row_less_does_not(successes: int) -> None:
    threshold = 0.95
    needed = intervals.share_needed(successes, 100, 0.95, threshold)
    rate = successes / 100

    def settled(rows: int) -> bool:
        lower = beta.ppf(0.05, rate * rows, rows - rate * rows + 1) if rate else 0.0
        upper = beta.ppf(0.95, rate * rows + 1, rows - rate * rows) if rate < 1 else 1.0
        return bool(lower >= threshold or upper <= threshold)

    assert settled(needed)
    assert needed == 101 or not settled(needed - 1)


def test_needed_is_never_when_the_estimate_is_the_threshold() -> None:
    assert intervals.share_needed(95, 100, 0.95, 0.95) == 0
    assert intervals.mean_needed([0.9] * 20, 0.95, 0.9) == 0
    assert paired_needed(2, 0, 100, 0.95, 0.02) == 0
    assert intervals.share_needed(100, 100, 0.95, 1.0) == 0
    assert intervals.mean_needed([0.0, 0.5], 0.95, 1.0) == 0


def test_mean_needed_settles_it() -> None:
    values = [1.0, 0.9, 0.7, 1.0]
    needed = intervals.mean_needed(values, 0.95, 0.8)
    assert intervals.mean_lower(values * (needed // 4 + 1), 0.95) >= 0.8
    assert intervals.mean_lower(values * (needed // 4 - 1), 0.95) < 0.8


def test_paired_needed_is_about_right() -> None:
    needed = paired_needed(1, 1, 100, 0.95, 0.02)
    factor = needed // 100 + 1
    assert paired_drop(factor, factor, 100 * factor, 0.95).upper <= 0.025
    assert paired_needed(0, 0, 100, 0.95, 0.02) == 149


def test_estimates_are_not_blurred_by_adding_up() -> None:
    assert intervals.mean([2 / 3] * 2000, 0.95).estimate == 2 / 3
    assert intervals.mean_drop([0.1] * 2000, 0.95).estimate == 0.1


@pytest.mark.parametrize("confidence", [0.5, 0.999])
def test_bounds_hold_the_estimate_at_every_confidence(confidence: float) -> None:
    for samples in (1, 2, 3, 7, 19, 20, 41, 60):
        for successes in {0, 1, samples // 2, samples - 1, samples}:
            rest = samples - successes
            scores = [1.0] * successes + [0.5] * rest
            for found in (
                intervals.share(successes, samples, confidence),
                intervals.mean(scores, confidence),
                intervals.mean_drop(scores, confidence),
                intervals.quantile(scores, confidence, 1.0, 0.95),
                paired_drop(successes, rest // 2, samples, confidence),
            ):
                assert found.lower <= found.estimate <= found.upper
                assert found.samples == samples
