"""Phi-1 to Phi-2, StarCoder 2 and Nemotron: plain networks in ``model.layers``."""

from scarprune.models.family import Family, register_family

_KIN = {
    "phi": ("Phi-1, Phi-1.5 and Phi-2", "mlp.fc1", "mlp.fc2"),
    "starcoder2": ("StarCoder 2", "mlp.c_fc", "mlp.c_proj"),
    "nemotron": ("Nemotron and Minitron, with squared ReLU", "mlp.up_proj", "mlp.down_proj"),
}

for _name, (_description, _up, _down) in _KIN.items():
    register_family(
        Family(
            name=_name,
            description=_description,
            model_types=(_name,),
            kind="plain",
            layers="model.layers",
            up=_up,
            down=_down,
        )
    )
