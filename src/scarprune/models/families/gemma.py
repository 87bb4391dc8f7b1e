"""Gemma: a gated network with GELU; from Gemma 2 on logits may be softly capped."""

from scarprune.models.family import Family, register_family

_SOFTCAP = "final_logit_softcapping"
_KIN = {
    "gemma": ("Gemma", None),
    "gemma2": ("Gemma 2", _SOFTCAP),
    "gemma3_text": ("Gemma 3, also the language model inside the multimodal ones", _SOFTCAP),
}

for _name, (_description, _softcap_key) in _KIN.items():
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
            softcap_key=_softcap_key,
        )
    )
