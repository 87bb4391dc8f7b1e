"""The training script: its optimizer against torch's, and one tiny run from text to a loadable folder."""

import lzma
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scarprune import demo

TRAINING = Path(__file__).parents[3] / "training"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(TRAINING)


def test_muon_follows_torch(scripts):
    from muon import Muon

    generator = torch.Generator().manual_seed(0)
    shapes = [(16, 16), (64, 16), (16, 64), (64, 16)]
    ours = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [torch.nn.Parameter(matrix.detach().clone()) for matrix in ours]
    muon = Muon(ours, weight_decay=0.1)
    muon.rate = 0.02
    torchs = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        muon.step()
        torchs.step()
    for a, b in zip(ours, theirs, strict=True):  # bfloat16 inside; one step moves an entry by about 0.004
        assert torch.allclose(a, b, atol=2e-3)


def test_blocks_begin_with_bos_and_shift_every_pass(scripts):
    from train import BLOCK, batches

    torch.manual_seed(0)
    stream = torch.arange(1, 4 * BLOCK + 100, dtype=torch.int32)
    data = batches(stream, bos_id=0, batch=3)
    starts = []
    for _ in range(6):
        ids_BT, targets_BT = next(data)
        assert (ids_BT[:, 0] == 0).all()
        assert torch.equal(ids_BT[:, 1:], targets_BT[:, :-1])
        assert (targets_BT.diff(dim=1) == 1).all()
        starts.append(int(targets_BT[0, 0]) % BLOCK)
    assert len(set(starts)) > 3


def test_separators_count_no_bytes(scripts):
    from held_out import pack, split_held_out
    from novels import token_bytes

    tokenizer = AutoTokenizer.from_pretrained(demo.model_folder())
    books = lzma.decompress(demo.text_path("calibration").read_bytes()).decode().split("\n\n\n")[:2]
    blocks = pack("\n\n\n".join(book[:3000] for book in books), tokenizer)
    assert (blocks[:, 0] == tokenizer.bos_token_id).all()
    assert np.count_nonzero(blocks == tokenizer.eos_token_id) == 1
    text = tokenizer.decode(blocks[:, 1:].ravel(), skip_special_tokens=True)
    assert token_bytes(tokenizer)[blocks].sum() == len(text.encode())
    assert split_held_out([]) == ("", "")


def test_tiny_run_makes_a_folder_that_transformers_loads(tmp_path):
    book = lzma.decompress(demo.text_path("calibration").read_bytes()).decode()[:12_000]
    (tmp_path / "book.txt").write_text(book)
    command = ["train.py", tmp_path / "book.txt", tmp_path / "out", "--steps", "2", "--batch", "1"]
    command += ["--checkpoints", "2", "--held-out", tmp_path / "book.txt"]
    run = subprocess.run([sys.executable, *map(str, command)], cwd=TRAINING, check=True, capture_output=True)
    assert b"# first 6 MB: bits_per_byte=" in run.stdout
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for folder in (tmp_path / "out", tmp_path / "out" / "checkpoints" / "step-000002"):
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.dtype == torch.bfloat16
        assert model(**tokenizer("A dark night", return_tensors="pt")).logits.isfinite().all()
