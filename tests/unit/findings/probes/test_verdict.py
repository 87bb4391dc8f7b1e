"""The verdict follows from the numbers by the criterion, and from nothing else."""

import pytest

from scarprune.findings.probes.verdict import verdict
from scarprune.stats.weighted import win_rate


@pytest.mark.parametrize(
    ("wins", "of", "recall", "refuted"),
    [
        (36, 40, None, False),
        (24, 40, None, True),  # Wilson: 45% to 74%
        (4, 40, None, True),
        (9, 9, None, None),
        (0, 0, None, None),
        (36, 40, {"loss_proxy": 0.6, "activation_power": 0.5}, False),
        (36, 40, {"loss_proxy": 0.4, "activation_power": 0.5}, True),
        (0, 0, {"loss_proxy": 0.4, "activation_power": 0.5}, True),
    ],
)
def test_the_verdict(wins, of, recall, refuted):
    found = verdict(win_rate(wins, of), of, recall)
    assert found["refuted"] is refuted
    assert found["reason"]


def test_a_refutation_by_few_pairs_says_how_many_and_what_would_have_cleared_it():
    reason = verdict(win_rate(8, 12), 12, None)["reason"]
    assert "67% of 12 pairs (95% interval 39% to 86%)" in reason  # Wilson: 0.391 to 0.862
    assert "of 12 pairs 10 won would have cleared it" in reason  # Wilson: 9 gives 0.468, 10 gives 0.552
