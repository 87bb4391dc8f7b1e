"""A tiny random model of every family, built from its config: two layers, hidden 32, width 48."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY, HIDDEN, WIDTH, LAYERS, CONTEXT = 96, 32, 48, 2, 64

_MODERN: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_OWN_HEAD_DIM = {k: v for k, v in _MODERN.items() if k != "head_dim"}
_WINDOWED = {**_MODERN, "sliding_window": 16}
_GPT2_WORDS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": HIDDEN,
    "n_layer": LAYERS,
    "n_head": 4,
    "n_positions": CONTEXT,
    "n_inner": WIDTH,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

# Scales and caps of the logits are not neutral here, so that a head that forgets them is wrong.
_CONFIGS: dict[str, dict[str, Any]] = {
    "llama": _MODERN,
    "mistral": _WINDOWED,
    "qwen2": _OWN_HEAD_DIM,
    "qwen3": _MODERN,
    "gemma": _MODERN,
    "gemma2": {**_WINDOWED, "final_logit_softcapping": 0.5, "query_pre_attn_scalar": 8},
    "gemma3_text": {**_WINDOWED, "final_logit_softcapping": 0.7, "query_pre_attn_scalar": 8},
    "olmo": {**_OWN_HEAD_DIM, "clip_qkv": 8.0},
    "olmo2": _OWN_HEAD_DIM,
    "olmo3": {**_OWN_HEAD_DIM, "sliding_window": 16},
    "stablelm": {**_OWN_HEAD_DIM, "use_qkv_bias": True},
    "smollm3": _OWN_HEAD_DIM,
    "granite": {
        **_OWN_HEAD_DIM,
        "logits_scaling": 3.0,
        "residual_multiplier": 0.5,
        "embedding_multiplier": 2.0,
    },
    "cohere": {**_OWN_HEAD_DIM, "logit_scale": 0.25},
    "cohere2": {**_WINDOWED, "logit_scale": 0.25},
    "exaone4": {**_WINDOWED, "sliding_window_pattern": 2},
    "phi3": _OWN_HEAD_DIM,
    "glm": _MODERN,
    "glm4": _MODERN,
    "gpt_neox": _OWN_HEAD_DIM,
    "opt": {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "ffn_dim": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "word_embed_proj_dim": 24,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    },
    "phi": _OWN_HEAD_DIM,
    "gptj": {**_GPT2_WORDS, "rotary_dim": 4},
    "gpt_neo": {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "num_layers": LAYERS,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "intermediate_size": WIDTH,
        "max_position_embeddings": CONTEXT,
        "window_size": 16,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "falcon": {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "ffn_hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "starcoder2": _WINDOWED,
    "nemotron": _MODERN,
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "n_layer": LAYERS, "n_head": 4},
    "mpt": {
        "vocab_size": VOCABULARY,
        "d_model": HIDDEN,
        "n_layers": LAYERS,
        "n_heads": 4,
        "max_seq_len": CONTEXT,
    },
    "gpt2": _GPT2_WORDS,
}

TINY_FAMILIES = list(_CONFIGS)
# Their code computes the width as 4 d, so HIDDEN * 4 channels and no cut.
FIXED_WIDTH = ("bloom", "mpt")


def tiny_config(model_type: str, **overrides: Any) -> Any:
    """The config that ``tiny_model`` builds from; ``overrides`` win."""
    return AutoConfig.for_model(model_type, **{**_CONFIGS[model_type], **overrides})


def tiny_model(
    model_type: str, *, seed: int = 0, noise: float = 0.1, **config_overrides: Any
) -> PreTrainedModel:
    """A random float32 model in eval mode whose biases and norms are not neutral either.

    The larger the ``noise`` on its weights, the more of a rounding comes out at the other end.
    """
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(model_type, **config_overrides), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
    return model.eval()


def token_blocks(blocks: int = 4, length: int = 16, *, seed: int = 0) -> torch.Tensor:
    """int64 [blocks, length] of random token ids, BOS in front."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (blocks, length), generator=generator)
    ids[:, 0] = 1
    return ids
