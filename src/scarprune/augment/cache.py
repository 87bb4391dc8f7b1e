"""Keys and values in memory that is taken once: growing them by a token would copy all of them."""

from functools import partial
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer


class _Roomy(DynamicLayer):  # type: ignore[misc]
    """Keys and values [B, heads, up to ``length``, size] of one layer."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length
        self._room: tuple[torch.Tensor, ...] = ()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put those of the next tokens behind the others; gives all so far."""
        given, begin = (key_states, value_states), self.get_seq_length()
        if not self._room:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self._room = tuple(s.new_empty((*s.shape[:2], self._length, s.shape[3])) for s in given)
        end = begin + key_states.shape[2]
        for room, states in zip(self._room, given, strict=True):
            room[:, :, begin:end] = states
        self.keys, self.values = (room[:, :, :end] for room in self._room)
        return self.keys, self.values


def roomy_cache(length: int) -> Cache:
    """An empty cache for ``length`` tokens of any batch."""
    return Cache(layer_class_to_replicate=partial(_Roomy, length))
