import time

import pytest
import torch

from scarprune.runtime import clock
from scarprune.runtime.clock import measure_ceiling, timed


def test_time_is_what_the_work_takes():
    seconds, result = timed(lambda: time.sleep(0.03) or "done", torch.device("cpu"))
    assert 0.03 <= seconds < 0.3
    assert result == "done"


def test_rates_count_two_operations_a_product_and_both_ways_of_a_copy(monkeypatch):
    monkeypatch.setattr(clock, "timed", lambda work, device: (0.5, work()))
    monkeypatch.setattr(clock, "_MATRIX", {"cpu": 16})
    monkeypatch.setattr(clock, "_COPIED_BYTES", {"cpu": 4096})
    found = measure_ceiling(torch.device("cpu"), torch.bfloat16)
    assert found.operations_per_second == pytest.approx(2 * 16**3 / 0.5)
    assert found.bytes_per_second == pytest.approx(2 * 4096 / 0.5)
