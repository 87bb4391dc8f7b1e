"""Budgets and the learning rate that follows them."""

import math

import pytest

from scarprune.distill.budget import Budget, make_budget, rate_factor
from scarprune.errors import ArgumentError


def test_tokens_are_rounded_up_to_whole_steps() -> None:
    assert make_budget(None, 1001, None, step_tokens=500) == Budget(3, None)


def test_the_first_limit_ends_it() -> None:
    budget = make_budget(10, 2000, 5.0, step_tokens=500)
    assert budget == Budget(4, 5.0)
    assert budget.ended(4, 0.0)
    assert budget.ended(0, 5.0)
    assert not budget.ended(3, 4.9)


def test_a_minute_where_nothing_is_asked_for() -> None:
    assert make_budget(None, None, None, 1) == Budget(None, 60.0)


@pytest.mark.parametrize(
    ("budget", "name"),
    [((0, None, None), "steps"), ((None, -5, None), "tokens"), ((None, None, 0.0), "seconds")],
)
def test_a_budget_that_is_not_positive_is_refused(budget: tuple, name: str) -> None:
    with pytest.raises(ArgumentError, match=f"budget of {name} must be positive"):
        make_budget(*budget, step_tokens=1)


def test_fraction_counts_the_time_from_the_first_step_on() -> None:
    budget = Budget(None, 60.0)
    assert budget.fraction(0, 20.0, began=20.0) == 0.0
    assert budget.fraction(9, 40.0, began=20.0) == pytest.approx(0.5)
    assert budget.fraction(9, 90.0, began=20.0) == 1.0


def test_fraction_of_steps_is_that_of_the_middle_of_a_step() -> None:
    assert Budget(4, None).fraction(0, 0.0, 0.0) == pytest.approx(1 / 8)
    assert Budget(4, None).fraction(3, 0.0, 0.0) == pytest.approx(7 / 8)


def test_rate_goes_up_in_a_line_and_down_in_a_cosine() -> None:
    assert rate_factor(0.0, 0.1) == 0.0
    assert rate_factor(0.05, 0.1) == pytest.approx(0.5)
    assert rate_factor(0.1, 0.1) == pytest.approx(1.0)
    assert rate_factor(0.4, 0.1) == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))  # a third of the way
    assert rate_factor(1.0, 0.1) == pytest.approx(0.0)
    assert rate_factor(0.0, 0.0) == 1.0
