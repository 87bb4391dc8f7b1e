"""A compiler that computes something else is found before a batch of its counts, whatever way layers go."""

import functools
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scarprune.models import compiled as compiled_module
from scarprune.models.streamed import stream
from scarprune.profile import passes as passes_module
from scarprune.profile import ways
from scarprune.profile.accumulate import SumsPass
from scarprune.profile.compiling import Compiling
from scarprune.profile.proof import Proof
from scarprune.profile.run import profile_model
from scarprune.text.blocks import Blocks
from support.tiny_models import tiny_model

SITE = "model.layers.0.mlp.down_proj"


@pytest.fixture(scope="module")
def blocks():
    ids = np.random.default_rng(0).integers(3, 90, size=(7, 12))
    return Blocks(ids=ids, lengths=np.full(7, 12), bytes=None, protocol="tokens", source="test")


@pytest.fixture
def uncompiled(monkeypatch):
    """What would be compiled is run as it is: nothing is wrong, and nothing takes long."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


@pytest.mark.parametrize("way", ["whole", "checkpointed", "streamed"])
def test_layers_whose_gradient_the_compiler_halves_are_found(way, blocks, monkeypatch, capsys):
    """s is halved in the second layer and again in the first: of its sum of q^2 a sixteenth is left."""

    def halving(layer, *args, **kwargs):
        out = layer._call_impl(*args, **kwargs)
        return (out + out.detach()) / 2 if torch.compiler.is_compiling() else out

    options = {"batch": 2, "labels": "both", "rho": 0.1}
    eager = profile_model(tiny_model("llama"), blocks, compiled=False, **options)
    first = profile_model(tiny_model("llama"), blocks.take(np.arange(2)), compiled=False, **options)

    model = tiny_model("llama")
    if way == "streamed":
        stream(model, torch.device("cpu"))
    else:
        choose = ways.choose_way
        monkeypatch.setattr(ways, "choose_way", lambda *args: replace(choose(*args), kind=way))
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(compiled_module, "_run_layer", halving)
    capsys.readouterr()
    found = profile_model(model, blocks, compiled=True, **options)
    torch._dynamo.reset()

    said = capsys.readouterr().err
    pattern = rf"eagerly: {SITE}/((?:model/)?sum_q2) of the same blocks is (\S+) compiled and (\S+) eagerly"
    [(name, wrong, right)] = re.findall(pattern, said)
    assert float(right) == pytest.approx(first.get(SITE, name).sum(), rel=1e-3)
    assert float(wrong) == pytest.approx(float(right) / 16, rel=1e-3)
    assert found.header["provenance"]["compiled"] is False
    for key, array in eager.tensors.items():
        np.testing.assert_allclose(found.tensors[key], array, rtol=1e-5, atol=1e-5 * np.abs(array).max())


@pytest.mark.usefixtures("uncompiled")
def test_one_batch_of_a_run_and_of_a_batch_size_is_taken_eagerly_and_not_counted(blocks, monkeypatch):
    original, taken = passes_module.Run._batch, []

    def hungry(self, observer, kinds, rows):
        original(self, observer, kinds, rows)
        taken.append((rows.tolist(), isinstance(observer, SumsPass)))
        if rows.tolist() == [2, 3]:
            raise torch.OutOfMemoryError("no more")

    expected = profile_model(tiny_model("llama"), blocks, batch=1, compiled=False)
    monkeypatch.setattr(passes_module.Run, "_batch", hungry)
    choose = ways.choose_way
    monkeypatch.setattr(ways, "choose_way", lambda *args: replace(choose(*args), batch=2))
    monkeypatch.setattr(ways, "even_batch", lambda batch, count: batch)
    found = profile_model(tiny_model("llama"), blocks, compiled=True)
    assert found.header["provenance"]["compiled"] is True
    of_pass_1 = [rows for rows, is_pass_1 in taken if is_pass_1]
    assert of_pass_1 == [[1], [0], [0, 1], [2, 3], [2], [2], [3], [4], [5], [6]]
    for key, array in expected.tensors.items():
        np.testing.assert_allclose(found.tensors[key], array, rtol=1e-5, atol=1e-5 * np.abs(array).max())


@pytest.mark.usefixtures("uncompiled")
def test_where_memory_does_not_do_for_an_eager_batch_the_run_goes_on(blocks, monkeypatch, capsys):
    original, taken = passes_module.Run._batch, []

    def hungry(self, observer, kinds, rows):
        taken.append(1)
        if len(taken) == 1:
            raise torch.OutOfMemoryError("no more")
        original(self, observer, kinds, rows)

    expected = profile_model(tiny_model("llama"), blocks, batch=1, compiled=False, redundancy=False)
    monkeypatch.setattr(passes_module.Run, "_batch", hungry)
    found = profile_model(tiny_model("llama"), blocks, batch=1, compiled=True, redundancy=False)
    assert len(taken) == 1 + len(blocks)
    assert capsys.readouterr().err.count("There is no memory for an eager batch") == 1
    np.testing.assert_array_equal(found.get(SITE, "sum_q2"), expected.get(SITE, "sum_q2"))


class _Seen(SumsPass):
    """Tells one number of the batch that counts, and half of one of each that does not."""

    def __init__(self, counted, proof):
        self.told = [counted, proof / 2, proof / 2]

    def sizes(self):
        return {"a/sum_q2": self.told[self.number]}


@pytest.mark.parametrize(
    ("compiled", "eager", "least", "holds", "proven"),
    [
        (1.05, 1.0, 2, True, True),
        (1.2, 1.0, 2, False, False),
        (0.0, 1.0, 2, False, False),
        (math.nan, 1.0, 2, False, False),
        (0.0, 0.0, 2, True, True),
        (1.0, 1.0, 0, False, False),  # another part of the copy found a difference
        (1.0, 1.0, 1, True, False),
        (math.inf, math.inf, 2, True, False),  # float16: another scale is tried, and compared then
    ],
)
def test_what_is_a_difference(compiled, eager, least, holds, proven):
    run = SimpleNamespace(
        compiling=Compiling(True, np.array([4])),
        takes=lambda rows: True,
        ranks=SimpleNamespace(least_of_copy=lambda value: min(value, least)),
    )
    observer = _Seen(compiled, eager)
    proof = Proof(run, observer, [np.arange(2)])
    assert [rows.tolist() for rows in proof.batches] == [[0, 1], [0], [1]]
    for number in (2, 1, 0):
        observer.number = number
        proof.see(number, observer)
    assert (proof.holds(), run.compiling.proven, run.compiling.on) == (holds, proven, holds)
