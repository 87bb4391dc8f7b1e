"""Floating dtypes into one another as raw words, since NumPy knows no bfloat16."""

import numpy as np

from scarprune.errors import ArgumentError, NumericsError

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def stored_dtype(name: str) -> str:
    """The safetensors name of a dtype.

    Raises:
        ArgumentError: not one that weights are saved in.
    """
    if name not in DTYPES:
        raise ArgumentError(
            f"{name!r} is not a dtype weights are saved in.", hint=f"Use {', '.join(DTYPES)}."
        )
    return DTYPES[name]


def cast(words: np.ndarray, old: str, new: str) -> np.ndarray:
    """``words`` of dtype ``old`` as words of ``new``, rounded to nearest even; other dtypes stay as they are.

    Raises:
        NumericsError: a finite number is too large for float16.
    """
    if old == new or old not in DTYPES.values():
        return words
    values = _widen(words, old)
    if new == "F32":
        return values.view(np.uint32)
    if new == "BF16":
        return _as_bfloat16(values.view(np.uint32))
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float16)
    lost = np.isinf(narrow) & np.isfinite(values)
    if lost.any():
        raise NumericsError(
            f"{values[lost][0]:g} is too large for float16.", hint="Save as bfloat16 or float32."
        )
    return narrow.view(np.uint16)


def _widen(words: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16":
        return (words.astype(np.uint32) << 16).view(np.float32)
    return words.view(np.float32) if dtype == "F32" else words.view(np.float16).astype(np.float32)


def _as_bfloat16(bits: np.ndarray) -> np.ndarray:
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    not_a_number = (bits & 0x7FFFFFFF) > 0x7F800000  # rounding could carry into the exponent
    return np.where(not_a_number, (bits >> 16) | 0x40, rounded).astype(np.uint16)
