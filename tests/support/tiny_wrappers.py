"""Tiny random multimodal models around a language model of a known family."""

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)

_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_TEXT = {**_SIZES, "intermediate_size": 48, "vocab_size": 96, "num_key_value_heads": 2, "head_dim": 8}
_VISION = {**_SIZES, "intermediate_size": 40, "image_size": 28, "patch_size": 14}


def _gemma3() -> PreTrainedModel:
    """Its wrapper leaves out the soft cap that its language model alone applies."""
    special = dict.fromkeys(("image_token_index", "boi_token_index", "eoi_token_index"), 90)
    text = {**_TEXT, "final_logit_softcapping": 0.7}
    config = Gemma3Config(text_config=text, vision_config=_VISION, mm_tokens_per_image=4, **special)
    return Gemma3ForConditionalGeneration(config)


def _llava() -> PreTrainedModel:
    text = {"model_type": "llama", **_TEXT}
    vision = {"model_type": "clip_vision_model", "projection_dim": 32, **_VISION}
    return LlavaForConditionalGeneration(
        LlavaConfig(text_config=text, vision_config=vision, image_token_id=90)
    )


_BUILDERS = {"gemma3": _gemma3, "llava": _llava}
TINY_WRAPPERS = list(_BUILDERS)


def tiny_wrapper(name: str, *, seed: int = 0) -> PreTrainedModel:
    """A random float32 model in eval mode; token ids from 90 on stand for images."""
    torch.manual_seed(seed)
    return _BUILDERS[name]().eval()
