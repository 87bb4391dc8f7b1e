import scarprune as sp

model, tokenizer = sp.load_model("demo")  # or a folder, a hub id, a .gguf file
text = sp.read_blocks("demo:evaluation", tokenizer, count=16, length=256)
profile = sp.profile_model(model, sp.read_blocks("demo", tokenizer, count=16, length=256))
plan = sp.make_plan(profile, score="scar_prot", sparsity=0.3)
before, report, after = sp.perplexity(model, text), sp.prune_model(model, plan), sp.perplexity(model, text)
sp.save_model(model, tokenizer, "demo-small", plan=plan)

print(f"{report.parameters_before:,} -> {report.parameters_after:,} parameters")
print(f"perplexity {before.perplexity:.1f} -> {after.perplexity:.1f}")
