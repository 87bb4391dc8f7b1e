"""A score of your own, through the door that the built-in ones use: high means keep."""

import numpy as np

import scarprune as sp
from scarprune.scores.score import Score


def geometric_mean(profile, bands):
    loss, power = sp.score(profile, "loss_proxy", bands), sp.score(profile, "activation_power", bands)
    return {site: np.sqrt(loss[site] * power[site]) for site in loss}


sp.register_score(
    Score(
        name="loss_times_power",
        formula="root of (loss_proxy_i * activation_power_i)",
        unit="",
        source="this example",
        needs=("sum_q2", "sum_u2"),
        compute=geometric_mean,
        labels="data",
    )
)

model, tokenizer = sp.load_model("demo")
profile = sp.profile_model(model, sp.read_blocks("demo", tokenizer, count=8, length=128), redundancy=False)
plan = sp.make_plan(profile, score="loss_times_power", sparsity=0.5)
print(f"{plan.score}: keeps {plan.width} channels of each site")
