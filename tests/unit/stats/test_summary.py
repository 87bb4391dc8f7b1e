import numpy as np
import pytest
from scipy.stats import sem

from scarprune.stats.summary import spread, standard_error


def test_spread_leaves_out_what_could_not_be_computed():
    assert spread([3.0, None, 0.0, 8.0, 4.0]).as_json() == {"median": 3.5, "min": 0.0, "max": 8.0}


def test_spread_of_nothing_is_null():
    assert spread([None]).as_json() == {"median": None, "min": None, "max": None}


def test_standard_error_agrees_with_scipy():
    values = np.random.default_rng(1).normal(size=17)
    assert standard_error(values) == pytest.approx(sem(values), rel=1e-12)


def test_one_value_has_no_standard_error():
    assert standard_error(np.array([2.0])) is None
