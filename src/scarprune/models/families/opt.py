"""OPT: the two matrices lie in the layer itself, and see inputs flattened to [B T, d]."""

from scarprune.models.family import Family, register_family

register_family(
    Family(
        name="opt",
        description="OPT",
        model_types=("opt",),
        kind="plain",
        layers="model.decoder.layers",
        up="fc1",
        down="fc2",
        width_key="ffn_dim",
    )
)
