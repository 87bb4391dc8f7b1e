"""The paper's protocol on a tiny model, against autograd in float64 and its formulas written out."""

import numpy as np
import pytest

from scarprune.errors import ArtifactError
from scarprune.findings.core_moments import core_moments
from scarprune.models.find import find_sites
from scarprune.paper.differences import of_epsilon, of_texts
from scarprune.paper.protocol import measure_as_published
from scarprune.paper.redundancy import published_protection, published_redundancy
from scarprune.paper.texts import PaperReading, paper_texts
from scarprune.profile.run import profile_model
from scarprune.profile.sums import Profile
from support.brute_force import u_and_s
from support.tiny_models import tiny_model
from support.tokenizers import byte_level

READING = PaperReading(texts=8, length=24, redundancy_texts=4, redundancy_length=12)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    rng = np.random.default_rng(0)
    lines = [" ".join(f"sea{w}" for w in rng.integers(0, 999, n)) for n in (2, 12, 3, 9, 1, 7, 12, 4, 5)]
    path = tmp_path_factory.mktemp("paper") / "lines.txt"
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama", vocab_size=400)


@pytest.fixture(scope="module")
def measured(model, source):
    return measure_as_published(model, byte_level(), source, READING)


def _q(model, blocks):
    """q [tokens, m] by site of every text with its mean loss, in float64."""
    exact = tiny_model("llama", vocab_size=400).double()
    sites = find_sites(exact)
    pairs = [
        (u_and_s(exact, sites, row[:n].tolist())[0], int(n))
        for row, n in zip(blocks.ids, blocks.lengths, strict=True)
    ]
    return {
        site.name: np.concatenate([u * s / (n - 1) for seen, n in pairs for u, s in [seen[site.name]]])
        for site in sites
    }


def test_the_loss_proxy_is_of_mean_losses_summed_over_all_tokens_alike(measured, model):
    assert len(set(measured.texts.lengths.tolist())) > 3
    for name, q in _q(model, measured.texts).items():
        expected = 0.5 * (q**2).sum(0) / measured.texts.targets
        np.testing.assert_allclose(measured.scores["loss_proxy"][name], expected, rtol=1e-4)
    assert measured.profile.header["loss"] == "mean"


def test_mean_and_summed_losses_agree_only_where_texts_are_as_long_as_each_other(model, source):
    texts = paper_texts(source, byte_level(), 8, 24)
    same = texts.take(np.flatnonzero(texts.lengths == 24))
    mean, summed = (profile_model(model, same, redundancy=False, mean_loss=m) for m in (True, False))
    site = mean.sites[0].name
    np.testing.assert_allclose(mean.total("sum_q2")[site], summed.total("sum_q2")[site] / 23**2, rtol=1e-5)
    np.testing.assert_allclose(mean.total("sum_u2")[site], summed.total("sum_u2")[site], rtol=1e-6)
    np.testing.assert_allclose(mean.get(site, "groups_G"), summed.get(site, "groups_G") / 23, rtol=1e-5)
    with pytest.raises(ArtifactError, match="mean losses"):
        Profile.__add__(mean, summed)


def test_redundancy_has_the_epsilon_inside_the_root(measured, model):
    few = measured.few
    assert (len(few), few.lengths.max()) == (4, 12)
    for name, q in _q(model, few).items():
        core = measured.profile.total("sum_q2")[name].argsort()[-1:]  # 1% of 48 is one channel
        variance, covariance = q.var(0), np.cov(q.T, bias=True)[:, core]
        r = covariance / np.sqrt(np.outer(variance, variance[core]) + 1e-8)
        expected = (-0.5 * np.log(1 - np.minimum(np.clip(r, 0, 0.9999) ** 2, 0.9999)))[:, 0]
        np.testing.assert_allclose(measured.red[name], expected, rtol=2e-3, atol=2e-7)
        # And it matters: without it the redundancies are other numbers.
        clean = np.corrcoef(q.T)[:, core[0]]
        assert np.median(np.abs(clean)) > 2 * np.median(np.abs(r))


def test_top_five_unsigned_and_small_correlations_that_float32_loses():
    rng = np.random.default_rng(1)
    q = rng.standard_normal((500, 12))
    q[:, 11] = -q[:, 0]
    moments = _moments(q, np.arange(7))
    r = np.corrcoef(q.T)[:, :7]
    red = -0.5 * np.log(1 - np.clip(np.abs(r), 0, 0.9999) ** 2)
    expected = np.sort(red, axis=1)[:, -5:].mean(1)
    found = published_redundancy(moments, np.arange(7), 500, signed=False, epsilon=0.0)
    np.testing.assert_allclose(found[7:11], expected[7:11], rtol=1e-3, atol=1e-6)
    assert published_redundancy(moments, np.arange(7), 500)[11] < found[11]
    # var * var = 1e-16 beside 1e-8: r is 1e-4 of the correlation, and r^2 below half of float32's 6e-8.
    assert (published_redundancy(_moments(1e-4 * q, np.arange(7)), np.arange(7), 500)[7:11] == 0).all()


def _moments(q, core):
    from scarprune.findings.core_moments import CoreMoments

    return CoreMoments(q.sum(0), (q**2).sum(0), q.T @ q[:, core])


def test_of_equal_redundancies_the_larger_conn_ranks_lower():
    conn = np.array([0.0, 0.3, 0.9, 0.5, 0.1])
    factors = published_protection(np.zeros(5, np.float32), conn, np.array([1, 2, 3]))
    assert factors == pytest.approx([1, 0.2, 1, 0.2 + 0.8 * (1 - 0.5**8), 1])


def test_moments_of_batches_are_those_of_single_blocks(model, source):
    texts = paper_texts(source, byte_level(), 8, 24)
    names = [site.name for site in find_sites(model)]
    columns = {name: np.array([3, 7]) for name in names}
    found = core_moments(model, texts, columns)
    single = [core_moments(model, texts.take(np.array([i])), columns) for i in range(len(texts))]
    for name in names:
        for key in ("first", "second", "cross"):
            total = sum(getattr(one[name], key) for one in single)
            np.testing.assert_allclose(getattr(found[name], key), total, rtol=1e-4, atol=1e-6)


def test_what_the_epsilon_and_the_texts_change(measured, model):
    packed = profile_model(model, measured.texts.take(np.array([1, 3])), redundancy=False)
    epsilon, texts = of_epsilon(measured), of_texts(model, measured, packed)
    assert epsilon["summary"]["ratio_without"]["median"] > 0
    assert 0 <= epsilon["kept_at_half_jaccard"]["median"] <= 1
    # No line has 32 tokens here.
    assert texts["short_texts"] == len(measured.texts)
    assert (texts["share_of_targets_in_short"], texts["missing"]["long"]) == (1.0, "no line has 32 tokens")
    assert texts["jaccard_with_paper"]["mean_of_long"] is None


def test_the_share_of_short_lines_is_that_of_their_tokens(model, tmp_path):
    path = tmp_path / "two.txt"
    path.write_text(" = sea = \n" + " ".join(f"sea{i}" for i in range(20)))
    measured = measure_as_published(model, byte_level(), str(path), READING_LONG, hessians=False)
    short, long = measured.texts.lengths
    assert short < 32 <= long
    found = of_texts(model, measured, None)
    assert found["share_of_targets_in_short"] == (short - 1) / (short + long - 2)
    q = _q(model, measured.texts)
    shares = [(v[:short] ** 2).sum() / (v**2).sum() for v in q.values()]
    assert found["lp_share_of_short_with_mean"]["median"] == pytest.approx(np.median(shares), rel=1e-3)
    summed = [(v[:short] ** 2).sum() * (short - 1) ** 2 for v in q.values()]
    rest = [(v[short:] ** 2).sum() * (long - 1) ** 2 for v in q.values()]
    expected = np.median([a / (a + b) for a, b in zip(summed, rest, strict=True)])
    assert found["lp_share_of_short_with_sum"]["median"] == pytest.approx(expected, rel=1e-3)


READING_LONG = PaperReading(texts=8, length=64, redundancy_texts=2, redundancy_length=64)
