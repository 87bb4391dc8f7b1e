"""A run that is stopped and goes on gives the same bits as one that is not."""

import numpy as np
import pytest
import torch

from scarprune.errors import ArtifactError, MemoryBudgetError
from scarprune.profile import passes as passes_module
from scarprune.profile import run as run_module
from scarprune.profile import state as state_module
from scarprune.profile.run import profile_model
from scarprune.text.blocks import Blocks
from support.tiny_models import tiny_model


@pytest.fixture
def blocks():
    ids = np.random.default_rng(1).integers(3, 96, size=(10, 12))
    return Blocks(ids=ids, lengths=np.full(10, 12), bytes=None, protocol="tokens", source="test")


@pytest.fixture
def keep_always(monkeypatch):
    monkeypatch.setattr(state_module.Keeper, "due", lambda self: self.path is not None)


class Stop(Exception):
    pass


def stop_after(monkeypatch, batches):
    """Break off in the backward pass of the batch after ``batches``."""
    original, count = passes_module.Run._batch, []

    def counting(self, *args):
        original(self, *args)
        count.append(1)
        if len(count) > batches:
            raise Stop

    monkeypatch.setattr(passes_module.Run, "_batch", counting)
    return lambda: monkeypatch.setattr(passes_module.Run, "_batch", original)


@pytest.mark.parametrize("batches", [1, 3, 4, 6])  # five batches a pass
def test_resume_gives_the_same_bits(blocks, tmp_path, monkeypatch, keep_always, batches):
    whole = profile_model(tiny_model("llama"), blocks, batch=2, labels="both")
    state = tmp_path / "p.safetensors.partial"
    restore = stop_after(monkeypatch, batches)
    with pytest.raises(Stop):
        profile_model(tiny_model("llama"), blocks, batch=2, labels="both", resume=state)
    restore()
    assert state.exists()
    resumed = profile_model(tiny_model("llama"), blocks, batch="auto", labels="both", resume=state)
    assert not state.exists()
    assert resumed.tensors.keys() == whole.tensors.keys()
    for key, array in whole.tensors.items():
        assert np.array_equal(array, resumed.tensors[key]), key


@pytest.mark.parametrize(
    ("phase", "next_block", "kinds", "redundancy", "expected"),
    [
        (1, 0, ("data",), False, 120),
        (1, 0, ("data",), True, 240),
        (1, 4, ("data", "model"), True, 72 * 1.5 + 120),
        (2, 4, ("data", "model"), True, 72),
    ],
)
def test_the_time_said_counts_what_is_left(blocks, phase, next_block, kinds, redundancy, expected):
    state = state_module.State({}, phase=phase, next_block=next_block)
    wanted = run_module._Wanted(kinds, redundancy, 0.01, 0)
    assert wanted.tokens_left(state, blocks.lengths) == expected


def test_a_state_of_another_run_is_refused(blocks, tmp_path, monkeypatch, keep_always):
    state = tmp_path / "p.partial"
    restore = stop_after(monkeypatch, 2)
    with pytest.raises(Stop):
        profile_model(tiny_model("llama"), blocks, batch=2, resume=state)
    restore()
    with pytest.raises(ArtifactError, match="its text differ"):
        profile_model(tiny_model("llama"), blocks.take(np.arange(5)), batch=2, resume=state)
    state.write_bytes(state.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match="damaged"):
        profile_model(tiny_model("llama"), blocks, batch=2, resume=state)


def test_batch_halves_where_memory_runs_out(blocks, monkeypatch, capsys):
    whole = profile_model(tiny_model("llama"), blocks, batch=1)
    original = passes_module.Run._batch

    def hungry(self, observer, kinds, rows):
        original(self, observer, kinds, rows)  # sums of the failed batch must not count
        if len(rows) > 2:
            raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(passes_module.Run, "_batch", hungry)
    halved = profile_model(tiny_model("llama"), blocks)
    assert "Out of memory: going on with" in capsys.readouterr().err
    for site in whole.sites:
        np.testing.assert_allclose(halved.get(site.name, "sum_q2"), whole.get(site.name, "sum_q2"), rtol=1e-5)
    with pytest.raises(MemoryBudgetError, match="A batch of 4 blocks of 12 tokens"):
        profile_model(tiny_model("llama"), blocks, batch=4)
