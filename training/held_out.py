"""Bits per byte of a model folder on held-out novels, in packed blocks of 512.

    python training/held_out.py MODEL novels-calibration.txt.xz novels-evaluation.txt.xz

Books are tokenized one by one without special tokens and joined by EOS; the stream is cut to pieces of
511 tokens with BOS in front, a last short piece is dropped, every target counts. All nats are divided by
the bytes of the targets' text: separators count their nats and no bytes.
"""

import argparse
import math
from collections.abc import Iterable

import numpy as np
import torch
from novels import BOOK_SEPARATOR, encode, read_text, token_bytes
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

BLOCK = 512
JUDGED_BYTES = 6_000_000


def split_held_out(files: Iterable[str]) -> tuple[str, str]:
    """The files joined: the first 6 MB, to judge by once, and the rest, to choose settings by."""
    joined = BOOK_SEPARATOR.join(read_text(file) for file in files).encode()
    judged, rest = joined[:JUDGED_BYTES], joined[JUDGED_BYTES:]
    return judged.decode(errors="ignore"), rest.decode(errors="ignore")


def pack(text: str, tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """int32 [n, 512], BOS in front of each."""
    stream = encode(text.split(BOOK_SEPARATOR), tokenizer)
    pieces = stream[: len(stream) // (BLOCK - 1) * (BLOCK - 1)].reshape(-1, BLOCK - 1)
    return np.insert(pieces, 0, tokenizer.bos_token_id, axis=1)


@torch.no_grad()
def nats_and_bytes(
    model: PreTrainedModel, blocks: np.ndarray, num_bytes_V: np.ndarray, batch: int = 16
) -> tuple[float, int]:
    """Summed loss of every target (nats, float64 over float32 losses) and the bytes they stand for."""
    nats = 0.0
    for rows in np.array_split(blocks, math.ceil(len(blocks) / batch)):
        ids_BT = torch.from_numpy(rows).long().to(model.device)
        logits_BTV = model(ids_BT, use_cache=False).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(
            logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="none"
        )
        nats += losses.double().sum().item()
    return nats, int(num_bytes_V[blocks[:, 1:]].sum())


def bits_per_byte(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str) -> dict[str, float]:
    blocks = pack(text, tokenizer)
    nats, num_bytes = nats_and_bytes(model, blocks, token_bytes(tokenizer))
    tokens = blocks.shape[0] * (BLOCK - 1)
    return {
        "bits_per_byte": nats / math.log(2) / num_bytes,
        "nats_per_token": nats / tokens,
        "tokens": tokens,
        "bytes": num_bytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--part", choices=["judged", "rest"], default="judged")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).to(device).eval()
    judged, rest = split_held_out(args.files)
    found = bits_per_byte(
        model, AutoTokenizer.from_pretrained(args.model), judged if args.part == "judged" else rest
    )
    print(" ".join(f"{name}={value:.6g}" for name, value in found.items()))


if __name__ == "__main__":
    main()
