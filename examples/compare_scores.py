"""What rankings are worth: perplexity without half of the channels, as masks, nothing cut."""

import scarprune as sp

model, tokenizer = sp.load_model("demo")
text = sp.read_blocks("demo:evaluation", tokenizer, count=8, length=128)
profile = sp.profile_model(model, sp.read_blocks("demo", tokenizer, count=16, length=128))

print(f"{'all channels':18} {sp.perplexity(model, text).perplexity:8.1f}")
for name in ("scar_prot", "loss_proxy", "activation_power", "wanda", "random"):
    with sp.masked(model, sp.make_plan(profile, score=name, sparsity=0.5)):
        print(f"{name:18} {sp.perplexity(model, text).perplexity:8.1f}")
