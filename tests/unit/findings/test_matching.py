import numpy as np

from scarprune.findings.matching import CALIPER, matched, standardised_difference


def test_pairs_balance_what_differed():
    rng = np.random.default_rng(0)
    traits = np.exp(rng.standard_normal((600, 2)))
    traits[:100] *= np.exp(0.7)
    treated, pool = np.arange(100), np.arange(100, 600)
    a, b = matched(traits, treated, pool, rng)
    before, after = (standardised_difference(traits, *pair) for pair in ((treated, pool), (a, b)))
    assert min(before) > 0.4
    assert max(map(abs, after)) < 0.15
    assert len(set(b.tolist())) == len(b) > 80
    scale = np.log(traits).std(0)
    distance = np.linalg.norm((np.log(traits[a]) - np.log(traits[b])) / scale, axis=1)
    assert distance.max() <= CALIPER + 1e-9


def test_channels_without_a_logarithm_are_never_paired():
    traits = np.ones((6, 2))
    traits[[0, 4], 0] = 0
    a, b = matched(traits, np.array([0, 1]), np.array([4, 5]), np.random.default_rng(0))
    assert (a.tolist(), b.tolist()) == ([1], [5])
    assert standardised_difference(traits, a, b) == [None, None]
