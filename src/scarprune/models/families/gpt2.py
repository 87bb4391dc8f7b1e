"""GPT-2: two Conv1D, stored transposed; ``n_inner: null`` in its config means 4 d."""

from scarprune.models.family import Family, register_family

register_family(
    Family(
        name="gpt2",
        description="GPT-2 and GPT-SW3",
        model_types=("gpt2", "gpt-sw3"),
        kind="conv1d",
        layers="transformer.h",
        up="mlp.c_fc",
        down="mlp.c_proj",
        width_key="n_inner",
    )
)
