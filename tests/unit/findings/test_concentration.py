"""Shares, overlaps and halves of a synthetic profile, derived again from its raw u and s."""

import json

import numpy as np
import pytest
from scipy import stats

from scarprune.errors import ArtifactError
from scarprune.findings.agreement import agreement
from scarprune.findings.analyze import analyze
from scarprune.findings.concentration import concentration
from scarprune.findings.explanations import explanations
from scarprune.findings.stability import stability
from support.profiles import make_raw, profile_of, synthetic_profile


def _top(values, k):
    return set(np.argsort(-values, kind="stable")[:k].tolist())


def _share(values, k):
    return np.sort(values)[::-1][:k].sum() / values.sum()


@pytest.fixture(scope="module")
def raw():
    return make_raw(seed=3, widths=(60,), blocks=16)[0]


@pytest.fixture(scope="module")
def profile(raw):
    return profile_of([raw])  # rho 0.1: a core of 6; group g is blocks 2g and 2g + 1


def test_shares_are_those_of_the_raw_tokens(raw, profile):
    q2 = (raw.q**2).sum((0, 1))
    (site,) = concentration(profile)["labels"]["data"]["sites"]
    assert site["core_share"]["value"] == pytest.approx(_share(q2, 6))
    assert site["curve"]["0.05"] == pytest.approx(_share(q2, 3))
    assert site["max_over_mean"] == pytest.approx(q2.max() / q2.mean())
    assert site["effective_channels"] == pytest.approx(q2.sum() ** 2 / (q2**2).sum())
    later = (raw.q[:, 4:] ** 2).sum((0, 1))
    assert site["by_bands"]["without_first_4"] == pytest.approx(_share(later, 6))


def test_the_cross_fitted_share_weighs_one_half_by_the_others_core(raw, profile):
    a, b = ((raw.q[half] ** 2).sum((0, 1)) for half in (slice(0, 8), slice(8, 16)))
    expected = np.mean([b[list(_top(a, 6))].sum() / b.sum(), a[list(_top(b, 6))].sum() / a.sum()])
    (site,) = concentration(profile)["labels"]["data"]["sites"]
    assert site["cross_fitted"] == pytest.approx(expected, rel=1e-5)


def test_the_interval_of_the_share_is_the_jackknife_on_the_logit_scale(raw, profile):
    by_block = (raw.q**2).sum(1)

    def logit(keep):
        x = _share(by_block[keep].sum(0), 6)
        return np.log(x / (1 - x))

    blocks = np.arange(16)
    without = np.array([logit(np.delete(blocks, [2 * g, 2 * g + 1])) for g in range(8)])
    error = np.sqrt(7 / 8 * ((without - without.mean()) ** 2).sum())
    edges = logit(blocks) + stats.t.ppf([0.025, 0.975], 7) * error
    (site,) = concentration(profile)["labels"]["data"]["sites"]
    found = [site["core_share"]["low"], site["core_share"]["high"]]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-edges)), rtol=1e-4)


def test_overlap_and_ranks_of_activation_power_are_scipys(raw, profile):
    q2, u2 = (raw.q**2).sum((0, 1)), (raw.u**2).sum((0, 1))
    (site,) = explanations(profile)["scores"]["activation_power"]["sites"]
    common = len(_top(q2, 6) & _top(u2, 6))
    assert site["jaccard"] == pytest.approx(common / (12 - common))
    assert site["overlap"] == pytest.approx(common / 6)
    assert site["spearman"] == pytest.approx(stats.spearmanr(q2, u2).statistic)
    assert site["lp_mass_of_its_top"] == pytest.approx(q2[list(_top(u2, 6))].sum() / q2.sum())


def test_halves_of_the_text_are_the_first_and_the_last_blocks(raw, profile):
    a, b = ((raw.q[half] ** 2).sum((0, 1)) for half in (slice(0, 8), slice(8, 16)))
    common = len(_top(a, 6) & _top(b, 6))
    half = stability(profile)["split_half"]["contiguous"]
    assert half["jaccard"]["median"] == pytest.approx(common / (12 - common))
    assert half["spearman"]["median"] == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-6)


def test_a_planted_core_is_found_in_any_half_and_holds_its_share():
    (raw,) = make_raw(seed=5, widths=(60,), blocks=16)
    raw.s[:] /= np.abs(raw.u).mean((0, 1)) * np.abs(raw.s).mean((0, 1))  # all channels alike
    raw.s[:, :, :6] *= 10.0  # 100 times the squares
    profile = profile_of([raw])
    assert stability(profile)["split_half"]["contiguous"]["jaccard"]["median"] == 1
    (site,) = concentration(profile)["labels"]["data"]["sites"]
    assert site["cross_fitted"] > 0.8
    found = analyze(profile)
    assert found["sites"][0]["core"] == [0, 1, 2, 3, 4, 5]


def test_two_profiles_of_other_text_agree_as_their_cores_do():
    first, second = (make_raw(seed=1, widths=(60,), blocks=16)[0] for _ in range(2))
    second.s[:] = second.s[::-1]  # the same blocks in another order give other halves and the same whole
    second.u[:] = second.u[::-1]
    (pair,) = agreement([profile_of([first]), profile_of([second])])["pairs"]
    assert pair["jaccard"]["median"] == 1
    assert pair["mass_caught"]["median"] == pytest.approx(1)
    assert pair["spearman"]["median"] == pytest.approx(1)


def test_profiles_of_different_models_are_refused():
    with pytest.raises(ArtifactError, match=r"aaaa.*bbbb"):
        agreement([synthetic_profile(fingerprint="a" * 64), synthetic_profile(fingerprint="b" * 64)])


def _dead():
    raws = make_raw(widths=(40, 40))
    raws[1].s[:] = 0
    raws[1].s_model[:] = 0
    return profile_of(raws, pass2=False)


@pytest.mark.parametrize(
    "make",
    [
        synthetic_profile,
        _dead,
        lambda: profile_of(make_raw(blocks=3)),
        lambda: profile_of(make_raw(blocks=1)),
        lambda: synthetic_profile(labels=("model",)),
        lambda: synthetic_profile(labels=("data",), pass2=False),
        lambda: synthetic_profile() + synthetic_profile(seed=1),
        lambda: synthetic_profile(rho=0.01),
        lambda: profile_of(make_raw(gated=False)),
    ],
    ids=["whole", "dead site", "3 blocks", "1 block", "model", "no pass 2", "merged", "core of 1", "plain"],
)
def test_no_profile_gives_a_number_that_is_none(make):
    json.dumps(analyze(make()), allow_nan=False)


def test_a_site_without_loss_is_null_with_its_reason():
    dead = concentration(_dead())["labels"]["data"]["sites"][1]
    assert dead["core_share"]["value"] is None
    assert dead["core_share"]["reason"]
    assert "every gradient of this site was zero" in dead["missing"]["gini"]


def test_fewer_groups_than_an_interval_needs_give_a_value_and_the_reason():
    (site,) = concentration(profile_of(make_raw(widths=(40,), blocks=2)))["labels"]["data"]["sites"]
    share = site["core_share"]
    assert 0 < share["value"] < 1
    assert share["low"] is share["high"] is None
    assert share["reason"] == "an interval needs 3 groups, not 2"
    (site,) = concentration(profile_of(make_raw(widths=(40,), blocks=1)))["labels"]["data"]["sites"]
    assert site["cross_fitted"] is None
    assert "the blocks fill 1 of the 8 groups" in site["missing"]["cross_fitted"]


def test_a_profile_without_pass_2_has_no_redundancy_and_says_why():
    halo = analyze(synthetic_profile(pass2=False))["halo"]
    assert halo["redundancy"] is None
    assert "no second pass" in halo["missing"]["redundancy"]
    assert halo["membership"] is not None
    assert halo["sensitivity"] == []


def test_the_core_of_one_channel_holds_its_own_share(raw):
    (site,) = concentration(profile_of([raw], rho=0.01))["labels"]["data"]["sites"]
    q2 = (raw.q**2).sum((0, 1))
    assert site["core_share"]["value"] == pytest.approx(q2.max() / q2.sum())
