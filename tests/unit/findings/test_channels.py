"""The channels that figures show, against the raw tokens they come from."""

import numpy as np
import pytest

from scarprune.findings.channels import channels
from support.profiles import make_raw, profile_of, synthetic_profile


@pytest.fixture(scope="module")
def raw():
    return make_raw(seed=3, widths=(200,), blocks=16)[0]


@pytest.fixture(scope="module")
def site(raw):
    (found,) = channels(profile_of([raw], rho=0.02), halo_sample=5, rest_sample=30)["sites"]
    return found


def test_every_number_of_a_channel_is_that_of_its_tokens(raw, site):
    q2, q4, u2 = (raw.q**2).sum((0, 1)), (raw.q**4).sum((0, 1)), (raw.u**2).sum((0, 1))
    targets, positions = 16 * 8, 16 * 9
    core = site["core"]
    assert core["index"] == sorted(np.argsort(-q2)[:4].tolist())
    for part in (core, site["halo"], site["rest"]):
        chosen = part["index"]
        np.testing.assert_allclose(part["lp"], 0.5 * q2[chosen] / targets, rtol=1e-4)
        np.testing.assert_allclose(part["activation"], u2[chosen] / positions, rtol=1e-4)
        np.testing.assert_allclose(part["n_eff"], q2[chosen] ** 2 / q4[chosen], rtol=1e-4)
        assert part["activation_rank"] == [1 + int((u2 > u2[i]).sum()) for i in chosen]


def test_samples_say_of_how_many_and_do_not_overlap(site):
    core, halo, rest = (set(site[name]["index"]) for name in ("core", "halo", "rest"))
    assert (len(core), len(halo), len(rest)) == (4, 5, 30)
    assert len(core | halo | rest) == 4 + 5 + 30
    assert site["halo"]["of"] == 19  # a tenth of 196
    assert site["rest"]["of"] == 200 - 4 - 19


def test_the_curve_is_the_sorted_loss_proxy_and_its_running_share(raw, site):
    ordered = np.sort((raw.q**2).sum((0, 1)))[::-1]
    assert (site["rank"][0], site["rank"][-1]) == (1, 200)
    at = np.array(site["rank"]) - 1
    np.testing.assert_allclose(site["lp"], 0.5 * ordered[at] / (16 * 8), rtol=1e-4)
    np.testing.assert_allclose(site["cumulative"], np.cumsum(ordered)[at] / ordered.sum(), rtol=1e-4)


def test_the_bins_hold_every_channel_that_has_a_logarithm(raw, site):
    assert np.sum(site["bins"]["counts"]) == 200
    assert site["bins"]["left_out"] == 0
    raw2 = make_raw(seed=3, widths=(200,), blocks=16)[0]
    raw2.s[:, :, :50] = 0.0
    (found,) = channels(profile_of([raw2], pass2=False))["sites"]
    assert np.sum(found["bins"]["counts"]) == 150
    assert found["bins"]["left_out"] == 50


def test_what_is_not_known_is_null_with_its_reason():
    raws = make_raw(widths=(40, 40))
    raws[1].s[:] = raws[1].s_model[:] = 0
    _, dead = channels(profile_of(raws, pass2=False))["sites"]
    assert dead["cumulative"] is None
    assert "every gradient of this site was zero" in dead["missing"]["cumulative"]
    assert dead["core"]["n_eff"] == [None] * 4
    merged = channels(synthetic_profile() + synthetic_profile(seed=1))["sites"][0]
    assert merged["halo"] is None
    assert merged["core"]["overlap"] == [None] * 4
    assert "write overlap" in merged["missing"]["halo"]
