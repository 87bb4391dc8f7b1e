"""Several processes started by torchrun, and what they measured compared with what one did."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from scarprune.profile.sums import Profile

TESTS = Path(__file__).parents[1]


def torchrun(count: int, *arguments: str, gpus: bool = False) -> subprocess.CompletedProcess[str]:
    """Run ``count`` processes to their end."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), *arguments]
    path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environment |= {"NCCL_NVLS_ENABLE": "0"} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def same(found: Profile, expected: Profile, tolerance: float = 1e-6) -> None:
    """Equal to ``tolerance`` of the array's size, times the power of u and s that a sum is of."""
    assert found.tensors.keys() == expected.tensors.keys()
    for key, array in expected.tensors.items():
        power = 4 if key.endswith(("sum_q4", "block_q2_squared")) else 2
        furthest = np.abs(found.tensors[key].astype(float) - array).max()
        assert furthest <= power * tolerance * np.abs(array).max(), key
    for key in expected.header.keys() - {"provenance"}:
        assert found.header[key] == expected.header[key]
