"""Samples stand for all channels, and pairs are what they are said to be."""

import numpy as np
import pytest

from scarprune.findings.probes.sample import draw, pairs


def _lp(seed=0, m=200):
    rng = np.random.default_rng(seed)
    return {name: rng.lognormal(0, 2, m) for name in ("a", "b")}


def test_weights_add_up_to_all_channels_and_strata_hold_what_they_name():
    lp = _lp()
    core = {site: np.sort(np.argsort(-values)[:2]) for site, values in lp.items()}
    sample = draw(lp, core, 60, seed=1)
    assert sample.weight.sum() == pytest.approx(400)
    for site, values in lp.items():
        order = np.argsort(-values)
        of_site = sample.site == site
        assert set(sample.channel[of_site & (sample.stratum == "core")]) == set(order[:2])
        assert set(sample.channel[of_site & (sample.stratum == "next")]) <= set(order[2:21])
        assert set(sample.channel[of_site & (sample.stratum == "rest")]) <= set(order[21:])


def test_a_whole_site_is_taken_channel_by_channel():
    lp = _lp()
    core = {site: np.array([int(np.argmax(values))]) for site, values in lp.items()}
    sample = draw(lp, core, 12, seed=0, whole=("b",))
    assert sorted(sample.channel[sample.site == "b"]) == list(range(200))
    assert (sample.weight[sample.site == "b"] == 1).all()


def test_pairs_match_in_one_score_and_stand_apart_in_the_other():
    alike, apart = _lp(1), _lp(2)
    found = pairs(alike, apart, 30, seed=0)
    assert len(found) == 30
    channels = [(pair.site, channel) for pair in found for channel in (pair.high, pair.low)]
    assert len(set(channels)) == 60
    for pair in found:
        ratio = alike[pair.site][pair.high] / alike[pair.site][pair.low]
        assert np.exp(-0.1001) <= ratio <= np.exp(0.1001)
        assert apart[pair.site][pair.high] >= 4 * apart[pair.site][pair.low]


def test_there_are_no_pairs_where_the_two_scores_are_one():
    lp = _lp()
    assert pairs(lp, lp, 10, seed=0) == []
