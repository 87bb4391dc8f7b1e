"""Cohere: attention and feed-forward network side by side, logits times ``logit_scale``."""

from scarprune.models.family import Family, register_family

for _name, _description in {"cohere": "Command R", "cohere2": "Command R7B and Command A"}.items():
    register_family(
        Family(
            name=_name,
            description=_description,
            model_types=(_name,),
            kind="gated",
            layers="model.layers",
            gate="mlp.gate_proj",
            up="mlp.up_proj",
            down="mlp.down_proj",
            logit_scale_key="logit_scale",
        )
    )
