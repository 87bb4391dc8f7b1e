"""GPT-J and GPT-Neo: plain networks whose width is null in the config where it is 4 d."""

from scarprune.models.family import Family, register_family

register_family(
    Family(
        name="gptj",
        description="GPT-J",
        model_types=("gptj",),
        kind="plain",
        layers="transformer.h",
        up="mlp.fc_in",
        down="mlp.fc_out",
        width_key="n_inner",
    )
)
register_family(
    Family(
        name="gpt_neo",
        description="GPT-Neo",
        model_types=("gpt_neo",),
        kind="plain",
        layers="transformer.h",
        up="mlp.c_fc",
        down="mlp.c_proj",
    )
)
