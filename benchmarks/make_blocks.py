"""Token blocks of a fixed protocol: the whole file tokenized at once, pieces in order, BOS in front of each.

    python benchmarks/make_blocks.py MODEL TEXT OUT.npy [--blocks 128] [--length 512]

MODEL names the tokenizer (a folder, hub id or .gguf); TEXT may be packed with xz.
"""

import argparse
import lzma
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--blocks", type=int, default=128)
    parser.add_argument("--length", type=int, default=512)
    arguments = parser.parse_args()
    if arguments.model.suffix == ".gguf":
        tokenizer = AutoTokenizer.from_pretrained(arguments.model.parent, gguf_file=arguments.model.name)
    else:
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    opened = lzma.open if arguments.text.suffix == ".xz" else open
    with opened(arguments.text, "rt", encoding="utf-8", newline=None) as file:
        ids = tokenizer(file.read(), add_special_tokens=False)["input_ids"]
    step = arguments.length - 1
    count = min(arguments.blocks, len(ids) // step)
    pieces = np.array(ids[: count * step], dtype=np.int64).reshape(count, step)
    np.save(arguments.out, np.concatenate([np.full((count, 1), tokenizer.bos_token_id), pieces], axis=1))
    print(f"{count} blocks of {arguments.length} from {len(ids):,} tokens, BOS {tokenizer.bos_token_id}")


if __name__ == "__main__":
    main()
