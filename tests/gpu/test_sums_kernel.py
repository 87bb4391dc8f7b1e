"""The kernel for sums on a GPU, against NumPy in float64: run on demand with ``pytest -m gpu``."""

from typing import Any

import numpy as np
import pytest
import torch

from scarprune.profile import accumulate as accumulate_module
from scarprune.profile import gate as gate_module
from scarprune.profile import token_sums
from scarprune.profile.gate import ACTIVATIONS, activation_of, product
from scarprune.profile.input_sums import input_sums
from scarprune.profile.run import profile_model
from scarprune.profile.site_sums import has_kernel, kernel_rows
from scarprune.profile.sums import Profile
from scarprune.text.blocks import Blocks
from support.exact_sums import error, exact_rows
from support.tiny_models import tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_gpu_has_the_kernel(dtype: torch.dtype) -> None:
    assert has_kernel(dtype, torch.device("cuda", 0))
    assert not has_kernel(torch.float64, torch.device("cuda", 0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    "shape", [(2, 1, 5), (3, 2, 300), (2, 4, 256), (5, 5, 257), (2, 260, 1), (4, 511, 1000), (2, 2048, 520)]
)
def test_the_kernel_gives_the_sums_of_float64(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    u, s = (torch.randn(shape, device="cuda").to(dtype) for _ in range(2))
    assert error(token_sums.fused(u, 1e-2 * s), u, 1e-2 * s) < 2e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(1, 5), (127, 300), (128, 256), (129, 4096), (8192, 520)])
def test_the_squares_of_an_input_are_those_of_float64(shape: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, device="cuda").to(dtype)
    for laid in (x, x.mT.contiguous().mT, torch.cat([x, x], 1)[:, shape[1] :]):
        found = input_sums(laid, "cuda").double()
        torch.testing.assert_close(found, x.double().square().sum(0), rtol=1e-6, atol=0.0)


def test_layouts_that_models_give() -> None:
    torch.manual_seed(0)
    long, other = torch.randn(3, 70, 640, device="cuda").bfloat16(), torch.randn(70, 3, 320, device="cuda")
    s = other.bfloat16().transpose(0, 1)
    for u in (long[..., :320], long[..., 320:], long[..., 1:321], long.mT.contiguous().mT[..., :320]):
        assert error(token_sums.fused(u, s), u, s) < 1e-6


def test_offsets_beyond_31_bits() -> None:
    """2.2e9 elements: the last block and the last channels are where 32 bits would not reach."""
    if torch.cuda.mem_get_info()[0] < 12 << 30:
        pytest.skip("needs 12 GiB")
    u = torch.zeros(2, 70000, 16384, device="cuda", dtype=torch.bfloat16)
    u[1, -600:, -300:] = torch.randn(600, 300, device="cuda").bfloat16()
    parts = token_sums.fused(u, u)
    assert float(parts[:, :, 0].abs().max()) == 0.0
    found, end = parts[2:, :, 1, -300:].double().sum(0).cpu(), u[1:, -600:, -300:]
    apart = token_sums.plain(end.double(), end.double()).sum(0)[:, 0].cpu()
    torch.testing.assert_close(found, apart, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("shape", [(2, 1, 5), (3, 4, 300), (4, 511, 1000), (2, 1030, 256)])
def test_a_gates_gradients_are_those_of_autograd(
    shape: tuple[int, int, int], activation: str, dtype: torch.dtype
) -> None:
    """Within one rounding of what autograd gives in the same dtype; the sums are those of that u and s."""
    torch.manual_seed(0)
    gate, up, s = (torch.randn(shape, device="cuda").to(dtype) for _ in range(3))
    gate.requires_grad_()
    up.requires_grad_()
    u = ACTIVATIONS[activation](gate) * up
    u.backward(s)
    found = product(gate.detach(), up.detach(), activation)
    to_gate, to_up, sums = token_sums.fused_with_gate(gate.detach(), up.detach(), s, activation)
    tolerance = {"rtol": 2 * torch.finfo(dtype).eps + 1e-6, "atol": 1e-5}
    torch.testing.assert_close(found, u.detach(), **tolerance)
    torch.testing.assert_close(to_gate, gate.grad, **tolerance)
    torch.testing.assert_close(to_up, up.grad, **tolerance)
    assert error(sums, found, s) < 2e-6
    assert activation_of(gate, up, u) == activation


@pytest.mark.parametrize("shape", [(1, 35, 1), (17, 37, 33), (40, 300, 1000)])
def test_the_kernel_of_rows_gives_those_of_numpy(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    sums = token_sums.fused(*(torch.randn(shape, device="cuda") for _ in range(2)))
    groups = (torch.arange(8)[:, None] == torch.randint(0, 8, shape[:1])).double().cuda()
    expected = exact_rows(sums, groups)
    torch.testing.assert_close(kernel_rows(sums, groups).cpu(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "opt"])
def test_watched_passes_use_it_and_agree(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager and compiled with the kernel, beside plain operations; batches with an odd one at the end."""
    ids = np.random.default_rng(0).integers(3, 96, size=(7, 24))
    blocks = Blocks(ids=ids, lengths=np.full(7, 24), bytes=None, protocol="tokens", source="test")
    options: dict[str, Any] = {"batch": 2, "labels": "both", "rho": 0.1}
    calls: list[bool] = []

    def counted(dtype: torch.dtype, device: torch.device) -> bool:
        calls.append(has_kernel(dtype, device))
        return calls[-1]

    monkeypatch.setattr(accumulate_module, "has_kernel", counted)
    eager, compiled = (
        profile_model(tiny_model(family).cuda(), blocks, compiled=way, **options) for way in (False, True)
    )
    assert calls
    assert all(calls)
    assert compiled.header["provenance"]["compiled"] is True
    for module in (accumulate_module, gate_module):
        monkeypatch.setattr(module, "has_kernel", lambda dtype, device: False)
    plain = profile_model(tiny_model(family).cuda(), blocks, compiled=False, **options)
    for found in (eager, compiled):
        close(found, plain, 1e-5)


def close(found: Profile, expected: Profile, rtol: float) -> None:
    assert found.tensors.keys() == expected.tensors.keys()
    for key, array in expected.tensors.items():
        largest = np.abs(array).max()
        np.testing.assert_allclose(found.tensors[key], array, rtol=rtol, atol=rtol * largest, err_msg=key)
