"""Llama and those that kept its feed-forward network: gate_proj, up_proj, down_proj."""

from scarprune.models.family import Family, register_family

_DESCRIPTIONS = {
    "llama": "Llama 2 and 3, SmolLM2, Yi and others of that architecture",
    "mistral": "Mistral 7B and its relatives",
    "qwen2": "Qwen 1.5, 2 and 2.5, dense",
    "qwen3": "Qwen 3, dense",
    "olmo": "OLMo",
    "olmo2": "OLMo 2",
    "olmo3": "OLMo 3",
    "stablelm": "StableLM",
    "smollm3": "SmolLM 3",
    "exaone4": "EXAONE 4",
}

for _name, _description in _DESCRIPTIONS.items():
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
        )
    )
