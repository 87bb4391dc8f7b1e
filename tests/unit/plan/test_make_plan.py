"""Which channels a plan keeps."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scarprune.errors import ArgumentError, PlanError
from scarprune.plan.allocate import auto_multiple
from scarprune.plan.plan import make_plan
from scarprune.scores.core import core
from scarprune.scores.score import score
from support.profiles import make_raw, profile_of, synthetic_profile


def profile_with(values_of_sites, rho=0.1, name="sum_q2"):
    """A profile whose sum of q^2 is given, site by site (all of it in the first band)."""
    raws = make_raw(widths=[len(values) for values in values_of_sites], blocks=8, tokens=5)
    profile = profile_of(raws, rho=rho, pass2=False)
    for raw, values in zip(raws, values_of_sites, strict=True):
        array = np.asarray(values, dtype=np.float64)
        profile.tensors[f"{raw.site.name}/{name}"] = np.stack([array, 0 * array, 0 * array])
    return profile


ALLOCATIONS_SENTENCE = (
    "allocation must be one of uniform, global, global_raw, global_standard, "
    "linear:S (S from -1 to 1), middle"
)


def kept(plan):
    return [keep.tolist() for keep in plan.keep.values()]


# -- uniform ---------------------------------------------------------------------------------------


def test_the_largest_scores_stay():
    plan = make_plan(profile_with([[5, 1, 4, 2, 3, 9, 0, 8, 7, 6]]), "loss_proxy", 0.5, multiple_of=1)
    assert kept(plan) == [[0, 5, 7, 8, 9]]
    assert plan.width == 5
    assert plan.achieved_sparsity == 0.5


def test_ties_stay_by_the_lower_index():
    plan = make_plan(profile_with([[1] * 6, [0, 2, 2, 2, 2, 2]]), "loss_proxy", 0.5, multiple_of=1)
    assert kept(plan) == [[0, 1, 2], [1, 2, 3]]


def test_sparsity_zero_keeps_all():
    plan = make_plan(synthetic_profile(), sparsity=0)
    assert kept(plan) == [list(range(40))] * 2
    assert plan.achieved_sparsity == 0


@pytest.mark.parametrize(
    ("m", "sparsity", "multiple_of", "width"),
    [
        (14336, 0.5, 1, 7168),
        (100, 0.29, 1, 71),  # 0.29 * 100 is 28.999999999999996
        (1000, 0.7, 1, 300),  # 1 - 0.7 is 0.30000000000000004
        (1536, 0.3, 64, 1088),  # 1536 - 460 = 1076
        (100, 0.05, 64, 100),  # 95 rounds to 128, more than there are
        (1000, 0.35, 128, 768),
        (40, 0.9, 16, 16),
    ],
)
def test_width_rule(m, sparsity, multiple_of, width):
    profile = profile_with([np.arange(m)])
    assert make_plan(profile, "loss_proxy", sparsity, multiple_of=multiple_of).width == width


@pytest.mark.parametrize(
    ("widths", "sparsity", "multiple"),
    [
        ([14336], 0.5, 128),  # 7168 = 56 * 128
        ([14336], 0.3, 128),  # 10036 -> 10112, 76 of at most 143
        ([1536], 0.5, 128),  # 768 = 6 * 128
        ([1536], 0.3, 64),  # 1076 -> 1088, 12 of at most 15; by 128 it would be 1152
        ([1024], 0.5, 128),
        ([40], 0.5, 4),  # 20: 8 would give 24
        ([40, 1024], 0.5, 4),  # one multiple for all sites
        ([11008], 0.2, 128),  # 8807 -> 8832
        ([100], 0.01, 128),  # 99 -> 100, all there are: one of at most one
    ],
)
def test_auto_is_the_largest_power_of_two_within_one_percent(widths, sparsity, multiple):
    def fits(p):
        exact = [m - math.floor(sparsity * m + 1e-9) for m in widths]
        return all(min(m, math.ceil(w / p) * p) - w <= 0.01 * m for m, w in zip(widths, exact, strict=True))

    assert max(p for p in (1, 2, 4, 8, 16, 32, 64, 128) if fits(p)) == multiple
    assert auto_multiple(widths, sparsity) == multiple


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.integers(0, 5), min_size=3, max_size=30),
    sparsity=st.floats(0, 0.95),
    multiple_of=st.sampled_from(["auto", 1, 2, 7, 64]),
    protect=st.sampled_from([None, "core"]),
    name=st.sampled_from(["loss_proxy", "weight_norm", "random"]),
)
def test_any_uniform_plan_is_the_rule(values, sparsity, multiple_of, protect, name):
    profile = profile_with([values, values[::-1]])
    try:
        plan = make_plan(profile, name, sparsity, protect, multiple_of)
    except PlanError:
        assert len(values) - math.floor(sparsity * len(values) + 1e-9) < 1
        return
    scores, cores = score(profile, name), core(profile, 0.1)
    m, p = len(values), plan.multiple_of
    for site, keep in plan.keep.items():
        assert len(keep) == min(m, -(-(m - math.floor(sparsity * m + 1e-9)) // p) * p)
        first = cores[site].tolist() if protect else []
        ranking = sorted(range(m), key=lambda i: (i not in first, -scores[site][i], i))
        assert keep.tolist() == sorted(ranking[: len(keep)])
        assert keep.dtype == np.int64


# -- protection ------------------------------------------------------------------------------------


def test_protect_keeps_the_core_of_any_score():
    profile = synthetic_profile(seed=4)
    for name in ("random", "weight_norm", "wanda"):
        plan = make_plan(profile, name, 0.85, protect="core", multiple_of=1)
        for site in profile.sites:
            assert set(plan.core[site.name]) <= set(plan.keep[site.name])
            best = np.argsort(-score(profile, name)[site.name], kind="stable")
            rest = [i for i in best if i not in plan.core[site.name]]
            expected = sorted([*plan.core[site.name], *rest[: plan.width - len(plan.core[site.name])]])
            assert plan.keep[site.name].tolist() == expected


def test_an_unprotected_random_plan_loses_core_channels():
    plan = make_plan(synthetic_profile(seed=4), "random", 0.85, multiple_of=1)
    assert any(set(plan.core[site]) - set(keep) for site, keep in plan.keep.items())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=4, max_size=40), st.sampled_from([0, 0.2, 0.5, 0.7]))
def test_protecting_the_core_changes_nothing_for_the_loss_proxy(values, sparsity):
    profile = profile_with([values, values[::-1]], rho=0.2)
    free = make_plan(profile, "loss_proxy", sparsity, multiple_of=1)
    assert kept(free) == kept(make_plan(profile, "loss_proxy", sparsity, "core", multiple_of=1))


def test_scar_scores_always_protect():
    # Channel 0 is the core; the halo's most redundant channel is lowered, but never the core.
    plan = make_plan(synthetic_profile(), "scar_conn", 0.9, multiple_of=1)
    assert plan.protect == "core"
    assert kept(plan) == [core_.tolist() for core_ in plan.core.values()]


def test_a_width_below_the_protected_core_is_an_error():
    with pytest.raises(PlanError) as caught:
        make_plan(synthetic_profile(), "scar_prot", 0.95, multiple_of=1)
    assert str(caught.value) == (
        "Sparsity 0.95 leaves 2 of the 40 channels of model.layers.0.mlp.down_proj, "
        "but its protected core has 4. Ask for a lower sparsity."
    )
    assert make_plan(synthetic_profile(), "loss_proxy", 0.95, multiple_of=1).width == 2


def test_a_sparsity_that_leaves_nothing_is_an_error():
    with pytest.raises(PlanError, match=r"leaves 0 of the 40 channels .* but one must be left"):
        make_plan(synthetic_profile(), "loss_proxy", 1 - 1e-12, multiple_of=1)


# -- one pool --------------------------------------------------------------------------------------


def test_a_pool_compares_shares_of_a_site():
    # Shares: 0.1 0.2 0.3 0.4 and, although a thousand times larger, 0.05 0.05 0.05 0.85.
    profile = profile_with([[1, 2, 3, 4], [1000, 1000, 1000, 17000]])
    plan = make_plan(profile, "loss_proxy", 0.5, allocation="global", cap=1.0)
    assert kept(plan) == [[1, 2, 3], [3]]
    assert plan.width is None
    assert plan.achieved_sparsity == 0.5


def test_a_raw_pool_compares_the_scores_themselves():
    profile = profile_with([[1, 2, 3, 4], [1000, 1000, 1000, 17000]])
    plan = make_plan(profile, "loss_proxy", 0.375, allocation="global_raw", cap=1.0)
    assert kept(plan) == [[3], [0, 1, 2, 3]]


def test_one_channel_of_a_site_stays_whatever_the_cap():
    profile = profile_with([[1, 2, 3, 4], [1000, 1000, 1000, 17000]])
    plan = make_plan(profile, "loss_proxy", 0.5, allocation="global_raw", cap=1.0)
    assert kept(plan) == [[3], [0, 1, 3]]  # the lower index of equal ones stays


def test_the_cap_bounds_what_a_site_loses():
    profile = profile_with([np.arange(1, 11), 1000 * np.arange(1, 11)])
    plan = make_plan(profile, "loss_proxy", 0.5, allocation="global_raw", cap=0.7)
    assert kept(plan) == [[7, 8, 9], [3, 4, 5, 6, 7, 8, 9]]


def test_ties_of_a_pool_stay_by_site_then_index():
    plan = make_plan(profile_with([[1] * 4, [1] * 4]), "loss_proxy", 0.5, allocation="global", cap=1.0)
    assert kept(plan) == [[0, 1, 2], [0]]


def test_a_pool_keeps_a_protected_core():
    profile = profile_with([np.arange(10), np.arange(10)], rho=0.3)
    plan = make_plan(profile, "weight_norm", 0.7, "core", allocation="global", cap=1.0)
    assert kept(plan) == [[7, 8, 9], [7, 8, 9]]
    with pytest.raises(PlanError, match=r"would remove 16 of 20 channels; with cap 1\.0 at most 14 can go"):
        make_plan(profile, "weight_norm", 0.8, "core", allocation="global", cap=1.0)


def test_a_pool_rounds_each_width_up_to_an_asked_multiple():
    profile = profile_with([np.arange(1, 11), 1000 * np.arange(1, 11)])
    plan = make_plan(profile, "loss_proxy", 0.5, allocation="global_raw", multiple_of=4)
    assert kept(plan) == [[6, 7, 8, 9], [2, 3, 4, 5, 6, 7, 8, 9]]
    assert plan.achieved_sparsity == 0.4


def test_more_than_the_cap_allows_is_an_error():
    with pytest.raises(PlanError) as caught:
        make_plan(profile_with([np.ones(10)]), "loss_proxy", 0.8, allocation="global")
    assert str(caught.value) == (
        "Sparsity 0.8 would remove 8 of 10 channels; with cap 0.7 at most 7 can go. "
        "Ask for a lower sparsity or raise the cap."
    )


def test_a_site_without_any_loss_has_no_share():
    plan = make_plan(
        profile_with([np.zeros(4), np.ones(4)]), "loss_proxy", 0.25, allocation="global", cap=0.5
    )
    assert kept(plan) == [[0, 1], [0, 1, 2, 3]]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=12), min_size=1, max_size=4),
    st.floats(0, 0.8),
    st.sampled_from([0.3, 0.7, 1.0]),
)
def test_any_pool_is_greedy_removal(sites, sparsity, cap):
    """One at a time: the lowest score whose site may still lose one; of equal ones the last."""
    profile = profile_with(sites)
    room = [min(math.floor(cap * len(v) + 1e-9), len(v) - 1) for v in sites]
    budget = math.floor(sparsity * sum(map(len, sites)) + 1e-9)
    if budget > sum(room):
        with pytest.raises(PlanError):
            make_plan(profile, "loss_proxy", sparsity, allocation="global_raw", cap=cap)
        return
    left = [list(range(len(v))) for v in sites]
    for _ in range(budget):
        open_ = [(sites[s][i], -s, -i) for s in range(len(sites)) if room[s] for i in left[s]]
        _, s, i = min(open_)
        left[-s].remove(-i)
        room[-s] -= 1
    assert kept(make_plan(profile, "loss_proxy", sparsity, allocation="global_raw", cap=cap)) == left


# -- what must not matter --------------------------------------------------------------------------


@pytest.mark.parametrize("allocation", ["uniform", "global", "global_raw", "global_standard", "linear:0.5"])
@pytest.mark.parametrize("name", ["loss_proxy", "scar_prot", "taylor"])
def test_the_scale_of_the_loss_changes_no_plan(name, allocation):
    raws, louder = make_raw(seed=8), make_raw(seed=8)
    for raw in louder:
        raw.s *= 2.0**20
    plans = [make_plan(profile_of(r), name, 0.5, allocation=allocation) for r in (raws, louder)]
    assert kept(plans[0]) == kept(plans[1])


def test_changes_smaller_than_the_gaps_change_no_plan():
    profile = profile_with([np.arange(1, 41)])
    before = kept(make_plan(profile, "loss_proxy", 0.4))
    array = profile.tensors["model.layers.0.mlp.down_proj/sum_q2"]
    array[0] += np.random.default_rng(0).uniform(-0.49, 0.49, 40)
    assert kept(make_plan(profile, "loss_proxy", 0.4)) == before


def test_the_seed_draws_the_random_plan():
    profile = synthetic_profile()
    plans = [kept(make_plan(profile, "random", seed=seed)) for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]


# -- by depth --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allocation", "sites", "cap", "widths"),
    [
        # 10 channels each, half go: 25 in all, fractions 0.25 0.375 0.5 0.625 0.75 of 10 channels:
        # 2.5 3.75 5 6.25 7.5 -> floors 2 3 5 6 7 are 23, the largest remainders are 0.75, then the first 0.5
        ("linear:0.5", 5, 1.0, [7, 6, 5, 4, 3]),
        ("linear:-0.5", 5, 1.0, [2, 4, 5, 6, 8]),
        ("linear:0", 5, 1.0, [5, 5, 5, 5, 5]),
        # 0 2.5 5 7.5 10 meets the cap of 7 twice: 11 are left for 2.5 and 5 in proportion, 3.67 and 7.33,
        # the cap again: 4 are left for the second
        ("linear:1", 5, 0.7, [10, 6, 3, 3, 3]),
        # the last of five stays whole, and a tenth of five is none: 25 from four
        ("middle", 5, 0.7, [3, 4, 4, 4, 10]),
        # of ten, the first and the last stay whole: 50 from eight, 6.25 each
        ("middle", 10, 0.7, [10, 3, 3, 4, 4, 4, 4, 4, 4, 10]),
        ("linear:0.9", 1, 0.7, [5]),
        ("middle", 1, 0.7, [5]),
    ],
)
def test_a_schedule_removes_by_depth_what_uniform_removes(allocation, sites, cap, widths):
    profile = profile_with([np.arange(10)] * sites)
    plan = make_plan(profile, "loss_proxy", 0.5, allocation=allocation, cap=cap)
    assert [len(keep) for keep in plan.keep.values()] == widths
    assert kept(plan) == [list(range(10 - width, 10)) for width in widths]  # the largest scores
    assert plan.achieved_sparsity == 0.5
    assert (plan.allocation, plan.cap, plan.multiple_of) == (allocation, cap, 1)


def test_a_schedule_counts_by_width():
    # 0.5 of 8 and 16: 12 go; parts 0.5 and 1.5 of the widths are 4 and 24, so 12/7 and 72/7
    plan = make_plan(profile_with([np.arange(8), np.arange(16)]), "loss_proxy", 0.5, allocation="linear:0.5")
    assert list(plan.widths.values()) == [6, 6]


def test_a_schedule_keeps_a_protected_core():
    profile = profile_with([np.arange(10), np.arange(10)], rho=0.4)
    # 2.5 and 7.5 would go, but only 6 of the second may
    plan = make_plan(profile, "weight_norm", 0.5, "core", allocation="linear:0.5", cap=1.0)
    assert list(plan.widths.values()) == [6, 4]
    assert kept(plan)[1] == plan.core[profile.sites[1].name].tolist()


def test_a_schedule_rounds_each_width_up_to_an_asked_multiple():
    plan = make_plan(
        profile_with([np.arange(10)] * 5), "loss_proxy", 0.5, allocation="linear:0.5", cap=1.0, multiple_of=4
    )
    assert list(plan.widths.values()) == [8, 8, 8, 4, 4]


def test_a_schedule_that_its_cap_does_not_allow_is_an_error():
    with pytest.raises(PlanError) as caught:
        make_plan(profile_with([np.ones(10)] * 5), "loss_proxy", 0.6, allocation="middle")
    assert str(caught.value) == (
        "Sparsity 0.6 would remove 30 of 50 channels; with cap 0.7 at most 28 can go. "
        "Ask for a lower sparsity or raise the cap."
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(2, 40), min_size=1, max_size=6),
    st.floats(0, 0.7),
    st.sampled_from(["linear:0.3", "linear:-1", "linear:1", "middle"]),
)
def test_any_schedule_stays_inside_its_bounds(sites, sparsity, allocation):
    profile = profile_with([np.arange(m) for m in sites])
    try:
        plan = make_plan(profile, "loss_proxy", sparsity, allocation=allocation)
    except PlanError:
        assert sparsity > 0
        return
    lost = [m - width for m, width in zip(sites, plan.widths.values(), strict=True)]
    assert sum(lost) == sum(math.floor(sparsity * m + 1e-9) for m in sites)
    assert all(0 <= n <= math.floor(0.7 * m + 1e-9) for n, m in zip(lost, sites, strict=True))


def test_a_standard_pool_compares_standard_deviations():
    # -1 0 1 deviations of 1 from 102, and -10 -8 18 of 15.6 from 20: the lowest are -1 and -0.64. As shares
    # 0.167 and 0.2 of the second site are the lowest.
    profile = profile_with([[101, 102, 103], [10, 12, 38]])
    standard = make_plan(profile, "loss_proxy", 0.34, allocation="global_standard", cap=1.0)
    assert kept(standard) == [[1, 2], [1, 2]]
    assert kept(make_plan(profile, "loss_proxy", 0.34, allocation="global", cap=1.0)) == [[0, 1, 2], [2]]


def test_a_site_of_equal_scores_lies_at_its_mean():
    # 5 5 5 5 lie at 0; of 1 1 1 9 three lie below their mean
    profile = profile_with([[5, 5, 5, 5], [1, 1, 1, 9]])
    plan = make_plan(profile, "loss_proxy", 0.375, allocation="global_standard", cap=1.0)
    assert kept(plan) == [[0, 1, 2, 3], [3]]


# -- nonsense --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.5, float("nan"), float("inf"), "0.5", None, True, 10**400])
def test_sparsity_must_be_a_share(sparsity):
    with pytest.raises(PlanError, match=r"Sparsity must be in \[0, 1\), not "):
        make_plan(synthetic_profile(), sparsity=sparsity)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"protect": "halo"}, "protect must be None or \"core\", not 'halo'."),
        ({"protect": True}, 'protect must be None or "core", not True.'),
        ({"allocation": "owl"}, f"{ALLOCATIONS_SENTENCE}, not 'owl'."),
        ({"allocation": "linear"}, f"{ALLOCATIONS_SENTENCE}, not 'linear'."),
        ({"allocation": "linear:1.01"}, f"{ALLOCATIONS_SENTENCE}, not 'linear:1.01'."),
        ({"allocation": "linear:nan"}, f"{ALLOCATIONS_SENTENCE}, not 'linear:nan'."),
        ({"allocation": "global:1"}, f"{ALLOCATIONS_SENTENCE}, not 'global:1'."),
        ({"allocation": None}, f"{ALLOCATIONS_SENTENCE}, not None."),
        ({"cap": 0}, r"cap must be in (0, 1], not 0."),
        ({"cap": 1.1}, r"cap must be in (0, 1], not 1.1."),
        ({"cap": float("nan")}, r"cap must be in (0, 1], not nan."),
        ({"multiple_of": 0}, 'multiple_of must be "auto" or an integer of at least 1, not 0.'),
        ({"multiple_of": 2.0}, 'multiple_of must be "auto" or an integer of at least 1, not 2.0.'),
        ({"multiple_of": True}, 'multiple_of must be "auto" or an integer of at least 1, not True.'),
    ],
)
def test_an_option_that_cannot_be_is_named(option, message):
    with pytest.raises(PlanError) as caught:
        make_plan(synthetic_profile(), **option)
    assert str(caught.value) == message


def test_an_unknown_score_is_named_with_the_nearest():
    with pytest.raises(ArgumentError, match="Did you mean wanda"):
        make_plan(synthetic_profile(), "wandaa")


def test_negative_scores_have_no_share_of_a_sum(monkeypatch):
    from scarprune.plan import plan as module

    monkeypatch.setattr(
        module, "compute_score", lambda p, name, seed: {s.name: -np.ones(s.width) for s in p.sites}
    )
    with pytest.raises(
        PlanError, match=r'below zero, so they have no share of a sum\. Use allocation="global_raw"'
    ):
        make_plan(synthetic_profile(), "loss_proxy", 0.5, allocation="global")
