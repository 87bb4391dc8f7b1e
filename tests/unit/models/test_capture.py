"""Masks while a CUDA graph is captured: plain ones, and no question that only the device can answer."""

import pytest
import torch
from transformers import masking_utils

from scarprune.models.capture import plain_causal_masks
from support.tiny_models import tiny_model


class Unasked(torch.Tensor):
    """A mask that cannot be asked for a value, as while a graph is captured."""

    def __bool__(self) -> bool:
        raise RuntimeError("operation not permitted when stream is capturing")


def test_a_mask_that_is_none_is_plain_and_one_that_is_there_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(masking_utils, "is_tracing", lambda tensor=None: True)  # as while capturing
    config = tiny_model("llama").config
    config._attn_implementation = "sdpa"
    given = {"config": config, "inputs_embeds": torch.zeros(2, 5, 32), "past_key_values": None}
    padding = torch.ones(2, 5).as_subclass(Unasked)
    with plain_causal_masks():
        assert masking_utils.create_causal_mask(attention_mask=None, **given) is None
        mask = masking_utils.create_causal_mask(attention_mask=padding, **given)
    assert torch.equal(mask.as_subclass(torch.Tensor)[0, 0], torch.ones(5, 5).tril().bool())
