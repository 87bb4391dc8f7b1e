"""Every score against a float64 re-derivation from the raw u, s, x and weights."""

import numpy as np
import pytest

from scarprune.errors import ArgumentError, ArtifactError
from scarprune.scores.score import score, scores
from support.profiles import make_raw, profile_of

RAWS = make_raw(seed=3, widths=(40, 56))
PROFILE = profile_of(RAWS, extras=True)
BLOCKS, TOKENS = RAWS[0].u.shape[:2]
N, READ = BLOCKS * (TOKENS - 1), BLOCKS * TOKENS

EXPECTED = {
    "loss_proxy": lambda r: 0.5 * (r.q**2).sum((0, 1)) / N,
    "loss_proxy_median": lambda r: (
        0.5 * np.median([g.mean((0, 1)) for g in _groups(r.q[:, :-1] ** 2)], axis=0)
    ),
    "loss_proxy_factored": lambda r: 0.5 * (r.u**2).mean((0, 1)) * (r.s[:, :-1] ** 2).mean((0, 1)),
    "taylor": lambda r: np.abs(r.q[:, :-1]).mean((0, 1)),
    "curvature": lambda r: (r.s[:, :-1] ** 2).mean((0, 1)),
    "fisher": lambda r: 0.5 * (r.q_model[:, :-1] ** 2).mean((0, 1)),
    "block_fisher": lambda r: 0.5 * (r.q_model.sum(1) ** 2).sum(0) / N,
    "fisher_activation": lambda r: 0.5 * (r.q_model.sum(1) ** 2).sum(0) / N * (r.u**2).mean((0, 1)),
    "activation_power": lambda r: (r.u**2).mean((0, 1)),
    "output_power": lambda r: (r.u**2).mean((0, 1)) * (r.down**2).sum(0),
    "flap_ifv": lambda r: r.u.reshape(-1, r.site.width).var(0),
    "flap_wifv": lambda r: r.u.reshape(-1, r.site.width).var(0) * (r.down**2).sum(0),
    # F3: the three slices' sums of W * G, each absolute; over v_i that sum is the sum of q.
    "llm_pruner_vector": lambda r: (
        sum(np.abs((w * r.g[role].sum(0) / N).sum(1)) for role, w in (("gate", r.gate), ("up", r.up)))
        + np.abs(r.q.sum((0, 1)) / N)
    ),
    "llm_pruner_element1": lambda r: sum(np.abs(w * g.sum(0) / N).sum(1) for w, g in _slices(r)),
    # A: mean over blocks of the square of the gradient of the block's mean loss, over TOKENS - 1 targets.
    "llm_pruner_element2": lambda r: sum(
        np.abs(w**2 * ((g / (TOKENS - 1)) ** 2).mean(0)).sum(1) for w, g in _slices(r)
    ),
    # F11: G is the mean over samples of each one's mean loss's gradient.
    "gisp": lambda r: (
        sum(np.abs(w * (g / (TOKENS - 1)).mean(0)).sum(1) for w, g in _slices(r)) / (3 * r.site.width)
    ),
    "obs": lambda r: (r.down**2).sum(0) / _inverse_diagonal(r.u),
    "sparsegpt_sum": lambda r: (
        (r.gate**2 / _inverse_diagonal(r.x)).sum(1)
        + (r.up**2 / _inverse_diagonal(r.x)).sum(1)
        + (r.down**2 / _inverse_diagonal(r.u)).sum(0)
    ),
    "hfprune": lambda r: np.mean([np.abs(q).sum(0) for q in r.u * r.s_entropy], axis=0),
    "weight_norm": lambda r: _rows(r.gate) + _rows(r.up) + _rows(r.down.T),
    "weight_norm_down": lambda r: _rows(r.down.T),
    "wanda": lambda r: _wanda(r.gate, r.x) + _wanda(r.up, r.x) + _wanda_columns(r).sum(0),
    # F1 a: mean over the outputs of abs(W) * root(s), s = sum of squares over the number of sequences.
    "wanda_sp": lambda r: _wanda_columns(r).mean(0) / np.sqrt(BLOCKS),
    "wanda_down": lambda r: np.sqrt((_wanda_columns(r) ** 2).sum(0) / BLOCKS),
    "minitron": lambda r: np.sqrt(sum(np.abs(block).mean(0) ** 2 for block in r.u)),
    "two_ssp": lambda r: np.mean([np.linalg.norm(block, axis=0) for block in r.u], axis=0),
    "scar_prot": lambda r: 0.5 * (r.q**2).sum((0, 1)) / N * _protect(r),
    "scar_conn": lambda r: 0.5 * (r.q**2).sum((0, 1)) / N * (1 - _conn(r) + _conn(r) * _protect(r)),
}


def _groups(per_block):
    return [per_block[np.arange(BLOCKS) * 8 // BLOCKS == g] for g in range(8)]


def _rows(weight):
    return np.linalg.norm(weight, axis=1)


def _slices(r):
    return [(r.gate, r.g["gate"]), (r.up, r.g["up"]), (r.down.T, r.g["down"])]


def _inverse_diagonal(inputs):
    """diag of (mean of input input^T + 0.01 of its mean diagonal)^-1, one column solved at a time."""
    tokens = [token for block in inputs for token in block]
    moment = sum(np.outer(token, token) for token in tokens) / len(tokens)
    damped = moment + 0.01 * np.mean(np.diag(moment)) * np.eye(len(moment))
    return np.array([np.linalg.solve(damped, unit)[i] for i, unit in enumerate(np.eye(len(damped)))])


def _wanda(weight, x):
    return (np.abs(weight) * np.sqrt((x**2).sum((0, 1)))).sum(1)


def _wanda_columns(r):
    return np.abs(r.down) * np.sqrt((r.u**2).sum((0, 1)))


def _ranking(values):
    return sorted(range(len(values)), key=lambda i: (-values[i], i))


def _core(r):
    return _ranking((r.q**2).sum((0, 1)))[: len(r.q[0, 0]) // 10]


def _conn(r):
    written = sum(np.abs(r.down[:, c]) for c in _core(r))
    support = _ranking(written)[: r.site.hidden // 16]
    return np.abs(r.down[support]).sum(0) / np.abs(r.down).sum(0)


def _protect(r):
    core, conn, q = _core(r), _conn(r), r.q.reshape(-1, r.site.width)
    halo = [i for i in _ranking(conn) if i not in core][: (r.site.width - len(core)) // 10]
    red = {}
    for i in halo:
        rs = [max(np.corrcoef(q[:, i], q[:, c])[0, 1], 0) for c in core]
        red[i] = np.mean(sorted(-0.5 * np.log(1 - r * r) for r in rs)[-5:])
    factors = np.ones(r.site.width)
    for rank, i in enumerate(sorted(halo, key=lambda i: (red[i], i))):
        factors[i] = 0.2 + 0.8 * (1 - (rank / (len(halo) - 1)) ** 8)
    return factors


@pytest.mark.parametrize("name", EXPECTED)
def test_agrees_with_brute_force(name):
    values = score(PROFILE, name)
    assert list(values) == [raw.site.name for raw in RAWS]
    for raw in RAWS:
        array = values[raw.site.name]
        assert array.dtype == np.float64
        np.testing.assert_allclose(array, EXPECTED[name](raw), rtol=3e-6)


def test_every_built_in_score_is_re_derived_here():
    assert {s.name for s in scores()} == {*EXPECTED, "random"}


BANDED = {
    "loss_proxy": lambda r, b: 0.5 * (r.q[:, :-1][:, b] ** 2).mean((0, 1)),
    "taylor": lambda r, b: np.abs(r.q[:, :-1][:, b]).mean((0, 1)),
    "curvature": lambda r, b: (r.s[:, :-1][:, b] ** 2).mean((0, 1)),
    "fisher": lambda r, b: 0.5 * (r.q_model[:, :-1][:, b] ** 2).mean((0, 1)),
    "activation_power": lambda r, b: (r.u[:, b] ** 2).mean((0, 1)),
    "flap_wifv": lambda r, b: r.u[:, b].reshape(-1, r.site.width).var(0) * (r.down**2).sum(0),
    "wanda_down": lambda r, b: np.sqrt((r.u[:, b] ** 2).sum((0, 1)) / BLOCKS) * _rows(r.down.T),
    "scar_prot": lambda r, b: 0.5 * (r.q[:, :-1][:, b] ** 2).mean((0, 1)) * _protect(r),
    "weight_norm_down": lambda r, b: _rows(r.down.T),
}


@pytest.mark.parametrize("name", BANDED)
def test_bands_choose_positions(name):
    values = score(PROFILE, name, bands=(1, 2))
    for raw in RAWS:
        np.testing.assert_allclose(
            values[raw.site.name], BANDED[name](raw, slice(1, None)), rtol=1e-5, atol=1e-12
        )


@pytest.mark.parametrize("name", ["loss_proxy_median", "block_fisher", "minitron", "two_ssp", "wanda"])
def test_what_is_kept_over_whole_blocks_has_no_bands(name):
    with pytest.raises(ArgumentError, match=r"over all positions; bands=\(2,\) cannot be chosen"):
        score(PROFILE, name, bands=(2,))


def test_unknown_band_is_refused():
    with pytest.raises(ArgumentError, match="bands must be some of 0, 1 and 2"):
        score(PROFILE, "taylor", bands=(3,))


def test_bands_without_a_token_are_refused():
    short = profile_of(make_raw(tokens=4))
    with pytest.raises(ArgumentError, match=r"no tokens at the positions of bands=\(2,\)"):
        score(short, "taylor", bands=(2,))
    assert score(short, "activation_power", bands=(0,))


def test_plain_network_has_no_gate_terms():
    raws = make_raw(seed=1, gated=False)
    profile = profile_of(raws, extras=True)
    for raw in raws:
        down = _wanda_columns(raw).sum(0)
        np.testing.assert_allclose(
            score(profile, "wanda")[raw.site.name], _wanda(raw.up, raw.x) + down, rtol=1e-6
        )
        np.testing.assert_allclose(
            score(profile, "weight_norm")[raw.site.name], _rows(raw.up) + _rows(raw.down.T), rtol=1e-6
        )
        up = np.abs((raw.up * raw.g["up"].sum(0)).sum(1)) + np.abs(raw.q.sum((0, 1)))
        np.testing.assert_allclose(score(profile, "llm_pruner_vector")[raw.site.name], up / N, rtol=1e-5)
        of_two = score(profile, "llm_pruner_element1")[raw.site.name] / (2 * raw.site.width)
        np.testing.assert_allclose(score(profile, "gisp")[raw.site.name], of_two, rtol=1e-12)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 7])
def test_median_leaves_empty_groups_out(blocks):
    raws = make_raw(blocks=blocks)  # fewer blocks than groups: one each, the other groups are empty
    values = score(profile_of(raws), "loss_proxy_median")
    for raw in raws:
        expected = 0.5 * np.median((raw.q[:, :-1] ** 2).mean(1), axis=0)
        np.testing.assert_allclose(values[raw.site.name], expected, rtol=1e-6)


def test_constant_activation_has_no_variance_below_zero():
    raws = make_raw()
    for raw in raws:
        raw.u[:] = np.linspace(0.1, 7, raw.site.width)
    values = score(profile_of(raws), "flap_wifv")
    for raw in raws:
        array = values[raw.site.name]
        assert (array >= 0).all()
        assert (array <= 1e-6 * raw.u[0, 0] ** 2 * (raw.down**2).sum(0)).all()


def test_multiplying_the_loss_by_a_power_of_two_is_exact():
    raws = make_raw(seed=5)
    louder = make_raw(seed=5)
    for raw in louder:
        raw.s *= 1024.0
    for name, power in [
        ("loss_proxy", 2),
        ("scar_prot", 2),
        ("scar_conn", 2),
        ("taylor", 1),
        ("curvature", 2),
    ]:
        quiet, loud = score(profile_of(raws), name), score(profile_of(louder), name)
        for site in quiet:
            # pass 2 is float64 arithmetic on correlations, which the scale leaves alone
            assert (loud[site] == quiet[site] * 1024.0**power).all(), name


def test_scar_needs_data_labels_and_says_so():
    with pytest.raises(ArtifactError, match="--labels data"):
        score(profile_of(RAWS, labels=("model",)), "scar_prot")


def test_fisher_needs_model_labels_and_says_so():
    with pytest.raises(ArtifactError, match="--labels model"):
        score(profile_of(RAWS, labels=("data",)), "block_fisher")


def test_scar_without_pass_2_says_how_to_complete_the_profile():
    with pytest.raises(ArtifactError, match="redundancy=True"):
        score(profile_of(RAWS, pass2=False), "scar_prot")


@pytest.mark.parametrize(
    ("name", "extra"), [("hfprune", "entropy"), ("llm_pruner", "gradient"), ("obs", "hessian")]
)
def test_a_score_of_an_extra_pass_says_how_to_complete_the_profile(name, extra):
    with pytest.raises(ArtifactError, match=rf"--extra {extra}\); it costs a pass of its own"):
        score(profile_of(RAWS), name)


@pytest.mark.parametrize(
    ("name", "extra"), [("llm_pruner_element1", "gradient"), ("gisp", "gradient"), ("obs", "hessian")]
)
def test_extras_that_are_no_sums_are_dropped_by_adding(name, extra):
    with pytest.raises(ArtifactError, match=f"profile the joined text with --extra {extra}"):
        score(PROFILE + PROFILE, name)


def test_aliases_are_the_neighbours_names():
    for alias, name in (("flap", "flap_wifv"), ("flap_wifn", "wanda_sp"), ("osscar", "obs")):
        for site, values in score(PROFILE, alias).items():
            assert np.array_equal(values, score(PROFILE, name)[site])


@pytest.mark.parametrize("name", ["scar_prot", "wanda"])
def test_added_profiles_lack_what_depends_on_all_the_text(name):
    with pytest.raises(ArtifactError, match="profile the joined text"):
        score(PROFILE + PROFILE, name)


def test_adding_a_profile_to_itself_changes_no_mean():
    summed = ("loss_proxy", "loss_proxy_median", "block_fisher", "two_ssp", "wanda_sp", "hfprune")
    for name in (*summed, "llm_pruner_vector", "llm_pruner_element2"):
        once, twice = score(PROFILE, name), score(PROFILE + PROFILE, name)
        for site in once:
            np.testing.assert_allclose(twice[site], once[site], rtol=1e-6)
