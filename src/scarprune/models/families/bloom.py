"""BLOOM and MPT: transformers' code fixes the width at four times the hidden size."""

from scarprune.models.family import Family, register_family

_FIXED = (
    "its code fixes the feed-forward width at 4 times the hidden size, so no config can describe a cut model"
)

register_family(
    Family(
        name="bloom",
        description="BLOOM; masks only",
        model_types=("bloom",),
        kind="plain",
        layers="transformer.h",
        up="mlp.dense_h_to_4h",
        down="mlp.dense_4h_to_h",
        width_fixed=_FIXED,
    )
)
register_family(
    Family(
        name="mpt",
        description="MPT; masks only",
        model_types=("mpt",),
        kind="plain",
        layers="transformer.blocks",
        up="ffn.up_proj",
        down="ffn.down_proj",
        width_fixed=_FIXED,
    )
)
