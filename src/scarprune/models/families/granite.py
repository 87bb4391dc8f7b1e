"""Granite: Llama's feed-forward network, logits divided by ``logits_scaling``."""

from scarprune.models.family import Family, register_family

register_family(
    Family(
        name="granite",
        description="Granite, dense",
        model_types=("granite",),
        kind="gated",
        layers="model.layers",
        gate="mlp.gate_proj",
        up="mlp.up_proj",
        down="mlp.down_proj",
        logit_divisor_key="logits_scaling",
    )
)
