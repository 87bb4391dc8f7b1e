"""Compiled passes beside eager ones: the same sums, one compilation for layers alike, no trace, a way out.

The compiler's front end (capture, autograd, guards) is what can go wrong here; only one test generates code.
"""

import functools
import shutil
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from scarprune.errors import MemoryBudgetError
from scarprune.models.compiled import compiled_layers
from scarprune.models.head import find_head
from scarprune.profile import compiling as compiling_module
from scarprune.profile import estimate as estimate_module
from scarprune.profile import passes as passes_module
from scarprune.profile import run as run_module
from scarprune.profile.accumulate import SumsPass
from scarprune.profile.compiling import even_batch, resolve
from scarprune.profile.estimate import matmul_rate
from scarprune.profile.loss import Rows, loss_rows
from scarprune.profile.run import profile_model
from scarprune.profile.sums import Profile
from scarprune.runtime.ranks import Ranks
from scarprune.text.blocks import Blocks
from support.tiny_models import tiny_model

real_compile = torch.compile


@pytest.fixture
def no_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Layers are captured and differentiated as for the compiler, and then run operation by operation."""
    monkeypatch.setattr(torch, "compile", functools.partial(real_compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def blocks() -> Blocks:
    ids = np.random.default_rng(0).integers(3, 90, size=(7, 12))
    return Blocks(ids=ids, lengths=np.full(7, 12), bytes=None, protocol="tokens", source="test")


def close(found: Profile, expected: Profile, rtol: float) -> None:
    assert found.tensors.keys() == expected.tensors.keys()
    for key, array in expected.tensors.items():
        largest = np.abs(array).max()
        np.testing.assert_allclose(found.tensors[key], array, rtol=rtol, atol=rtol * largest, err_msg=key)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.usefixtures("no_code")
def test_compiled_sums_equal_eager_ones(family: str, blocks: Blocks) -> None:
    """Three whole batches of two and an odd one, both kinds of labels, both passes."""
    options: dict[str, Any] = {"batch": 2, "labels": "both", "rho": 0.1}
    eager = profile_model(tiny_model(family), blocks, compiled=False, **options)
    compiled = profile_model(tiny_model(family), blocks, compiled=True, **options)
    assert counters["stats"]["unique_graphs"] >= 3  # loss, and a layer in each pass
    assert not counters["graph_break"]
    assert compiled.header["provenance"]["compiled"] is True
    assert eager.header["provenance"]["compiled"] is False
    close(compiled, eager, 1e-5)


@pytest.mark.usefixtures("no_code")
def test_layers_alike_are_compiled_once(blocks: Blocks) -> None:
    """Once with nothing to compute backwards below its sums, and once for all other layers."""
    model = tiny_model("llama", num_hidden_layers=5)
    profile_model(model, blocks, batch=7, redundancy=False, compiled=True)
    assert counters["stats"]["unique_graphs"] == 3  # the third is the loss
    profile_model(model, blocks, batch=7, redundancy=False, compiled=True)
    assert counters["stats"]["unique_graphs"] == 3


@pytest.mark.usefixtures("no_code")
def test_no_trace_is_left() -> None:
    model = tiny_model("llama")
    head, ids = find_head(model), torch.arange(3, 15)[None]
    state, modules = list(model.state_dict()), list(model.named_modules())
    attributes = [set(vars(module)) for module in model.modules()]

    def fail_inside() -> None:
        with compiled_layers(model):
            head.hidden(ids)
            assert counters["stats"]["unique_graphs"] == 1
            assert list(model.state_dict()) == state
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail_inside()
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert list(model.named_modules()) == modules
    head.hidden(ids[:, :5])
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.usefixtures("no_code")
@torch.no_grad()
def test_hooks_count_that_come_after_a_compilation() -> None:
    """By itself dynamo looks at hooks once and then runs what it has."""
    model = tiny_model("llama").requires_grad_(False)
    head, ids = find_head(model), torch.arange(3, 15)[None]
    dense = head.hidden(ids)
    down = model.get_submodule("model.layers.1.mlp.down_proj")
    with compiled_layers(model):
        torch.testing.assert_close(head.hidden(ids), dense)
        handle = down.register_forward_pre_hook(lambda module, args: (0 * args[0],))
        found = head.hidden(ids)
        handle.remove()
        torch.testing.assert_close(head.hidden(ids), dense)
    saved = down.weight.clone()
    down.weight.zero_()
    torch.testing.assert_close(found, head.hidden(ids))
    down.weight.copy_(saved)
    assert float((found - dense).abs().max()) > 0.01


@pytest.mark.parametrize("at", [6, 10])
def test_a_compiler_that_fails_is_told_and_left(
    at: int, blocks: Blocks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the second of two sites, in the first or the third batch: that batch is taken again.

    Before, the first batch's two blocks are taken eagerly, one by one.
    """
    calls = []
    original = SumsPass.take

    def breaks(self: Any, *args: Any) -> None:
        calls.append(1)
        if len(calls) == at:
            raise RuntimeError("no such instruction\nand more")
        original(self, *args)

    expected = profile_model(tiny_model("llama"), blocks, batch=2, compiled=False)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(SumsPass, "take", breaks)
    found = profile_model(tiny_model("llama"), blocks, batch=2, compiled=True)
    said = "torch.compile failed, so the rest runs eagerly: no such instruction\n"
    assert capsys.readouterr().err.count(said) == 1
    assert found.header["provenance"]["compiled"] is False
    close(found, expected, 1e-6)


def test_an_error_that_is_not_the_compilers_stays_one(
    blocks: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: Any, *args: Any) -> None:
        raise RuntimeError("broken weights")

    monkeypatch.setattr(passes_module.Run, "_batch", breaks)
    for compiled in (False, True):
        with pytest.raises(RuntimeError, match="broken weights"):
            profile_model(tiny_model("llama"), blocks, batch=2, compiled=compiled)


def test_auto_stays_off_on_a_cpu_and_counts_the_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    assert resolve("auto", model, 1e15, 1) is False
    assert resolve(True, model, 1, 1) is True
    # A token of a thousand weights takes 4 seconds at a ceiling of a thousand operations a second.
    monkeypatch.setattr(compiling_module, "matmul_rate", lambda dtype, device: 1000.0)
    monkeypatch.setattr(compiling_module, "matmul_parameters", lambda model: 1000)
    on_gpu = SimpleNamespace(dtype=torch.bfloat16, device=torch.device("cuda", 0))
    monkeypatch.setattr(torch.nn.Module, "parameters", lambda self: iter([on_gpu]))
    saved = 4 * (1 / compiling_module._EAGER_SHARE - 1 / compiling_module._COMPILED_SHARE)
    needed = 2 * compiling_module._SECONDS_TO_COMPILE / saved
    assert resolve("auto", model, needed * 1.01, 2) is True
    assert resolve("auto", model, needed * 0.99, 2) is False


@pytest.mark.parametrize(("batch", "blocks_", "even"), [(25, 128, 16), (32, 128, 32), (7, 13, 7), (5, 5, 5)])
def test_a_batch_that_leaves_no_odd_one(batch: int, blocks_: int, even: int) -> None:
    assert even_batch(batch, blocks_) == even


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_generated_code_gives_the_same_loss_rows() -> None:
    output, targets = torch.randn(9, 50), torch.tensor([3, 0, 49, -1, 7, 7, -1, 12, 30])
    plain = loss_rows(output, targets, 2.0, 0.5, 3.0)
    for a, b in zip(real_compile(loss_rows)(output, targets, 2.0, 0.5, 3.0), plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_each_size_of_vocabulary_is_a_program_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels for any size are several times slower, and one after another is what two models are."""
    sizes: list[list[Any]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        sizes.append([value for value in inputs if isinstance(value, torch.SymInt)])
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(real_compile, backend=backend))
    torch._dynamo.reset()
    for vocabulary in (50, 60, 70):
        rows = Rows(compiled=True)
        output, here = torch.randn(9, vocabulary), torch.arange(9)
        arguments = output, here, 2.0, 1.0, None
        for found, expected in zip(rows.whole(*arguments), loss_rows(*arguments), strict=True):
            torch.testing.assert_close(found, expected)
        rows._loss(output, here, 1.0, None)
        rows._gradient(output, here, output.logsumexp(-1), torch.ones(9), 1.0, None)
    torch._dynamo.reset()
    assert sizes == [[]] * 9


def test_the_rate_of_products_is_measured_with_what_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def timed(m: int, k: int, n: int, dtype: torch.dtype, device: torch.device) -> float:
        tried.append(m)
        if 3 * m * n * 4 > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return 5.0

    monkeypatch.setattr(estimate_module, "_timed_product", timed)
    monkeypatch.setattr(estimate_module, "release_cached", lambda device: None)
    room = 300 << 20
    assert matmul_rate(torch.float32, torch.device("cuda")) == 5.0
    assert tried == [8192, 4096]
    room = 1 << 20
    with pytest.raises(MemoryBudgetError, match=r"cuda has no memory free beside the model"):
        matmul_rate(torch.float32, torch.device("cuda"))
    on_gpu = SimpleNamespace(dtype=torch.float32, device=torch.device("cuda"))
    monkeypatch.setattr(compiling_module, "matmul_parameters", lambda model: 1 << 40)
    model = tiny_model("llama")
    monkeypatch.setattr(torch.nn.Module, "parameters", lambda self: iter([on_gpu]))
    assert resolve("auto", model, 1e15, 1) is False


def test_a_processor_is_timed_when_it_is_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the first four products takes four times as long as those after them."""
    moments = iter(np.cumsum([0.0, *np.tile([0.04, 0.0], 4), *np.tile([0.01, 0.0], 100)]).tolist())
    monkeypatch.setattr(estimate_module, "time", SimpleNamespace(perf_counter=lambda: next(moments)))
    estimate_module._timed_product.cache_clear()
    rate = matmul_rate(torch.float32, torch.device("cpu"))
    estimate_module._timed_product.cache_clear()
    assert rate == pytest.approx(2 * 1024 * 512 * 1024 / 0.01)


def test_the_parts_of_a_copy_compile_together_or_not_at_all(
    blocks: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each times its own device; here another part has found that it does not pay."""
    monkeypatch.setattr(run_module, "resolve", lambda *given: True)
    monkeypatch.setattr(Ranks, "least_of_copy", lambda self, value: 0.0 if value is True else value)
    profile = profile_model(tiny_model("llama"), blocks, batch=2)
    assert profile.header["provenance"]["compiled"] is False
