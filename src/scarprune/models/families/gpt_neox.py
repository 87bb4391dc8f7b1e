"""GPT-NeoX and Falcon: ``dense_h_to_4h``, ``dense_4h_to_h``."""

from scarprune.models.family import Family, register_family

register_family(
    Family(
        name="gpt_neox",
        description="GPT-NeoX, Pythia",
        model_types=("gpt_neox",),
        kind="plain",
        layers="gpt_neox.layers",
        up="mlp.dense_h_to_4h",
        down="mlp.dense_4h_to_h",
    )
)
register_family(
    Family(
        name="falcon",
        description="Falcon, of the old and the new decoder architecture",
        model_types=("falcon",),
        kind="plain",
        layers="transformer.h",
        up="mlp.dense_h_to_4h",
        down="mlp.dense_4h_to_h",
        width_key="ffn_hidden_size",
    )
)
