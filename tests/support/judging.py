"""Judging a compensation as a whole: tiny models on little text would do it by luck."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from scarprune.cut.compensate import apply


def every_step_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each step of a compensation look better than the one before."""
    losses: Iterator[float] = iter(range(1000, 0, -1))

    def judged(*_: Any) -> SimpleNamespace:
        return SimpleNamespace(nats_per_token=float(next(losses)))

    monkeypatch.setattr(apply, "perplexity", judged)
