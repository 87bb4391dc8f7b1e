"""What the tests of several processes run in each of them: FOLDER PARTS DEVICE, or "dying" and a command."""

import contextlib
import functools
import gc
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scarprune.errors import ScarpruneError
from scarprune.evaluate.perplexity import perplexity
from scarprune.models.load import load_model
from scarprune.profile import passes, state
from scarprune.profile.run import profile_model
from scarprune.profile.sums import Profile
from scarprune.runtime.progress import set_quiet
from scarprune.runtime.ranks import ALONE, Ranks, find_ranks, joined
from scarprune.text.blocks import Blocks

# Channels divided, a tied head too, not divided, heads gathered between, and no plan.
FAMILIES = ("llama", "gemma2", "phi3", "olmo2", "gpt2")
_ALIKE = 8  # neighbouring blocks of one length, at least


def text() -> Blocks:
    """88 blocks of 12 tokens and of 7, from as many documents: of fewer tokens a sum is rounded by more."""
    lengths = np.repeat([12, 12, 12, 7, 7, 12, 12, 12, 12, 7, 7], _ALIKE)
    ids = np.random.default_rng(1).integers(3, 96, size=(len(lengths), 12))
    documents = np.repeat(np.arange(len(lengths))[:, None], 2, axis=1)
    return Blocks(ids, lengths, None, "tokens", "random tokens", documents=documents)


def measured(
    folder: Path, family: str, ranks: Ranks = ALONE, device: str = "cpu", resume: Path | None = None
) -> Profile:
    """The profile of one of the models in ``folder``, with all that several processes can measure."""
    model, _ = load_model(folder / family, "float32", device, ranks=ranks)
    asked = {
        "batch": 2 * _ALIKE,
        "labels": "both",
        "extras": ("entropy",),
        "seed": 3,
        "rho": 0.1,
        "resume": resume,
    }
    return profile_model(model, text(), ranks=ranks, **asked)  # type: ignore[arg-type]


def of_one_length(folder: Path, ranks: Ranks = ALONE, device: str = "cpu", *, compiled: bool) -> Profile:
    """The profile of the blocks of 12 tokens, compiled in three batches of 16; the last 8 blocks are alone.

    On a CPU layers are captured and differentiated as for the compiler, and then run operation by operation.
    """
    model, _ = load_model(folder / "llama", "float32", device, ranks=ranks)
    blocks, compiler = text(), torch.compile
    blocks = blocks.take(np.flatnonzero(blocks.lengths == 12))
    if device == "cpu":
        torch.compile = functools.partial(compiler, backend="aot_eager")  # type: ignore[assignment]
    try:
        return profile_model(
            model, blocks, batch=2 * _ALIKE, labels="both", rho=0.1, compiled=compiled, ranks=ranks
        )
    finally:
        torch.compile = compiler  # type: ignore[assignment]


class Stop(Exception):
    """What breaks a run off."""


def broken_off(folder: Path, ranks: Ranks, device: str) -> Profile:
    """``measured`` in parts, broken off in each pass and gone on with; states are kept after each batch."""
    kept = folder / f"state-{ranks.count}"
    in_a_pass = 6 // ranks.copies
    for batches in (in_a_pass // 2, in_a_pass + 1):
        with keeping_always(), raising_after(batches), contextlib.suppress(Stop):
            measured(folder, "llama", ranks, device, kept)
    assert kept.exists()
    return measured(folder, "llama", ranks, device, kept)


def judged(folder: Path, ranks: Ranks = ALONE, device: str = "cpu") -> np.ndarray:
    """The losses of the blocks, under one of the models."""
    model, _ = load_model(folder / "llama", "float32", device)
    return perplexity(model, text(), ranks=ranks).block_nats


def of_graphs() -> int:
    """How many tensors there are in this process that take part in a graph of gradients.

    A compiler keeps tensors without memory of what it has captured, of a class of their own.
    """
    gc.collect()
    return sum(found.requires_grad for found in gc.get_objects() if type(found) is torch.Tensor)


def main(folder: Path, parts: int, device: str) -> None:
    """Measure in this process what ``folder`` holds, and write what it is given."""
    with joined(device) as device:
        whole, divided = find_ranks(), find_ranks(parts)
        place = folder / f"{divided.rank}-of-{divided.count}"
        place.mkdir()
        measured(folder, "llama", whole, device).save(place / "data.safetensors")
        np.save(place / "nats.npy", judged(folder, whole, device))
        for family in FAMILIES:
            try:
                measured(folder, family, divided, device).save(place / f"{family}.safetensors")
            except ScarpruneError as error:
                (place / f"{family}.txt").write_text(str(error))
        broken_off(folder, divided, device).save(place / "went_on.safetensors")
        of_one_length(folder, divided, device, compiled=True).save(place / "compiled.safetensors")
        (place / "left.txt").write_text(str(of_graphs()))
        line = torch.arange(10.0, device=device).view(2, 5)  # 5 columns over two parts: 3 and 2
        start, stop = divided.slice_of(5)
        np.save(place / "line.npy", divided.line_up(line[:, start:stop], 1, 5).cpu().numpy())


@contextlib.contextmanager
def keeping_always() -> Iterator[None]:
    """States are kept after each batch."""
    due = state.Keeper.due
    state.Keeper.due = lambda self: self.path is not None  # type: ignore[method-assign]
    try:
        yield
    finally:
        state.Keeper.due = due  # type: ignore[method-assign]


@contextlib.contextmanager
def raising_after(batches: int) -> Iterator[None]:
    """The batch after so many is broken off."""
    batch, seen = passes.Run._batch, []

    def counting(self: passes.Run, *arguments: Any) -> None:
        seen.append(1)
        batch(self, *arguments)
        if len(seen) > batches:
            raise Stop

    passes.Run._batch = counting  # type: ignore[method-assign]
    try:
        yield
    finally:
        passes.Run._batch = batch  # type: ignore[method-assign]


def run_and_die(arguments: Sequence[str]) -> None:
    """The command line; the second process is killed in its third batch, once the first has a state."""
    from scarprune.cli import main as cli

    batch, seen = passes.Run._batch, []

    def counting(self: passes.Run, *given: Any) -> None:
        seen.append(1)
        if self.ranks.rank == 1 and len(seen) == 3:
            assert self.keeper.root is not None
            while not (self.keeper.root / "1-of-2.safetensors").exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        batch(self, *given)

    passes.Run._batch = counting  # type: ignore[method-assign]
    sys.argv = ["scarprune", *arguments]
    with keeping_always():
        cli.main()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "dying":
        run_and_die(sys.argv[2:])
    else:
        set_quiet(True)
        main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
