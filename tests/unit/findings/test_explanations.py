"""What other scores explain of the loss proxy: by numpy's least squares, and where nothing can be said."""

import numpy as np
import pytest

from scarprune.findings.explanations import explanations
from support.profiles import make_raw, profile_of


def _fit(raw, norms):
    """R^2 by the normal equations with a column of ones, in float64."""
    columns = [np.ones(raw.site.width), np.log((raw.u**2).sum((0, 1))), *map(np.log, norms)]
    target, table = np.log((raw.q**2).sum((0, 1))), np.stack(columns, axis=1)
    residual = target - table @ np.linalg.solve(table.T @ table, table.T @ target)
    return 1 - (residual**2).sum() / ((target - target.mean()) ** 2).sum()


@pytest.mark.parametrize("gated", [True, False])
def test_the_regression_is_that_of_the_normal_equations(gated):
    (raw,) = make_raw(seed=7, widths=(60,), gated=gated)
    norms = [np.linalg.norm(raw.up, axis=1), np.linalg.norm(raw.down, axis=0)]
    if gated:
        norms.insert(0, np.linalg.norm(raw.gate, axis=1))
    found = explanations(profile_of([raw]))["regression"]
    assert found["sites"][0]["r2"] == pytest.approx(_fit(raw, norms), rel=1e-4)
    assert (found["sites"][0]["used"], found["sites"][0]["left_out"]) == (60, 0)
    assert ("gate_norm2" in found["predictors"]) == gated


def test_a_loss_that_follows_from_sizes_is_explained_and_one_that_does_not_is_not():
    (raw,) = make_raw(seed=8, widths=(200,))
    raw.s[:] = np.linalg.norm(raw.down, axis=0)  # so that q^2 = u^2 norm2(v)^2
    assert explanations(profile_of([raw]))["regression"]["sites"][0]["r2"] == pytest.approx(1, abs=1e-4)
    raw.u[:] = np.random.default_rng(0).standard_normal(raw.u.shape)
    raw.s[:] = np.random.default_rng(1).lognormal(0, 2, 200)  # of the channel, and of no size of it
    assert explanations(profile_of([raw]))["regression"]["sites"][0]["r2"] < 0.1


def test_zeros_are_left_out_and_counted():
    (raw,) = make_raw(seed=9, widths=(60,))
    raw.u[:, :, :7] = 0.0
    (site,) = explanations(profile_of([raw], pass2=False))["regression"]["sites"]
    assert (site["used"], site["left_out"]) == (53, 7)
    raw.u[:, :, 4:] = 0.0  # fewer channels than coefficients
    (site,) = explanations(profile_of([raw], pass2=False))["regression"]["sites"]
    assert site["r2"] is None
    assert "fewer channels than coefficients" in site["missing"]["r2"]


def test_a_constant_column_ranks_nothing():
    (raw,) = make_raw(seed=3, widths=(60,))
    raw.u[:] = 1.0
    (site,) = explanations(profile_of([raw]))["scores"]["activation_power"]["sites"]
    assert site["spearman"] is None
    assert "constant" in site["missing"]["spearman"]
    assert site["jaccard"] is not None  # ties go to the lower index


def test_a_site_without_loss_has_no_overlap_and_says_why():
    raws = make_raw(widths=(40, 40))
    raws[1].s[:] = raws[1].s_model[:] = 0
    live, dead = explanations(profile_of(raws, pass2=False))["scores"]["activation_power"]["sites"]
    assert live["jaccard"] is not None
    assert dead["jaccard"] is dead["overlap"] is dead["lp_mass_of_its_top"] is None
    assert "every gradient of this site was zero" in dead["missing"]["jaccard"]


def test_a_core_of_one_channel_is_the_same_one_or_not():
    (raw,) = make_raw(seed=3, widths=(60,))
    (site,) = explanations(profile_of([raw], rho=0.01))["scores"]["activation_power"]["sites"]
    same = (raw.q**2).sum((0, 1)).argmax() == (raw.u**2).sum((0, 1)).argmax()
    assert site["jaccard"] == site["overlap"] == float(same)
    assert site["chance_jaccard"] == pytest.approx(1 / 60)
