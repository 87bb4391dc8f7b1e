"""Does scarprune agree with an independent measurement? Loss proxy, perplexity, and what cutting costs.

    python benchmarks/agreement.py MODEL CALIBRATION.npy EVALUATION.npy [--exact-blocks 4] [--out FOLDER]

The independent route is plain autograd with retained gradients, one block at a time, in float32 and in
float64, and stock transformers' own loss; it shares no code with scarprune. ``benchmarks/make_blocks.py``
makes the token blocks of the protocol that docs/results.md states.
"""

import argparse
import copy
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

import scarprune as sp
from record import RECORDS, write_record

SCORES = (
    "loss_proxy",
    "activation_power",
    "wanda",
    "wanda_down",
    "output_power",
    "flap_wifv",
    "taylor",
    "scar_prot",
)
SPARSITIES = (0.2, 0.5, 0.7)


def brute_force_loss_proxy(model, names, ids, dtype) -> dict[str, np.ndarray]:
    """1/2 * mean over targets of (u s)^2 for every channel: nothing shared with scarprune."""
    model = copy.deepcopy(model).to(dtype)
    total = dict.fromkeys(names, 0.0)
    for row in ids:
        kept = {}

        def keep(module, args, kept=kept):
            u = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
            u.retain_grad()
            kept[module] = u
            return (u,)

        modules = {name: model.get_submodule(name) for name in names}
        handles = [module.register_forward_pre_hook(keep) for module in modules.values()]
        tokens = torch.from_numpy(row).to(model.device)[None]
        logits = model(input_ids=tokens, use_cache=False).logits[0, :-1]
        F.cross_entropy(logits, tokens[0, 1:], reduction="sum").backward()
        for handle in handles:
            handle.remove()
        for name, module in modules.items():
            u = kept[module]
            total[name] = total[name] + (u.detach() * u.grad)[0].double().square().sum(0).cpu().numpy()
    targets = len(ids) * (ids.shape[1] - 1)
    return {name: 0.5 * value / targets for name, value in total.items()}


@torch.no_grad()
def stock_perplexity(model, ids) -> float:
    """exp of the mean of the loss that transformers itself computes."""
    losses = []
    for row in ids:
        tokens = torch.from_numpy(row).to(model.device)[None]
        losses.append(model(input_ids=tokens, labels=tokens, use_cache=False).loss.double().item())
    return math.exp(sum(losses) / len(losses))


@torch.no_grad()
def masked_against_cut(model, plan, row) -> float:
    """Largest absolute difference of logits: the masked model, and the cut one reloaded by transformers."""
    tokens = torch.from_numpy(row).to(model.device)[None]
    with sp.masked(model, plan):
        masked = model(input_ids=tokens, use_cache=False).logits
    small = copy.deepcopy(model)
    sp.prune_model(small, plan)
    with tempfile.TemporaryDirectory() as folder:
        sp.save_model(small, None, Path(folder) / "cut", save_dtype="float32")
        again = AutoModelForCausalLM.from_pretrained(Path(folder) / "cut", dtype=torch.float32).to(
            model.device
        )
    cut = again(input_ids=tokens, use_cache=False).logits
    return float((masked - cut).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("calibration", type=Path)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--exact-blocks", type=int, default=4)
    parser.add_argument(
        "--blocks", type=int, help="calibrate and evaluate on fewer blocks than the files hold"
    )
    parser.add_argument("--out", type=Path, default=RECORDS)
    arguments = parser.parse_args()
    model, _ = sp.load_model(arguments.model, dtype="float32")
    torch.backends.cuda.matmul.allow_tf32 = False
    calibration = sp.read_blocks(arguments.calibration, None, count=arguments.blocks)
    evaluation = sp.read_blocks(arguments.evaluation, None, count=arguments.blocks)

    few = calibration.take(np.arange(arguments.exact_blocks))
    profile = sp.profile_model(model, few, redundancy=False)
    found = sp.score(profile, "loss_proxy")
    agreement = {}
    for dtype in (torch.float32, torch.float64):
        exact = brute_force_loss_proxy(model, list(found), few.ids, dtype)
        errors = np.concatenate([np.abs(found[name] / exact[name] - 1) for name in found])
        totals = [abs(found[name].sum() / exact[name].sum() - 1) for name in found]
        agreement[str(dtype).removeprefix("torch.")] = {
            "channels_within_1e-4": float((errors < 1e-4).mean()),
            "largest_relative_error": float(errors.max()),
            "largest_relative_error_of_a_site": float(max(totals)),
        }
    print(f"loss proxy against brute force, {len(few)} blocks: {agreement}", flush=True)

    began = time.perf_counter()
    profile = sp.profile_model(model, calibration, labels="both")
    profile_seconds = time.perf_counter() - began
    lp = sp.score(profile, "loss_proxy")
    core = sp.core(profile)
    shares = sorted(float(lp[name][core[name]].sum() / lp[name].sum()) for name in lp)
    middle = float(np.median(shares))
    print(f"profile in {profile_seconds:.1f} s; core share {middle:.4f}, {shares[0]:.3f} to {shares[-1]:.3f}")

    dense = sp.perplexity(model, evaluation)
    stock = stock_perplexity(model, evaluation.ids)
    print(f"dense perplexity {dense.perplexity:.4f}, stock transformers {stock:.4f}")
    excess = {}
    available = [*SCORES, "fisher", "block_fisher", "fisher_activation"]
    for name in dict.fromkeys([*available, "random", "random+core"]):
        score, _, protected = name.partition("+")
        for sparsity in SPARSITIES:
            plan = sp.make_plan(
                profile, score, sparsity=sparsity, protect="core" if protected else None, multiple_of=1
            )
            with sp.masked(model, plan):
                cut = sp.perplexity(model, evaluation)
            excess.setdefault(name, {})[str(sparsity)] = cut.nats_per_token - dense.nats_per_token
        row = "  ".join(f"{value:7.3f}" for value in excess[name].values())
        print(f"{name:22}{row}", flush=True)
    plan = sp.make_plan(profile, "loss_proxy", sparsity=0.5, multiple_of=1)
    difference = masked_against_cut(model, plan, evaluation.ids[0, :128])
    print(f"masked against cut and reloaded, largest logit difference {difference:.2e}")
    write_record(
        f"agreement_{Path(arguments.model).stem.lower()}",
        "agreement with an independent measurement, and excess (nats) by score without compensation, float32",
        tokens_per_second=2.5 * int(calibration.lengths.sum()) / profile_seconds,
        folder=arguments.out,
        loss_proxy=agreement,
        core_share={"median": middle, "min": shares[0], "max": shares[-1]},
        dense_perplexity=dense.perplexity,
        stock_perplexity=stock,
        excess=excess,
        masked_against_cut=difference,
        blocks={
            "calibration": len(calibration),
            "evaluation": len(evaluation),
            "exact": arguments.exact_blocks,
        },
    )


if __name__ == "__main__":
    main()
