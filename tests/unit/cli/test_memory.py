"""``--memory``: what it refuses, and a profile and a prune whose model is streamed from its files."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from scarprune.pipeline import room
from scarprune.profile.sums import load_profile
from support.tiny_models import tiny_config
from support.tokenizers import byte_level

Run = Callable[..., Any]
QUICK = ("--blocks", 8, "--length", 32)


@pytest.fixture
def _streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model fits whole."""
    monkeypatch.setattr(room, "fits_whole", lambda *arguments: False)


def test_what_is_no_size_is_refused_by_the_parser(scarprune: Run, tiny: Path, tmp_path: Path) -> None:
    result = scarprune("profile", tiny, "--out", tmp_path / "p.safetensors", "--memory", "abc")
    assert result.code == 2
    assert "'abc' is no size of memory" in result.err


def test_too_little_is_refused_with_what_would_do(
    scarprune: Run, tiny: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    result = scarprune("profile", tiny, "--text", text, "--out", out, "--memory", "1MiB", *QUICK)
    assert result.code == 1
    assert "1 MiB of memory is too little: one block needs" in result.err
    tiny_bound = scarprune("profile", tiny, "--text", text, "--out", out, "--memory", "2KiB", *QUICK)
    assert "Error: 2 KiB of memory is too little" in tiny_bound.err
    assert not out.exists()


@pytest.mark.usefixtures("_streamed")
def test_a_streamed_profile_says_so_and_is_the_same(
    scarprune: Run, tiny: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed, whole = tmp_path / "streamed.safetensors", tmp_path / "whole.safetensors"
    result = scarprune("profile", tiny, "--text", text, "--out", streamed, *QUICK)
    assert result.code == 0
    assert "layers streamed from the checkpoint's files" in result.err
    monkeypatch.setattr(room, "fits_whole", lambda *arguments: True)
    assert "streamed" not in scarprune("profile", tiny, "--text", text, "--out", whole, *QUICK).err
    one, other = load_profile(streamed), load_profile(whole)
    assert one.fingerprint == other.fingerprint
    assert all(np.array_equal(array, other.tensors[key]) for key, array in one.tensors.items())


@pytest.mark.usefixtures("_streamed")
def test_a_streamed_prune_is_cut_verified_and_judged(
    scarprune: Run, tiny: Path, text: Path, tmp_path: Path
) -> None:
    out, found = tmp_path / "small", tmp_path / "small.json"
    words = ("--sparsity", 0.5, "--text", text, "--multiple-of", 1, "--quiet", *QUICK)
    assert scarprune("prune", tiny, out, *words, "--json", found).code == 0
    result = json.loads(found.read_text())
    assert result["verified"] is True
    assert 0 <= result["max_logit_difference"] < 1e-4
    measured = scarprune("eval", out, "--text", text, "--length", 32, "--blocks", 8, "--json", "-", "--quiet")
    assert json.loads(measured.out)["perplexity"] > 0
    small = LlamaForCausalLM.from_pretrained(out)
    assert small.config.intermediate_size == 24
    assert f"{result['pruned']['perplexity']:.2f}"[:4] in (out / "README.md").read_text()


@pytest.mark.usefixtures("_streamed")
def test_a_streamed_model_is_not_compensated(scarprune: Run, tiny: Path, tmp_path: Path) -> None:
    result = scarprune("prune", tiny, tmp_path / "small", "--sparsity", 0.5, "--compensate", "ls", *QUICK)
    assert result.code == 1
    assert "'ls' is fitted to it in memory" in result.err


@pytest.mark.slow
def test_streaming_from_files_stays_within_its_bound(tmp_path: Path) -> None:
    """1.5 GB of weights in float32, in 900 MiB of the process with all its libraries."""
    config = tiny_config(
        "llama", vocab_size=400, hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, head_dim=64
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    byte_level().save_pretrained(tmp_path / "model")
    np.save(tmp_path / "ids.npy", np.random.default_rng(0).integers(3, 400, (4, 32)))
    program = (
        "import re, sys\n"
        "from scarprune.cli.main import run\n"
        "code = run(sys.argv[1:])\n"
        # What getrusage calls the peak counts the parent's memory as well.
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], code)"
    )
    words = ["profile", "model", "--text", "ids.npy", "--out", "p.safetensors", "--memory", "900MiB"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    peak, code = map(int, done.stdout.split()[-2:])
    assert code == 0, done.stderr
    assert "streamed from the checkpoint's files" in done.stderr
    assert peak < 900 << 10
