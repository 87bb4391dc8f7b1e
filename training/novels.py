"""Novels to token ids: reading, the tokenizer, and one long stream of books."""

import lzma
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOOK_SEPARATOR = "\n\n\n"
BOS, EOS = "<|bos|>", "<|eos|>"


def read_text(path: str) -> str:
    raw = Path(path).read_bytes()
    text = (lzma.decompress(raw) if path.endswith(".xz") else raw).decode()
    return text.replace("\r\n", "\n").replace("\r", "\n")


def train_tokenizer(books: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE; a text tokenized by itself begins with BOS, as Llama's tokenizers do."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        books,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[BOS, EOS],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bpe.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def encode(books: list[str], tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """int32 [tokens]: the books one by one, without special tokens, joined by EOS."""
    bpe = tokenizer.backend_tokenizer
    stream: list[np.ndarray] = []
    for encoding in bpe.encode_batch_fast(books, add_special_tokens=False):
        stream += [np.array(encoding.ids, dtype=np.int32), np.array([tokenizer.eos_token_id], dtype=np.int32)]
    return np.concatenate(stream[:-1])


def token_bytes(tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """int64 [V]: UTF-8 bytes of each token's text; BOS and EOS are none."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    # A byte-level token is written with one character per byte.
    return np.array([0 if token in (BOS, EOS) else len(token) for token in tokens], dtype=np.int64)
