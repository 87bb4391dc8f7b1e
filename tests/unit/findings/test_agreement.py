"""Two profiles beside each other: reliabilities and correlations by SciPy from the raw tokens."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from scarprune.findings.agreement import agreement
from support.profiles import make_raw, profile_of


def _pair(seed=1):
    """Two texts of one model: sizes of channels in common, tokens of their own."""
    (first,), (second,) = (make_raw(seed=seed, widths=(60,), blocks=16) for _ in range(2))
    second.s[:] *= np.random.default_rng(seed).lognormal(0, 1, second.s.shape)
    return first, second


def _halves(raw):
    return ((raw.q[part] ** 2).sum((0, 1)) for part in (slice(0, 8), slice(8, 16)))


def test_a_correlation_is_divided_by_the_root_of_both_reliabilities():
    raws = _pair()
    rank = spearmanr(*((raw.q**2).sum((0, 1)) for raw in raws)).statistic
    reliable = []
    for raw in raws:
        half = spearmanr(*_halves(raw)).statistic
        reliable.append(2 * half / (1 + half))  # Spearman and Brown: of the whole text, from its halves
    (pair,) = agreement([profile_of([raw]) for raw in raws])["pairs"]
    assert pair["sites"][0]["spearman"] == pytest.approx(rank, abs=1e-6)
    assert pair["sites"][0]["spearman_corrected"] == pytest.approx(
        rank / np.sqrt(np.prod(reliable)), rel=1e-5
    )


def test_noise_alone_is_corrected_away():
    """Texts that measure one truth with noise agree perfectly once their noise is taken into account."""
    truth, found, plain = np.exp(np.linspace(0, 2, 400)), [], []
    for seed in range(6):
        raws = []
        for text in range(2):
            (raw,) = make_raw(seed=0, widths=(400,), blocks=16, tokens=5)
            rng = np.random.default_rng([seed, text])
            raw.u[:] = 1.0
            raw.s[:] = np.sqrt(truth * rng.lognormal(0, 1.5, (16, 1, 400)))
            raws.append(raw)
        (pair,) = agreement([profile_of([raw]) for raw in raws])["pairs"]
        found.append(pair["sites"][0]["spearman_corrected"])
        plain.append(pair["sites"][0]["spearman"])
    assert np.mean(plain) < 0.6
    assert np.mean(found) == pytest.approx(1, abs=0.1)


def test_without_a_reliability_there_is_no_correction():
    first, second = _pair()
    first.s[:] = 1.0
    first.u[:8] = np.arange(1.0, 61)  # the halves of the first text rank the channels the other way round
    first.u[8:] = np.arange(60.0, 0, -1)
    (pair,) = agreement([profile_of([first]), profile_of([second])])["pairs"]
    assert pair["sites"][0]["spearman_corrected"] is None
    assert pair["missing"]["spearman_corrected"]


def test_the_mass_that_the_other_core_catches_and_the_halves_across():
    first, second = _pair()
    a, b = ((raw.q**2).sum((0, 1)) for raw in (first, second))
    top = {name: set(np.argsort(-x, kind="stable")[:6]) for name, x in {"a": a, "b": b}.items()}
    (pair,) = agreement([profile_of([first]), profile_of([second])])["pairs"]
    (site,) = pair["sites"]
    assert site["mass_caught"] == pytest.approx(b[list(top["a"])].sum() / b[list(top["b"])].sum(), rel=1e-5)
    assert site["mass_caught_back"] == pytest.approx(
        a[list(top["b"])].sum() / a[list(top["a"])].sum(), rel=1e-5
    )
    cores = [[set(np.argsort(-x, kind="stable")[:6]) for x in _halves(raw)] for raw in (first, second)]
    crossed = [len(x & y) / len(x | y) for x in cores[0] for y in cores[1]]
    assert site["cross_halves"] == pytest.approx(np.mean(crossed))


def test_what_differs_is_named():
    raw, _ = _pair()
    one, other = profile_of([raw]), profile_of([raw], labels=("model",))
    other.header["text"] = [{**other.header["text"][0], "seed": 1}]
    (pair,) = agreement([one, other])["pairs"]
    assert pair["differ"] == ["seed", "labels"]
