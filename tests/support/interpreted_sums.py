"""The kernel for sums under Triton's interpreter, on the CPU: run as a script with TRITON_INTERPRET=1."""

import torch

from scarprune.profile import token_sums
from support.exact_sums import error

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


def check(u: torch.Tensor, s: torch.Tensor) -> None:
    found = error(token_sums.fused(u, s), u, s)
    print(tuple(u.shape), u.dtype, found)
    assert found < 1e-6, (u.shape, u.dtype, found)


if __name__ == "__main__":
    main()
