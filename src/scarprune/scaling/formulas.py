"""Bytes and operations as functions of sizes; docs/scaling.md says them in words.

L layers, d hidden size, m channels of a site, k of its core, V vocabulary, b bytes of a number, per token
unless said otherwise. Operations of the model's own products are methods of ``models.cost.Cost``.
"""

import math

from scarprune.profile.size import labelled_rows, shared_rows
from scarprune.scaling.sizes import Sizes

_WIDE = 4  # bytes of the float32 that sums, norms and logits are computed in


def saved_bytes(sizes: Sizes, *, kernels: bool = False) -> float:
    """What an eager pass keeps for the way back, weights frozen.

    A product with a frozen matrix keeps nothing. A layer keeps: the input of each of its two norms in float32
    (d each) and what they divide by; q and the output of attention, k and v, a log-sum a head; of a gated
    network gate, silu(gate), up and their product u, of a plain one what enters the activation and u. The
    first layer keeps its u alone. Written for RMS norms (Llama and its kin) and fused attention.

    Args:
        sizes: of the model.
        kernels: those of a CUDA device: a gated network keeps gate and up alone, and in 16 bits a norm its
            input as it is.
    """
    return (sizes.layers - 1) * _saved_by_layer(sizes, kernels) + sizes.itemsize * sizes.widths[0]


def checkpointed_bytes(sizes: Sizes, *, kernels: bool = False) -> float:
    """The same where a layer keeps its input alone and is computed again: d each, and one layer whole."""
    return sizes.itemsize * sizes.hidden * sizes.layers + _saved_by_layer(sizes, kernels)


def _saved_by_layer(sizes: Sizes, kernels: bool) -> float:
    queries, kept = sizes.cost.score_size / sizes.layers, sizes.cost.kept_size / sizes.layers
    network = (2 if kernels else 2 * sizes.readers) * max(sizes.widths)
    in_norm = sizes.itemsize if kernels and sizes.itemsize <= 2 else _WIDE
    norms = 2 * (in_norm * sizes.hidden + _WIDE)
    return sizes.itemsize * (network + 2 * queries + kept) + norms + _WIDE * sizes.cost.heads


def transient_bytes(sizes: Sizes) -> float:
    """Of the widest network's backward pass: s, the two gradients of a gate and their product."""
    return 4 * sizes.itemsize * max(sizes.widths)


def watched_bytes(sizes: Sizes, *, kernels: bool = False) -> float:
    """What pass 1 reads besides: u and s of every channel once, where the sums are fused, and each input.

    With the ``kernels`` of a CUDA device, of a gated network nothing but its input from the second site on.
    """
    channels = sizes.widths[0] if kernels and sizes.readers == 2 else sizes.channels
    return sizes.itemsize * (2 * channels + sizes.hidden * sizes.layers)


def cross_operations(sizes: Sizes) -> float:
    """Of pass 2: q^T q_core, in float32: 2 m k a site."""
    return 2.0 * sum(m * k for m, k in zip(sizes.widths, sizes.cores(), strict=True))


def cross_moved_bytes(sizes: Sizes) -> float:
    """Of pass 2: u and s read and widened, multiplied, and q read by the product."""
    return (2 * sizes.itemsize + 6 * _WIDE) * sizes.channels


def loss_bytes(sizes: Sizes, *, backward: bool) -> float:
    """Read and written for the logits besides the head's own product, operation by operation.

    Forward: logits written and read, in float32 written, read for and written by log-softmax. Backward: a
    zero gradient written, log-softmax's gradient (two read, one written), narrowed (read, written), read by
    the product.
    """
    forward = 2 * sizes.itemsize + 3 * _WIDE
    back = 2 * sizes.itemsize + 5 * _WIDE
    return sizes.vocabulary * (forward + back if backward else forward)


def sums_sent_bytes(sizes: Sizes) -> float:
    """Of pass 1's float64 sums, once a run; not per token."""
    rows = sum(labelled_rows().values()) + sum(shared_rows().values())
    return 8.0 * (rows * sizes.channels + sizes.hidden * sizes.layers)


def cross_sent_bytes(sizes: Sizes) -> float:
    """Of pass 2's float64 sums, m x k a site, once a run; not per token."""
    return 8.0 * cross_operations(sizes) / 2


def all_reduce_bytes(count: float, gpus: int) -> float:
    """That each of ``gpus`` sends to add up ``count`` bytes in a ring; whole, not per token."""
    return 2 * (gpus - 1) / gpus * count


def tensor_parallel_bytes(sizes: Sizes, *, backward: bool) -> float:
    """Added up over the GPUs that share a layer: after attention and after the network, d numbers each.

    On the way back the same, at what enters them; nothing enters the first layer.
    """
    sums = 2 * sizes.layers + (2 * (sizes.layers - 1) if backward else 0)
    return sums * sizes.itemsize * sizes.hidden


def streamed_bytes(sizes: Sizes) -> float:
    """Over the link to the GPU for a batch, forward and back: every layer's weights twice; not per token."""
    return 2 * sizes.itemsize * (sizes.cost.matrices.ffn + sizes.cost.matrices.attention) / 2


def tokens_that_hide_the_link(operations: float, rate: float, streamed: float, link: float) -> int:
    """Tokens of a batch from which computing takes as long as streaming.

    Args:
        operations: per token.
        rate: operations per second that are reached.
        streamed: bytes over the link for a batch.
        link: bytes per second.
    """
    return math.ceil(streamed / link * rate / operations)


def gram_operations(sizes: Sizes) -> float:
    """Of least squares: u^T u of every site, 2 m^2."""
    return 2.0 * sum(m * m for m in sizes.widths)


def solve_operations(sizes: Sizes, sparsity: float, dampings: int) -> float:
    """Of least squares, in float64, for all sites; not per token.

    With K channels kept and R removed: per damping a Cholesky factor (K^3 / 3), its solution for d columns
    (2 K^2 d) and the held-out error of it (2 K^2 d); once, W_R times both moments (2 x 2 K R d), its own
    error (2 R^2 d) and what the whole network writes (2 m^2 d).
    """
    total, d = 0.0, sizes.hidden
    for m in sizes.widths:
        gone = sparsity * m
        kept = m - gone
        total += dampings * (kept**3 / 3 + 4 * kept**2 * d)
        total += 4 * kept * gone * d + 2 * gone**2 * d + 2 * m**2 * d
    return total


def gram_bytes(sizes: Sizes) -> float:
    """Of least squares: the moments of text and of held-out text, float64, a kept copy and its factor."""
    return 4 * 8 * max(sizes.widths) ** 2


def trained_bytes(parameters: float, itemsize: int) -> float:
    """Of a model whose weights are all trained: weights to compute with, their gradients, and in float32
    weights, gradients, two moments of Adam and the best so far.
    """
    return parameters * (2 * itemsize + 5 * _WIDE)


def heal_step_bytes(parameters: float, itemsize: int) -> float:
    """Read and written by a step of ``heal`` besides its products, in float32 but for two numbers of b bytes.

    Gradients read (b) and added (2), their norm (1), clipped (2), AdamW (4 read, 3 written), published (1 and
    b), gradients set to zero (1).
    """
    return parameters * (2 * itemsize + 14 * _WIDE)


def refit_step_bytes(parameters: float, itemsize: int) -> float:
    """The same of ``refit``: weights narrowed (1 and b), gradients widened (b and 1), Adam (7)."""
    return parameters * (2 * itemsize + 9 * _WIDE)
