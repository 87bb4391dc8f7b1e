"""Two GPUs measure what one processor does: data parallel and tensor parallel through NCCL."""

import numpy as np
import pytest
import torch

from scarprune.profile.sums import load_profile
from support import processes
from support.launch import same, torchrun
from support.tiny_models import tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]


def test_two_gpus_measure_what_a_cpu_does(tmp_path):
    for family in processes.FAMILIES:
        tiny_model(family).save_pretrained(tmp_path / family)
    done = torchrun(2, "-m", "support.processes", str(tmp_path), "2", "auto", gpus=True)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        place = tmp_path / f"{rank}-of-2"
        for name in ("llama", "gemma2", "phi3", "olmo2"):
            same(load_profile(place / f"{name}.safetensors"), processes.measured(tmp_path, name), 1e-5)
        for name in ("data", "went_on"):
            same(load_profile(place / f"{name}.safetensors"), processes.measured(tmp_path, "llama"), 1e-5)
        compiled = load_profile(place / "compiled.safetensors")
        same(compiled, processes.of_one_length(tmp_path, compiled=False), 1e-5)
        assert compiled.header["provenance"]["compiled"] is True  # it was not found wrong
        assert np.allclose(np.load(place / "nats.npy"), processes.judged(tmp_path), rtol=1e-5)
        assert (place / "left.txt").read_text() == "0"  # else parts would hold more with every batch
