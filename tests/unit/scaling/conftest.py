"""Sizes of tiny models and of published shapes, on the meta device."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from scarprune.models.shapes import SHAPES
from scarprune.pipeline.forecast import built
from scarprune.scaling.sizes import Sizes, sizes_of
from support.tiny_models import tiny_model


@cache
def _published(name: str) -> Sizes:
    return sizes_of(built(SHAPES[name].config()), itemsize=2)


@pytest.fixture
def published() -> Callable[[str], Sizes]:
    """``published("llama-3.1-8b")`` in bfloat16."""
    return _published


@pytest.fixture
def tiny_sizes() -> Callable[..., Sizes]:
    """``tiny_sizes("llama", **overrides)``: hidden 32, width 48, two layers."""

    def make(family: str, itemsize: int = 4, **overrides: object) -> Sizes:
        with torch.device("meta"):
            model = tiny_model(family, **overrides)
        return sizes_of(model, itemsize)

    return make
