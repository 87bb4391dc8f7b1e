r"""Train scarprune's built-in model: a Llama of 7.3 million parameters on public-domain novels.

    python training/train.py novels-train.txt.xz OUT \
        --held-out novels-calibration.txt.xz novels-evaluation.txt.xz

OUT is a folder that stock transformers loads. Read this file from top to bottom: text, model, training.
Shapes: B blocks, T tokens, D hidden, V vocabulary.
"""

import argparse
import copy
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from held_out import bits_per_byte, split_held_out
from muon import Muon
from novels import BOOK_SEPARATOR, encode, read_text, train_tokenizer
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

BLOCK = 512
SHAPE = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
STEPS = 18_000  # of 128 x 512 tokens
RATE = 8e-3  # of both optimizers; Muon's updates are scaled to the size of Adam's
WEIGHT_DECAY = 0.2
DROPOUT = 0.1
WARM_UP = 200
STARTED = time.perf_counter()


def build_model(bos_id: int, eos_id: int) -> LlamaForCausalLM:
    config = LlamaConfig(**SHAPE, bos_token_id=bos_id, eos_token_id=eos_id, attn_implementation="sdpa")
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(bos_token_id=bos_id, eos_token_id=eos_id, pad_token_id=eos_id)
    return model


def add_dropout(model: LlamaForCausalLM, rate: float) -> None:
    """Dropout of what enters the residual stream, in training mode only; nothing of it is saved."""

    def drop(module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return functional.dropout(output, rate, module.training)

    model.model.embed_tokens.register_forward_hook(drop)
    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_hook(drop)
        layer.mlp.down_proj.register_forward_hook(drop)


def loss_of(model: LlamaForCausalLM, ids_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Mean loss in nats.

    The layers are called one by one because transformers builds a whole mask while compiling, which keeps
    the attention kernel from its fast causal path.
    """
    positions = torch.arange(ids_BT.shape[1], device=ids_BT.device)[None]
    x_BTD = model.model.embed_tokens(ids_BT)
    rotary = model.model.rotary_emb(x_BTD, position_ids=positions)
    for layer in model.model.layers:
        x_BTD = layer(x_BTD, attention_mask=None, position_ids=positions, position_embeddings=rotary)
    logits_BTV = model.lm_head(model.model.norm(x_BTD)).float()
    return functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def batches(stream: torch.Tensor, bos_id: int, batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Without end, (ids [B, T], targets [B, T]): each pass cuts at another offset and shuffles the blocks.

    BOS stands at position 0 of every block, and the last token of a block is a target only.
    """
    within = torch.arange(BLOCK, device=stream.device)
    while True:
        offset = int(torch.randint(BLOCK, ()))
        count = (len(stream) - offset) // BLOCK
        if count < batch:
            raise SystemExit(f"The text has {len(stream)} tokens, too few for {batch} blocks of {BLOCK}.")
        for chosen in torch.randperm(count)[: count // batch * batch].split(batch):
            starts = offset + BLOCK * chosen.to(stream.device)
            targets_BT = stream[starts[:, None] + within].long()
            ids_BT = targets_BT.roll(1, dims=1)
            ids_BT[:, 0] = bos_id
            yield ids_BT, targets_BT


def rate_at(step: int, steps: int) -> float:
    """Linear warm-up, then a straight line to zero."""
    return RATE * min((step + 1) / WARM_UP, 1 - step / steps)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def optimizers(model: LlamaForCausalLM) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the matrices of the layers; AdamW for the embedding and, without decay, the norms."""
    muon = Muon([p for p in model.model.layers.parameters() if p.ndim == 2], WEIGHT_DECAY)
    embedding = {"params": [model.model.embed_tokens.weight], "weight_decay": WEIGHT_DECAY}
    norms = {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}
    return muon, torch.optim.AdamW([embedding, norms], betas=(0.9, 0.95))


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    stream: torch.Tensor,
    rest: str,
    args: argparse.Namespace,
) -> None:
    """All steps; prints a line every 500 and at each checkpoint, there with bits per byte on ``rest``."""
    device = model.device.type
    autocast = torch.autocast(device, torch.bfloat16, enabled=device == "cuda")
    compiled = torch.compile(loss_of) if device == "cuda" else loss_of
    muon, adam = optimizers(model)
    marks = set(np.geomspace(min(10, args.steps), args.steps, args.checkpoints).astype(int).tolist())
    data = batches(stream, tokenizer.bos_token_id, args.batch)
    losses: list[torch.Tensor] = []
    print("step\ttokens\tseconds\ttraining_nats\tbits_per_byte_rest", flush=True)
    for step in range(1, args.steps + 1):
        ids_BT, targets_BT = next(data)
        with autocast:
            loss = compiled(model, ids_BT, targets_BT)
        loss.backward()
        muon.rate = rate_at(step - 1, args.steps)
        for group in adam.param_groups:
            group["lr"] = muon.rate
        muon.step()
        adam.step()
        model.zero_grad()
        losses.append(loss.detach())
        if step % 500 == 0 or step in marks or step == args.steps:
            row = [step, step * args.batch * BLOCK, f"{time.perf_counter() - STARTED:.1f}"]
            row.append(f"{torch.stack(losses).mean().item():.4f}")
            losses.clear()
            if step in marks:
                save(model, tokenizer, args.out / "checkpoints" / f"step-{step:06d}")
            if rest and (step in marks or step == args.steps):
                with autocast:
                    row.append(f"{bits_per_byte(model.eval(), tokenizer, rest)['bits_per_byte']:.4f}")
                model.train()
            print(*row, sep="\t", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", help="books separated by three newlines, .txt or .txt.xz")
    parser.add_argument("out", type=Path)
    parser.add_argument("--held-out", nargs="+", default=[], metavar="FILE")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=128, help="blocks of a step")
    parser.add_argument("--checkpoints", type=int, default=0, help="log-spaced ones, in OUT/checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)

    books = read_text(args.text).split(BOOK_SEPARATOR)
    tokenizer = train_tokenizer(books, SHAPE["vocab_size"])
    stream = torch.from_numpy(encode(books, tokenizer)).to(device)
    judged, rest = split_held_out(args.held_out)
    print(f"# {len(books)} books, {len(stream):,} tokens, {time.perf_counter() - STARTED:.0f} s", flush=True)

    model = build_model(tokenizer.bos_token_id, tokenizer.eos_token_id).to(device).train()
    add_dropout(model, DROPOUT)
    print(f"# {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    train(model, tokenizer, stream, rest, args)
    save(model, tokenizer, args.out)
    if judged:  # what was saved, as a user loads it, in float32
        saved = AutoModelForCausalLM.from_pretrained(args.out, dtype=torch.float32).to(device).eval()
        found = bits_per_byte(saved, AutoTokenizer.from_pretrained(args.out), judged)
        print("# first 6 MB:", *(f"{name}={value:.6g}" for name, value in found.items()))
    print(f"# {time.perf_counter() - STARTED:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
