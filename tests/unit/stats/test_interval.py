"""Intervals by hand, and how often they hold the truth."""

import math

import numpy as np
import pytest
from scipy import stats

from scarprune.findings.resample import median_interval
from scarprune.stats.concentration import top_share
from scarprune.stats.interval import jackknife, over_units


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    values = np.array([3.0, 5.0, 4.0, 8.0, 1.0, 2.0, 6.0, 7.0])
    without = [float(np.delete(values, g).mean()) for g in range(8)]
    found = jackknife(float(values.mean()), without, "identity")
    low, high = stats.t.interval(0.95, 7, values.mean(), stats.sem(values))
    np.testing.assert_allclose([found.low, found.high], [low, high])


def test_scales_keep_a_share_between_0_and_1_and_a_ratio_above_0() -> None:
    share = jackknife(0.98, [0.9, 0.99, 0.97, 0.999], "logit")
    ratio = jackknife(1.2, [0.2, 4.0, 1.0, 2.0], "log")
    assert share.low is not None
    assert share.high is not None
    assert 0 < share.low < 0.98 < share.high < 1
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low * ratio.high == pytest.approx(1.2**2)  # even about 1.2 on the log scale
    assert ratio.low > 0


@pytest.mark.parametrize(
    ("value", "without", "scale"),
    [
        (None, [0.5] * 8, "logit"),
        (0.5, [0.5, 0.4], "logit"),
        (0.5, [0.5, None, 0.4], "logit"),
        (1.0, [1.0] * 8, "logit"),
        (1.0, [1.0] * 8, "fisher"),
        (0.0, [0.0] * 8, "log"),
    ],
)
def test_where_there_is_no_interval_there_is_a_reason(value, without, scale) -> None:
    found = jackknife(value, without, scale)
    assert found.value == value
    assert found.low is found.high is None
    assert found.reason
    assert found.as_json()["reason"] == found.reason


def test_units_are_averaged_on_their_scale() -> None:
    found = over_units([1.0, 4.0, 2.0, None], "log")
    logs = np.log([1, 4, 2])
    low, high = stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs))
    assert found.value == pytest.approx(2.0)
    np.testing.assert_allclose([found.low, found.high], [math.exp(low), math.exp(high)])
    assert over_units([None], "log").value is None
    assert over_units([1.0, 2.0], "log").low is None


def _covered(draw, truth, scale, rounds=400) -> float:
    """Share of rounds in which the jackknife over 8 groups holds ``truth``."""
    hits = 0
    for seed in range(rounds):
        value, without = draw(np.random.default_rng(seed))
        found = jackknife(value, without, scale)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    return hits / rounds


def test_the_share_of_a_few_channels_is_covered() -> None:
    channels = np.exp(np.linspace(4, -4, 200))  # what each holds in the long run

    def draw(rng):
        groups = channels * rng.lognormal(-0.5 * 0.36, 0.6, (8, 200))  # mean 1
        totals = [groups.sum(0), *(np.delete(groups, g, axis=0).sum(0) for g in range(8))]
        value, *without = (float(total[:5].sum() / total.sum()) for total in totals)
        return value, without

    assert _covered(draw, top_share(channels, 5), "logit") >= 0.88


def test_a_correlation_is_covered() -> None:
    truth = 0.6

    def draw(rng):
        x = rng.standard_normal((8, 20))
        y = truth * x + math.sqrt(1 - truth**2) * rng.standard_normal((8, 20))

        def r(keep):
            return float(np.corrcoef(x[keep].ravel(), y[keep].ravel())[0, 1])

        every = np.arange(8)
        return r(every), [r(np.delete(every, g)) for g in range(8)]

    assert _covered(draw, truth, "fisher") >= 0.88


def test_a_ratio_of_two_means_is_covered() -> None:
    def draw(rng):
        a, b = rng.lognormal(0, 1, (8, 10)) * 2, rng.lognormal(0, 1, (8, 10))
        every = np.arange(8)

        def ratio(keep):
            return float(a[keep].mean() / b[keep].mean())

        return ratio(every), [ratio(np.delete(every, g)) for g in range(8)]

    assert _covered(draw, 2.0, "log") >= 0.88


def _logistic(x):
    return 1 / (1 + np.exp(-x))


def _pooled_over_sites(draw, truth, scale, sites, rounds=300) -> float:
    """Share of rounds in which the interval of a mean over sites holds ``truth``."""
    found = (over_units(draw(np.random.default_rng(seed), sites).tolist(), scale) for seed in range(rounds))
    return sum(one.low <= truth <= one.high for one in found) / rounds


@pytest.mark.parametrize("sites", [6, 30])
@pytest.mark.parametrize(
    "spread",
    [
        lambda rng, n: 0.5 * rng.standard_normal(n),
        lambda rng, n: 0.5 * rng.standard_t(4, n),  # a few sites far off
        lambda rng, n: rng.standard_gamma(2, n) - 2,  # to one side
    ],
    ids=["normal", "heavy tails", "skewed"],
)
def test_ratios_and_areas_pooled_over_sites_are_covered(spread, sites) -> None:
    def ratios(rng, n):
        return np.exp(0.3 + spread(rng, n))

    def areas(rng, n):
        return _logistic(0.4 + spread(rng, n))

    assert _pooled_over_sites(ratios, math.exp(0.3), "log", sites) >= 0.88
    assert _pooled_over_sites(areas, _logistic(0.4), "logit", sites) >= 0.88


@pytest.mark.parametrize("sites", [6, 30])
@pytest.mark.parametrize("common", [0.0, 0.5])
def test_the_median_share_over_sites_is_covered(sites, common) -> None:
    centre, hits, rounds = np.linspace(-2, 1, sites), 0, 100

    for seed in range(rounds):  # what one group of blocks does to all sites alike, and to each by itself
        rng = np.random.default_rng(seed)
        seen = centre[:, None] + 0.6 * rng.standard_normal((sites, 8)) + common * rng.standard_normal(8)
        without = (seen.sum(1, keepdims=True) - seen) / 7
        found = median_interval(_logistic(seen.mean(1)).tolist(), _logistic(without).tolist(), "logit")
        hits += found.low <= _logistic(np.median(centre)) <= found.high
    assert hits / rounds >= 0.88
