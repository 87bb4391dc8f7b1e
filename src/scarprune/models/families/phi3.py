"""Phi-3 and GLM: gate and up in one ``gate_up_proj``, the gate's rows first."""

from scarprune.models.family import Family, register_family

for _name, _description in {"phi3": "Phi-3, Phi-3.5 and Phi-4", "glm": "GLM-4", "glm4": "GLM-4-0414"}.items():
    register_family(
        Family(
            name=_name,
            description=_description,
            model_types=(_name,),
            kind="fused",
            layers="model.layers",
            gate="mlp.gate_up_proj",
            up="mlp.gate_up_proj",
            down="mlp.down_proj",
        )
    )
