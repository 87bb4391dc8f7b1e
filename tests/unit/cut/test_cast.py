"""Raw words change their dtype as torch does it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scarprune.cut.cast import DTYPES, cast, stored_dtype
from scarprune.errors import ArgumentError, NumericsError

TORCH = {stored_dtype(name): getattr(torch, name) for name in DTYPES}
INTS = {2: torch.int16, 4: torch.int32}


def words_of(tensor: torch.Tensor) -> np.ndarray:
    words = tensor.view(INTS[tensor.element_size()]).numpy()
    return words.view(f"u{words.itemsize}")


@given(st.lists(st.floats(-60000, 60000, width=32), min_size=1))
@pytest.mark.parametrize("old", TORCH)
@pytest.mark.parametrize("new", TORCH)
def test_casting_rounds_as_torch_does(old: str, new: str, values: list[float]) -> None:
    tensor = torch.tensor(values).to(TORCH[old])
    assert cast(words_of(tensor), old, new).tolist() == words_of(tensor.to(TORCH[new])).tolist()


def test_infinity_and_nan_stay_what_they_are() -> None:
    bits = np.array([0x7F800000, 0xFF800000, 0x7FFFFFFF, 0x7F800001], dtype=np.uint32)
    assert cast(bits, "F32", "BF16").tolist() == [0x7F80, 0xFF80, 0x7FFF, 0x7FC0]


def test_what_is_no_floating_number_is_left_alone() -> None:
    assert cast(np.array([5], dtype=np.uint64), "I64", "F16").tolist() == [5]


def test_too_large_for_float16_is_refused() -> None:
    with pytest.raises(NumericsError, match="100000 is too large for float16"):
        cast(np.array([1.0, 1e5], dtype=np.float32).view(np.uint32), "F32", "F16")


def test_an_unknown_dtype_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"'int8' is not a dtype .* Use float32, bfloat16, float16"):
        stored_dtype("int8")
