"""Sums over tokens against NumPy in float64: plain, by the kernel, and inside compiled layers."""

import functools
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from scarprune.profile import accumulate as accumulate_module
from scarprune.profile import input_sums, site_sums, token_sums
from scarprune.profile.run import profile_model
from scarprune.text.blocks import Blocks
from support.exact_sums import error, exact_parts, exact_rows, write_squares
from support.tiny_models import tiny_model

KERNEL, KERNEL_OF_ROWS = "scarprune.profile.token_kernel", "scarprune.profile.row_kernel"
KERNEL_OF_INPUT = "scarprune.profile.input_kernel"


@pytest.mark.parametrize("shape", [(2, 1, 5), (1, 2, 5), (3, 4, 9), (2, 5, 3), (2, 600, 64)])
def test_plain_sums_are_those_of_float64(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    u, s = torch.randn(2 * shape[0], *shape[1:])[::2], torch.randn(shape)
    assert error(token_sums.plain(u, s), u, s) < 1e-6


def _interprets() -> bool:
    """The interpreter of older Tritons cannot count a loop with NumPy 2.4."""
    try:
        return tuple(map(int, metadata.version("triton").split(".")[:2])) >= (3, 9)
    except metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not _interprets(), reason="no Triton of 3.9 or later")
def test_the_kernels_give_what_float64_and_autograd_give() -> None:
    """Under Triton's interpreter, which is chosen before Triton is imported: in a process of its own."""
    script = Path(__file__).parents[2] / "support" / "interpreted_sums.py"
    paths = [str(script.parents[1]), *sys.path]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(paths)}
    ran = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 18


@pytest.fixture
def kernel_of_numpy(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Float64 sums by NumPy in place of the kernel; its calls."""
    calls = []

    def launch(u: torch.Tensor, s: torch.Tensor, sums: torch.Tensor, chunk: int) -> None:
        calls.append(u.shape[1])
        sums.copy_(exact_parts(u, s, chunk))

    def launch_rows(sums: torch.Tensor, membership: torch.Tensor, rows: torch.Tensor) -> None:
        rows.copy_(exact_rows(sums, membership))

    monkeypatch.setitem(sys.modules, KERNEL, SimpleNamespace(launch=launch))
    monkeypatch.setitem(sys.modules, KERNEL_OF_ROWS, SimpleNamespace(launch=launch_rows))
    monkeypatch.setitem(sys.modules, KERNEL_OF_INPUT, SimpleNamespace(launch=write_squares))
    monkeypatch.setattr(accumulate_module, "has_kernel", lambda dtype, device: True)
    return calls


def test_what_follows_the_kernel_makes_of_its_chunks_what_the_plain_way_makes(
    kernel_of_numpy: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.random.default_rng(0).integers(3, 90, size=(4, 12))
    blocks = Blocks(ids=ids, lengths=np.full(4, 12), bytes=None, protocol="tokens", source="test")
    monkeypatch.setattr(token_sums, "_CHUNK", 3)  # three chunks of the third band
    monkeypatch.setattr(input_sums, "_CHUNK", 5)  # and five of the 24 tokens of an input
    found = profile_model(tiny_model("llama"), blocks, batch=2, labels="both", compiled=False)
    assert kernel_of_numpy == [12] * 8  # two batches, two kinds of labels, two sites
    monkeypatch.undo()
    plain = profile_model(tiny_model("llama"), blocks, batch=2, labels="both", compiled=False)
    for key, array in plain.tensors.items():
        np.testing.assert_allclose(
            found.tensors[key], array, rtol=1e-5, atol=1e-5 * np.abs(array).max(), err_msg=key
        )


def test_to_compiled_layers_the_kernel_is_one_operation(
    kernel_of_numpy: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.random.default_rng(0).integers(3, 90, size=(2, 12))
    blocks = Blocks(ids=ids, lengths=np.full(2, 12), bytes=None, protocol="tokens", source="test")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    profile_model(tiny_model("llama"), blocks, batch=2, redundancy=False, compiled=True)
    torch._dynamo.reset()
    assert kernel_of_numpy == [12] * 6  # two sites: the same two blocks taken eagerly, then both compiled
    assert not counters["graph_break"]


def test_a_kernel_that_fails_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, KERNEL, None)  # as where Triton cannot be imported
    site_sums.has_kernel.cache_clear()
    for _ in range(2):
        assert not site_sums.has_kernel(torch.bfloat16, torch.device("cuda"))
    assert capsys.readouterr().err.count("The kernel for sums cannot be used, so they take longer: ") == 1
    assert not site_sums.has_kernel(torch.float32, torch.device("cpu"))
    assert capsys.readouterr().err == ""
    site_sums.has_kernel.cache_clear()
