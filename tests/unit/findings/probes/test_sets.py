"""Predicted losses of sets by hand, and sets that hold what their names say."""

import numpy as np
import pytest

from scarprune.findings.probes.sets import named_sets, predicted_loss
from scarprune.scores.score import score
from support.profiles import make_raw, profile_of, synthetic_profile


def test_a_prediction_is_half_the_mean_square_of_the_summed_gain():
    (raw,) = make_raw(widths=(40,), blocks=8)  # eight blocks: each is a group
    profile = profile_of([raw])
    members = np.array([3, 7, 30])
    gains = raw.q_model[:, :, members].sum(axis=(1, 2))
    expected = 0.5 * (gains**2).sum() / (8 * 8)  # eight blocks of eight targets
    found = predicted_loss(profile, {raw.site.name: members})
    assert found == pytest.approx(expected, rel=1e-5)


def test_without_sampled_labels_nothing_is_predicted():
    profile = synthetic_profile(labels=("data",))
    assert predicted_loss(profile, {profile.sites[0].name: np.array([0])}) is None


def test_sets_are_disjoint_where_they_must_be():
    profile = synthetic_profile(widths=(80, 80), rho=0.1)
    lp = score(profile, "loss_proxy")
    sets = named_sets(profile, lp, seed=0)
    for site in (site.name for site in profile.sites):
        order = np.argsort(-lp[site])
        assert set(sets["core"][site]) == set(order[:8])
        assert set(sets["next_by_loss_proxy"][site]) == set(order[8:16])
        assert not set(sets["random"][site]) & set(sets["core"][site])
        assert len(sets["matched_to_halo"][site]) == len(sets["halo"][site])
        assert not set(sets["matched_to_halo"][site]) & (set(sets["halo"][site]) | set(sets["core"][site]))
        ratio = lp[site][sets["matched_to_halo"][site]].sum() / lp[site][sets["halo"][site]].sum()
        assert 0.3 < ratio < 3
