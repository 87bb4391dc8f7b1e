"""What a cut model learns from, the dense model's own words among it, and what it is judged by."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from scarprune.augment.own_text import own_text
from scarprune.errors import ArgumentError, ArtifactError, UnsupportedModelError
from scarprune.models.fingerprint import fingerprint_model
from scarprune.models.forward import input_device
from scarprune.runtime.progress import duration, remark
from scarprune.runtime.ranks import Ranks
from scarprune.text.blocks import Blocks
from scarprune.text.hold_out import hold_out

OwnBlocks = int | Literal["auto"]

# How many blocks ``auto`` is on a GPU: what training reads a few times. Elsewhere a model writes too slowly.
FOR_REFIT, FOR_HEAL = 2000, 8000


@dataclass(frozen=True)
class Lesson:
    """What is learned from, and what judges.

    Attributes:
        text: to learn from.
        held_out: the end of the calibration text, to judge by.
        own: how many blocks of ``text`` go on in the dense model's own words.
    """

    text: Blocks
    held_out: Blocks
    own: int


def lesson(
    model: Any,
    tokenizer: Any | None,
    blocks: Blocks,
    own: OwnBlocks,
    seed: int,
    *,
    auto: int = FOR_REFIT,
    seconds: float | None = None,
    keep: Path | None = None,
    ranks: Ranks | None = None,
) -> Lesson:
    """Hold out the end of ``blocks``; add ``own`` blocks that the dense ``model`` writes from the others.

    Args:
        model: dense.
        tokenizer: its own.
        blocks: calibration text.
        own: how many blocks more.
        seed: of what is written.
        auto: what ``auto`` stands for on a GPU; elsewhere it is none.
        seconds: of training; where ``auto`` has taken as long to write, the rest is not written.
        keep: file where what is written is kept, and read from where it is there: a GPU does not write the
            same text twice.
        ranks: processes that learn together; all get what the first one has written.

    Raises:
        TextError: fewer than two blocks.
        ArtifactError: ``keep`` was written for another number, seed or text, or by another model.
        UnsupportedModelError: a number was asked for, and the model cannot write.
        MemoryBudgetError: not even one row of text fits.
    """
    check_own(own)
    text, held = hold_out(blocks)
    count = own
    if count == "auto":
        count = auto if input_device(model).type == "cuda" else 0
    if not count:
        return Lesson(text, held, 0)
    of = [blocks.fingerprint, fingerprint_model(model)] if keep is not None else []
    if keep is not None and keep.exists():
        return _read(keep, (count, seed), of, text, held)
    ranks, began = ranks or Ranks(), time.perf_counter()
    # All in one go, the end of the text too: it takes as many steps as a block has tokens, however many rows.
    try:
        whole = own_text(
            model,
            blocks,
            count,
            tokenizer=tokenizer,
            begun_by=len(text),
            seed=seed,
            seconds=seconds if own == "auto" else None,
        )
    except UnsupportedModelError as reason:
        if own != "auto":
            raise
        remark(f"Nothing is learned from but the text itself: {reason.message}")
        return Lesson(text, held, 0)
    whole = _of_first(ranks, whole)
    wrote = len(whole) - len(blocks)
    rows = np.arange(len(whole))
    held_rows = (rows >= len(text)) & (rows < len(blocks))
    text, held = whole.take(rows[~held_rows]), whole.take(rows[held_rows])
    spent = duration(time.perf_counter() - began)
    remark(f"{wrote:,} blocks more to learn from, in the dense model's own words: {spent} (--own-text).")
    if keep is not None and ranks.first:
        _write(keep, (count, seed), of, text, held)
    return Lesson(text, held, wrote)


def _write(keep: Path, asked: tuple[int, int], of: list[str], text: Blocks, held: Blocks) -> None:
    """Keep what was written, with the ``asked`` number of blocks and seed, for the text and model ``of``."""
    growing = keep.with_name(f"growing-{keep.name}")  # whole or not at all
    np.savez(
        growing,
        asked=np.array(asked),
        of=np.array(of),
        text=text.ids,
        text_lengths=text.lengths,
        held=held.ids,
        held_lengths=held.lengths,
    )
    growing.replace(keep)


def _read(keep: Path, asked: tuple[int, int], of: list[str], text: Blocks, held: Blocks) -> Lesson:
    """What was written from ``text`` and ``held`` before.

    Raises:
        ArtifactError: it was written for something else.
    """
    again = "Begin again without --resume, or ask for the same."
    with np.load(keep, allow_pickle=False) as kept:
        for what, there, here in zip(("text", "model"), kept["of"].tolist(), of, strict=True):
            if there != here:
                wrong = f"{keep} holds own text of another {what}: {there[:16]}, not {here[:16]}."
                raise ArtifactError(wrong, hint=again)
        (blocks_there, seed_there), (count, seed) = kept["asked"].tolist(), asked
        if (blocks_there, seed_there) != asked:
            wrong = f"{blocks_there} blocks of own text of seed {seed_there}, not {count} of seed {seed}"
            raise ArtifactError(f"{keep} holds {wrong}.", hint=again)
        learned = _as_kept(text, kept, "text")
        return Lesson(learned, _as_kept(held, kept, "held"), len(learned) - len(text))


def _as_kept(blocks: Blocks, kept: Any, name: str) -> Blocks:
    return replace(
        blocks,
        ids=kept[name],
        lengths=kept[f"{name}_lengths"],
        bytes=None,
        documents=None,
        protocol="tokens",
    )


def _of_first(ranks: Ranks, blocks: Blocks) -> Blocks:
    """What the first process has written."""
    count = int(ranks.agree(len(blocks)))  # the others may have had time for more or for fewer
    ids, lengths = np.zeros((count, blocks.ids.shape[1]), dtype=np.int64), np.zeros(count, dtype=np.int64)
    if ranks.first:
        ids[:], lengths[:] = blocks.ids, blocks.lengths
    for array in (ids, lengths):
        ranks.hand_out(torch.from_numpy(array))
    return replace(blocks, ids=ids, lengths=lengths)


def check_own(own: OwnBlocks) -> None:
    """Refuse a number of blocks that cannot be.

    Raises:
        ArgumentError: it is negative.
    """
    if own != "auto" and own < 0:
        raise ArgumentError(f"{own} blocks of own text cannot be written.", hint="Use auto, 0 or more.")
