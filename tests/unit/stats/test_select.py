import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarprune.stats.select import ascending_ranks, floor_share, largest, outside


@pytest.mark.parametrize(
    ("fraction", "count", "expected"),
    [
        (0.01, 1500, 15),
        (0.29, 100, 29),
        (0.1, 30, 3),
        (0.07, 100, 7),
        (0.01, 14336, 143),
        (0.5, 7, 3),
        (0, 9, 0),
    ],
)
def test_floor_share_counts_as_a_person_does(fraction, count, expected):
    assert floor_share(fraction, count) == expected


def test_floor_share_of_decimals_is_exact_integer_arithmetic():
    for hundredths in range(100):
        for count in (100, 300, 1000, 14336, 28672):
            assert floor_share(hundredths / 100, count) == hundredths * count // 100


def by_sorting(values, k):
    return sorted(sorted(range(len(values)), key=lambda i: (-values[i], i))[:k])


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.integers(0, 45))
def test_largest_is_a_sort_by_value_then_index(values, k):
    found = largest(np.array(values, dtype=float), k)
    assert found.tolist() == by_sorting(values, k)
    assert found.dtype == np.int64


@pytest.mark.parametrize("distinct", [1, 3, 10_000])
@pytest.mark.parametrize("m", [4, 57, 300])
def test_largest_few_of_many(m, distinct):
    values = np.random.default_rng(m).integers(0, distinct, m).astype(float)
    for k in (1, 2, 3, m // 20, m // 7, m // 4, m // 2, m - 1):
        assert largest(values, k).tolist() == by_sorting(values, k)


def test_outside_is_the_rest():
    assert outside(np.array([1, 3]), 5).tolist() == [0, 2, 4]
    assert outside(np.array([], dtype=np.int64), 2).tolist() == [0, 1]


def test_equal_values_rank_by_index():
    assert ascending_ranks(np.array([2.0, 1.0, 2.0, 0.0])).tolist() == [2, 1, 3, 0]
