import numpy as np
import pytest

from scarprune.errors import ArgumentError
from scarprune.scores.core import core, profile_core
from scarprune.scores.halo import halo, protect
from support.profiles import core_of, make_raw, profile_of


def _profile_with_q2(q2, labels=("data",)):
    raws = make_raw(widths=(len(q2),), blocks=2, tokens=5)
    profile = profile_of(raws, labels=labels, pass2=False)
    key = f"{raws[0].site.name}/{'' if 'data' in labels else 'model/'}sum_q2"
    profile.tensors[key] = np.stack([np.asarray(q2, float), np.zeros(len(q2)), np.zeros(len(q2))])
    return profile


@pytest.mark.parametrize(
    ("m", "rho", "k"), [(14336, 0.01, 143), (1500, 0.01, 15), (100, 0.29, 29), (40, 0.01, 1)]
)
def test_size_is_the_floor_and_at_least_one(m, rho, k):
    profile = _profile_with_q2(np.arange(m))
    assert core(profile, rho)["model.layers.0.mlp.down_proj"].tolist() == list(range(m - k, m))


def test_ties_go_to_the_lower_index():
    (chosen,) = core(_profile_with_q2([1, 3, 2, 3, 2, 2, 0, 0, 0, 0]), 0.4).values()
    assert chosen.tolist() == [1, 2, 3, 4]
    assert chosen.dtype == np.int64


def test_agrees_with_a_full_sort():
    raws = make_raw(seed=9, widths=(400, 300))
    found = core(profile_of(raws), 0.05)
    for raw in raws:
        assert found[raw.site.name].tolist() == core_of(raw, 0.05).tolist()


def test_data_labels_win_over_model_labels():
    raws = make_raw(seed=2)
    both = core(profile_of(raws, labels=("data", "model")), 0.1)
    model = core(profile_of(raws, labels=("model",)), 0.1)
    for raw in raws:
        assert both[raw.site.name].tolist() == core_of(raw, 0.1, ("data",)).tolist()
        assert model[raw.site.name].tolist() == core_of(raw, 0.1, ("model",)).tolist()


@pytest.mark.parametrize("rho", [0, -0.1, 1.5, float("nan"), True, "0.01", None])
def test_rho_must_be_a_share(rho):
    with pytest.raises(ArgumentError, match="rho must be a share"):
        core(_profile_with_q2([1.0, 2.0]), rho)


def test_profile_core_has_the_rho_of_the_profile():
    profile = profile_of(make_raw(), rho=0.2)
    for site, chosen in profile_core(profile).items():
        assert len(chosen) == 8
        assert chosen.tolist() == profile.get(site, "red/core").tolist()


def test_halo_is_a_tenth_of_the_rest_with_the_largest_conn():
    conn = np.zeros(31)
    conn[[0, 4, 7, 30]] = [9, 5, 5, 5]
    # 30 channels are outside the core {0}: 3 of them, ties to the lower index after the largest
    assert halo(conn, np.array([0])).tolist() == [4, 7, 30]
    assert halo(np.ones(31), np.array([1])).tolist() == [0, 2, 3]


def test_halo_has_one_channel_at_least_and_none_where_the_core_is_all():
    assert halo(np.array([0.1, 0.3, 0.2]), np.array([1])).tolist() == [2]
    assert halo(np.array([0.1, 0.3]), np.array([0, 1])).tolist() == []


def test_protection_falls_with_the_rank_of_redundancy():
    red = np.array([0.5, 0.0, 0.1, 0.3, 0.9])
    factors = protect(red, np.array([0, 2, 3]))
    # ranks in the halo: channel 2 -> 0, channel 3 -> 1/2, channel 0 -> 1
    np.testing.assert_allclose(factors, [0.2, 1, 1, 0.2 + 0.8 * (1 - 2.0**-8), 1], rtol=1e-15)


def test_equal_redundancy_ranks_by_index():
    factors = protect(np.zeros(4), np.array([1, 3]))
    np.testing.assert_allclose(factors, [1, 1, 1, 0.2], rtol=1e-15)


def test_a_halo_of_one_is_protected():
    assert protect(np.array([0.0, 5.0]), np.array([1])).tolist() == [1, 1]
    assert protect(np.array([0.0, 5.0]), np.array([], dtype=np.int64)).tolist() == [1, 1]
