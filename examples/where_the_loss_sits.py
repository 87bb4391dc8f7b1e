"""Where a model's loss sits: what its core holds, and whether large activations would have found it."""

import numpy as np

import scarprune as sp

model, tokenizer = sp.load_model("demo")
profile = sp.profile_model(model, sp.read_blocks("demo", tokenizer, count=16, length=128), redundancy=False)

loss, power, core = sp.score(profile, "loss_proxy"), sp.score(profile, "activation_power"), sp.core(profile)
for site in profile.sites:
    members = core[site.name]
    share = loss[site.name][members].sum() / loss[site.name].sum()
    loudest = np.argsort(-power[site.name])[: len(members)]
    common = len(np.intersect1d(members, loudest))
    print(
        f"layer {site.layer}: {len(members)} of {site.width} channels hold {share:.1%} of the loss proxy; "
        f"{common} of them are among the {len(members)} with the largest activations"
    )
