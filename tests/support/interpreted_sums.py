"""The kernel for sums under Triton's interpreter, on the CPU: run as a script with TRITON_INTERPRET=1."""

import torch

from scarprune.profile import token_sums
from scarprune.profile.gate import ACTIVATIONS, product
from scarprune.profile.input_sums import input_sums
from scarprune.profile.site_sums import kernel_rows
from support.exact_sums import error, exact_rows

token_sums._CHUNK = 32  # several chunks of few tokens: an operation of the interpreter takes a millisecond
SHAPES = (
    (2, 1, 5),
    (1, 2, 300),
    (3, 4, 256),
    (2, 5, 257),
    (1, 35, 40),
    (1, 36, 40),
    (2, 37, 1),
    (2, 99, 300),
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def main() -> None:
    torch.manual_seed(0)
    for number, shape in enumerate(SHAPES):
        u, s = (torch.randn(shape).to(DTYPES[number % 3]) for _ in range(2))
        check(u, 1e-4 * s)
    u, s = torch.randn(3, 70, 80), torch.randn(70, 3, 40).transpose(0, 1)
    check(u[..., 40:], s)  # in longer rows, and tokens before blocks
    check(u.mT.contiguous().mT, u)  # channels apart
    for number, activation in enumerate(ACTIVATIONS):
        check_gate(*(torch.randn(2, 37 + number, 20) for _ in range(3)), activation)
    for shape in ((1, 3, 5), (17, 40, 33)):
        check_rows(torch.randn(shape), torch.randn(shape))
    for number, x in enumerate((torch.randn(300, 40), torch.randn(129, 600)[:, ::2], torch.randn(1, 3))):
        check_input(x.to(DTYPES[number]))


def check(u: torch.Tensor, s: torch.Tensor) -> None:
    found = error(token_sums.fused(u, s), u, s)
    print(tuple(u.shape), u.dtype, found)
    assert found < 1e-6, (u.shape, u.dtype, found)


def check_gate(gate: torch.Tensor, up: torch.Tensor, s: torch.Tensor, activation: str) -> None:
    leaves = [x.clone().requires_grad_() for x in (gate, up)]
    u = ACTIVATIONS[activation](leaves[0]) * leaves[1]
    u.backward(s)
    to_gate, to_up, sums = token_sums.fused_with_gate(gate, up, s, activation)
    found = product(gate, up, activation)
    torch.testing.assert_close(found, u.detach())
    torch.testing.assert_close(to_gate, leaves[0].grad)
    torch.testing.assert_close(to_up, leaves[1].grad)
    assert error(sums, found, s) < 1e-6
    print(activation)


def check_rows(u: torch.Tensor, s: torch.Tensor) -> None:
    groups = (torch.arange(8)[:, None] == torch.arange(len(u)) % 7).double()
    sums = token_sums.fused(u, s)
    torch.testing.assert_close(kernel_rows(sums, groups), exact_rows(sums, groups), rtol=1e-12, atol=1e-12)
    print("rows", tuple(u.shape))


def check_input(x: torch.Tensor) -> None:
    expected = x.double().square().sum(0)
    torch.testing.assert_close(input_sums(x, "cpu").double(), expected, rtol=1e-6, atol=0.0)
    print("input", tuple(x.shape))


if __name__ == "__main__":
    main()
