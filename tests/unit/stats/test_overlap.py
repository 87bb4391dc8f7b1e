import numpy as np
import pytest
from scipy.stats import hypergeom

from scarprune.stats.overlap import expected_jaccard, jaccard


def test_jaccard_by_hand():
    assert jaccard(np.array([1, 2, 3]), np.array([3, 4])) == 0.25
    assert jaccard(np.array([1]), np.array([1])) == 1
    assert jaccard(np.array([1]), np.array([2])) == 0
    assert jaccard(np.array([], int), np.array([], int)) == 1


@pytest.mark.parametrize(
    ("count", "first", "second"),
    [(40, 4, 4), (14336, 143, 143), (10, 7, 8), (1536, 15, 154), (5, 5, 5), (9, 0, 3)],
)
def test_chance_is_the_hypergeometric_mean(count, first, second):
    law = hypergeom(count, first, second)
    expected = sum(law.pmf(x) * x / (first + second - x) for x in range(min(first, second) + 1))
    assert expected_jaccard(count, first, second) == pytest.approx(expected, rel=1e-9)


def test_chance_agrees_with_drawing():
    rng = np.random.default_rng(0)
    drawn = [jaccard(rng.choice(30, 6, replace=False), rng.choice(30, 6, replace=False)) for _ in range(4000)]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert abs(np.mean(drawn) - expected_jaccard(30, 6, 6)) < 4 * error


def test_two_empty_sets_agree():
    assert expected_jaccard(10, 0, 0) == 1
