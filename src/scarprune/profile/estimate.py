"""How much memory and time a profile will take, said before it starts."""

import functools
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from scarprune.errors import MemoryBudgetError
from scarprune.models.cost import cost_of
from scarprune.models.head import Head
from scarprune.models.site import Site
from scarprune.models.tensor_parallel import held
from scarprune.profile.accumulate import SumsPass
from scarprune.profile.layerwise import Layerwise
from scarprune.profile.loss import chunk_tokens
from scarprune.profile.site_sums import has_kernel
from scarprune.profile.statistics.statistic import statistics
from scarprune.profile.watch import Looks, summing
from scarprune.runtime.memory import is_out_of_memory, release_cached, used_bytes

_PROBE_TOKENS = (32, 64)
TOKENS_AT_ONCE = {"cpu": 2048, "mps": 4096}
MOST_TOKENS = 16384
SHARE_OF_FREE = 0.85
# A CPU's allocator holds freed blocks between those in use: 1.9 to 2.2 times what is saved, measured on
# four Llama shapes of 7M to 60M parameters (benchmarks/memory.py); less where it is ``frugal``.
_HELD_PER_SAVED = {"cpu": 2.0}
_HELD_PER_SAVED_FRUGAL = {"cpu": 1.4}
# Compiled layers make again in the backward pass what is cheap to make: of what eager ones save with norms of
# plain operations, on Llama-3.1-8B's shape (benchmarks/records/profile_gpu_8b_h200.json).
_COMPILED_SAVES = 0.88
# Of a plain matrix product's rate: on a CPU measured on models of 7M to 135M parameters, on a GPU on
# Llama-3.1-8B's shape on an H100 (benchmarks/records/profile_gpu_8b.json; an H200 reaches 0.65); small models
# keep a GPU less busy.
EFFICIENCY = {"cpu": 0.6, "cuda": 0.5}
# Of products that are timed: a processor that did little before takes four times as long at first.
_FEWEST_PRODUCTS, _SECONDS_TO_WARM = 4, {"cpu": 0.3}


@dataclass(frozen=True)
class Memory:
    """Bytes on the device with most of the work.

    Attributes:
        resident: in use before the first batch, weights included.
        totals: running sums, kept to the end.
        linear: held for the backward pass per token of a batch.
        square: per block and squared token: attention that keeps its weights.
        transient: of the widest site's backward, per token.
        logits: of a token in a chunk of the loss, and its gradient.
        chunk: tokens whose logits are there at once, where a batch has as many.
    """

    resident: int
    totals: int
    linear: float
    square: float
    transient: float
    logits: float
    chunk: int

    def peak(self, batch: int, length: int) -> int:
        """The most that is in use at once, for ``batch`` blocks of ``length`` tokens."""
        tokens = batch * length
        saved = batch * (self.linear * length + self.square * length**2)
        most = max(self.logits * min(self.chunk, tokens), self.transient * tokens)
        return int(self.resident + self.totals + saved + most)

    def largest_batch(self, length: int, limit: float) -> int:
        """How many blocks of ``length`` fit at once into ``limit`` bytes, those in use already among them."""
        room = limit - self.resident - self.totals
        saved = self.linear * length + self.square * length**2
        # Logits are of a chunk's tokens, or of fewer where a batch has fewer: what fits in either way fits.
        whole_chunk = (room - self.logits * self.chunk) / max(1.0, saved)
        less = room / max(1.0, saved + self.logits * length)
        fits = min(max(whole_chunk, less), room / max(1.0, saved + self.transient * length))
        return max(0, int(fits))

    def checkpointed(self, layers: int, state_bytes: int) -> "Memory":
        """The same where each of ``layers`` keeps its input alone, of ``state_bytes`` a token."""
        return replace(self, linear=layers * state_bytes + self.linear / layers, square=self.square / layers)


def estimate_memory(
    model: nn.Module,
    head: Head,
    sites: Sequence[Site],
    device: torch.device,
    vocabulary: int,
    totals: int,
    compiled: bool,
    block: np.ndarray,
    looks: Looks,
    frugal: bool = False,
) -> Memory:
    """Measure what the model saves for a backward pass over a few tokens; the rest follows from shapes.

    The tokens are those of ``block`` [T], over and over. What is seen of the sites is added to ``looks``.
    """
    resident = used_bytes(device)
    ids = torch.from_numpy(np.resize(block, (1, max(_PROBE_TOKENS))))

    def whole(tokens: int) -> torch.Tensor:
        return head.hidden(ids[:, :tokens])

    few, more = (_saved_bytes(model, sites, whole, tokens, looks) for tokens in _PROBE_TOKENS)
    return _memory(model, sites, device, head, vocabulary, resident, totals, compiled, frugal, few, more)


def estimate_layer(
    model: nn.Module,
    layers: Layerwise,
    sites: Sequence[Site],
    vocabulary: int,
    totals: int,
    compiled: bool,
) -> Memory:
    """The same of a streamed model, one of whose layers is there at a time: measured on the first."""
    walk, head, device = layers.walk, layers.head, layers.walk.device
    # Made-up numbers that differ, so that norms leave something of them; what they show is of no text.
    numbers = torch.linspace(-1, 1, sites[0].hidden, dtype=next(model.parameters()).dtype)
    state = numbers.repeat(1, max(_PROBE_TOKENS), 1)
    with layers.streamed.held(0):
        resident = used_bytes(device)

        def first(tokens: int) -> torch.Tensor:
            return walk.step(0, state[:, :tokens].to(device))

        few, more = (_saved_bytes(model, sites[:1], first, tokens, {}) for tokens in _PROBE_TOKENS)
    return _memory(model, sites, device, head, vocabulary, resident, totals, compiled, True, few, more)


def _memory(
    model: nn.Module,
    sites: Sequence[Site],
    device: torch.device,
    head: Head,
    vocabulary: int,
    resident: int,
    totals: int,
    compiled: bool,
    frugal: bool,
    few: int,
    more: int,
) -> Memory:
    """From what is saved for ``_PROBE_TOKENS`` tokens."""
    t1, t2 = _PROBE_TOKENS
    square = max(0.0, (more / t2 - few / t1) / (t2 - t1))
    widest = max(site.width for site in sites)
    itemsize = next(model.parameters()).element_size()
    # s, the two gradients of a gate and its product, and the sums' own float32 temporaries: six by plain
    # operations, where a kernel sums the two of pass 2 (benchmarks/records/memory_gpu*.json).
    sums = 4 * (2 if has_kernel(model.dtype, device) else 6)
    sums = 0 if compiled or device.type == "cpu" else sums
    held = (_HELD_PER_SAVED_FRUGAL if frugal else _HELD_PER_SAVED).get(device.type, 1.0)
    held *= _COMPILED_SAVES if compiled else 1.0
    return Memory(
        resident=resident,
        totals=totals,
        linear=held * (few / t1 - square * t1),
        square=held * square,
        transient=(4 * itemsize + sums) * widest,
        logits=4.0 * 4 * vocabulary,
        chunk=chunk_tokens(vocabulary, device, head.chunk_bytes),
    )


def _saved_bytes(
    model: nn.Module, sites: Sequence[Site], run: Callable[[int], torch.Tensor], tokens: int, looks: Looks
) -> int:
    """Bytes of distinct storages, weights left out, that a watched ``run`` of ``tokens`` keeps."""
    there = (held(parameter) for parameter in model.parameters() if not parameter.is_meta)
    weights = {parameter.untyped_storage().data_ptr() for parameter in there}
    alive: weakref.WeakSet[_Kept] = weakref.WeakSet()

    def pack(tensor: torch.Tensor) -> _Kept:
        # Detached: what saves its own output would else hold itself for good, out of the garbage collector's
        # sight, and with it the weights.
        kept = _Kept(tensor.detach())
        alive.add(kept)
        return kept

    observer = SumsPass(sites, statistics())
    observer.begin(np.zeros(1, dtype=np.int64), tokens)
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor),
        summing(model, sites, observer, looks),
    ):
        hidden = run(tokens)  # held while counting, and with it what it was made of
        storages = [held(kept.tensor).untyped_storage() for kept in alive]
        sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
        del hidden
    return sum(size for place, size in sizes.items() if place not in weights)


class _Kept:
    """A tensor as autograd keeps it: until what it was saved for is gone."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def matmul_parameters(model: nn.Module) -> int:
    """Weights that each token is multiplied by."""
    return int(cost_of(model).matrices.total) // 2


def expected_seconds(model: nn.Module, tokens: float) -> float:
    """Rough time to take ``tokens`` forward and backward, at the rate of the model's own device.

    4 operations per weight and token; a forward pass alone is half of that.
    """
    weight = next(model.parameters())
    operations = 4.0 * matmul_parameters(model) * tokens
    efficiency = EFFICIENCY.get(weight.device.type, EFFICIENCY["cuda"])
    return operations / (efficiency * matmul_rate(weight.dtype, weight.device))


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of a matrix product: on a CPU of the size that a small model's layers have.

    On a GPU of the largest size up to 8192 cubed that there is memory for.

    Raises:
        MemoryBudgetError: not even small matrices fit.
    """
    if device.type == "cpu":
        return _timed_product(1024, 512, 1024, dtype, device)
    for size in (8192, 4096, 2048, 1024):
        try:
            return _timed_product(size, size, size, dtype, device)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        release_cached(device)
    raise MemoryBudgetError(
        f"{device} has no memory free beside the model, not even for matrices of 1024 x 1024.",
        hint="Use more --memory, or a smaller --dtype.",
    )


@functools.cache
def _timed_product(m: int, k: int, n: int, dtype: torch.dtype, device: torch.device) -> float:
    a, b = torch.ones(m, k, dtype=dtype, device=device), torch.ones(k, n, dtype=dtype, device=device)
    times: list[float] = []
    warming = _SECONDS_TO_WARM.get(device.type, 0.0)
    while len(times) < _FEWEST_PRODUCTS or sum(times) < warming:
        began = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        times.append(time.perf_counter() - began)
    return 2.0 * m * k * n / min(times)
