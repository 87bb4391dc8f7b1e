"""A gate's product, and its gradients with the sums over tokens beside them: what is read for one gives both.

A gated network computes u = activation(gate) * up. Its backward pass reads gate, up and the gradient s of u.
The sums need no more, so that watching reads nothing of its own, and u is not kept for it.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F

from scarprune.profile.operation import operation
from scarprune.profile.site_sums import has_kernel, works
from scarprune.profile.token_sums import fused_with_gate

# What the kernels know.
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda gate: F.gelu(gate, approximate="tanh"),
}
_FEW_TOKENS = 4
_STEP = 1e-5  # of a difference, for a slope right to eight digits
_ULPS, _ERROR = 4.0, 1e-5  # a model's own operations may round once less, and its exponentials elsewhere


def _blank(gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
    return gate.new_empty(gate.shape)


@operation("product", _blank)
def product(gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
    """u = activation(gate) * up, by a kernel, rounded where two operations round."""
    from scarprune.profile import token_kernel

    return token_kernel.product(gate, up, activation)


def activation_of(gate: torch.Tensor, up: torch.Tensor, u: torch.Tensor) -> str:
    """The activation with which the kernels give ``u`` of gate and up, and its gradients, or "".

    "" too where these tokens do not tell one activation from another, as zeros do not.
    """
    if gate.shape != u.shape or up.shape != u.shape or not has_kernel(u.dtype, u.device):
        return ""
    gate, up, u = (x.detach()[..., -_FEW_TOKENS:, :].reshape(1, -1, x.shape[-1]) for x in (gate, up, u))
    # In 16 bits both kinds of GELU may pass for each other: the nearer one is meant.
    distances = torch.stack([(act(gate) * up - u).abs().sum() for act in ACTIVATIONS.values()]).tolist()
    (least, nearest), (next_least, _) = sorted(zip(distances, ACTIVATIONS, strict=True))[:2]
    told = least < next_least
    return nearest if told and _works(nearest, u.dtype, u.device) and _agrees(gate, up, u, nearest) else ""


@functools.cache
def _works(activation: str, dtype: torch.dtype, device: torch.device) -> bool:
    def gate(few: torch.Tensor) -> None:
        fused_with_gate(few, few, product(few, few, activation), activation)

    return works(gate, dtype, device)


@torch.no_grad()
def _agrees(gate: torch.Tensor, up: torch.Tensor, u: torch.Tensor, activation: str) -> bool:
    """Whether the kernels give ``u``, and as its gradients what differences in float64 give, u itself for s.

    Nothing is differentiated, so that nothing is saved in the middle of a pass that may be made again.
    """
    found = [product(gate, up, activation), *fused_with_gate(gate, up, u, activation)[:2]]
    act, g, s = ACTIVATIONS[activation], gate.double(), u.double()
    slope = (act(g + _STEP) - act(g - _STEP)) / (2 * _STEP)
    expected = s, s * up.double() * slope, s * act(g)
    near = [_near(a.double(), b, u.dtype) for a, b in zip(found, expected, strict=True)]
    return bool(torch.stack(near).all())  # the device is waited for once


def _near(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    error = _ULPS * torch.finfo(dtype).eps + _ERROR
    return (found - expected).abs() <= error * (expected.abs() + expected.abs().mean())
