"""Sums beside a gate's gradients: the same profile, with kernels of plain torch in place of Triton's."""

import functools
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.utils import counters

from scarprune.models.find import find_sites
from scarprune.models.head import find_head
from scarprune.models.streamed import stream
from scarprune.profile import accumulate as accumulate_module
from scarprune.profile import gate as gate_module
from scarprune.profile import watch as watch_module
from scarprune.profile import ways
from scarprune.profile.estimate import _saved_bytes
from scarprune.profile.gate import ACTIVATIONS, activation_of
from scarprune.profile.passes import Run
from scarprune.profile.run import profile_model
from scarprune.profile.sums import Profile
from scarprune.text.blocks import Blocks
from support.exact_sums import exact_parts, exact_rows, write_squares
from support.tiny_models import tiny_model

IDS = np.random.default_rng(0).integers(3, 90, size=(5, 12))
BLOCKS = Blocks(ids=IDS, lengths=np.full(5, 12), bytes=None, protocol="tokens", source="test")
OPTIONS: dict[str, Any] = {"batch": 2, "labels": "both", "rho": 0.1}


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Kernels of plain torch; the activations whose gradients they were asked for."""
    asked: list[str] = []

    def launch(u: torch.Tensor, s: torch.Tensor, sums: torch.Tensor, chunk: int) -> None:
        sums.copy_(exact_parts(u, s, chunk))

    def launch_rows(sums: torch.Tensor, membership: torch.Tensor, rows: torch.Tensor) -> None:
        rows.copy_(exact_rows(sums, membership))

    def product(gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
        return ACTIVATIONS[activation](gate) * up

    def launch_gate(
        gate: torch.Tensor,
        up: torch.Tensor,
        s: torch.Tensor,
        sums: torch.Tensor,
        activation: str,
        chunk: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(activation)
        launch(product(gate, up, activation), s, sums, chunk)
        value, slope = torch.func.jvp(ACTIVATIONS[activation], (gate,), (torch.ones_like(gate),))
        return s * up * slope, s * value

    kernel = SimpleNamespace(launch=launch, launch_gate=launch_gate, product=product)
    monkeypatch.setitem(sys.modules, "scarprune.profile.token_kernel", kernel)
    monkeypatch.setattr(sys.modules["scarprune.profile"], "token_kernel", kernel, raising=False)
    monkeypatch.setitem(sys.modules, "scarprune.profile.row_kernel", SimpleNamespace(launch=launch_rows))
    monkeypatch.setitem(sys.modules, "scarprune.profile.input_kernel", SimpleNamespace(launch=write_squares))
    for module in (accumulate_module, gate_module):
        monkeypatch.setattr(module, "has_kernel", lambda dtype, device: True)
    gate_module._works.cache_clear()
    yield asked
    gate_module._works.cache_clear()


def close(found: Profile, expected: Profile) -> None:
    assert found.tensors.keys() == expected.tensors.keys()
    for key, array in expected.tensors.items():
        largest = np.abs(array).max()
        np.testing.assert_allclose(found.tensors[key], array, rtol=1e-5, atol=1e-5 * largest, err_msg=key)


@pytest.fixture(scope="module")
def plain() -> Profile:
    return profile_model(tiny_model("llama"), BLOCKS, compiled=False, **OPTIONS)


@pytest.mark.parametrize("family", ["llama", "gemma", "gemma2", "granite"])
def test_every_activation_gives_the_plain_profile(family: str, request: pytest.FixtureRequest) -> None:
    expected = profile_model(tiny_model(family), BLOCKS, compiled=False, **OPTIONS)
    asked = request.getfixturevalue("gates")
    close(profile_model(tiny_model(family), BLOCKS, compiled=False, **OPTIONS), expected)
    # The second of two sites: three batches, two kinds of labels, and a second pass with one.
    assert len(asked) >= 9
    assert len(set(asked)) == 1


@pytest.mark.parametrize("way", ["streamed", "checkpointed"])
def test_layers_made_again_give_it_too(
    way: str, plain: Profile, gates: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    if way == "streamed":
        stream(model, torch.device("cpu"))
    else:
        choose = ways.choose_way
        chosen = functools.partial(replace, kind="checkpointed")
        monkeypatch.setattr(ways, "choose_way", lambda *args: chosen(choose(*args)))
    close(profile_model(model, BLOCKS, compiled=False, **OPTIONS), plain)
    assert len(gates) >= 9


def test_streamed_layers_give_the_kernels_product_forward_as_well(
    gates: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kernel rounds otherwise than the model does is the same in every pass through a layer."""

    def rounded_otherwise(gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
        return ACTIVATIONS[activation](gate) * up * (1 + 2e-6)

    monkeypatch.setattr(sys.modules["scarprune.profile.token_kernel"], "product", rounded_otherwise)
    whole = profile_model(tiny_model("llama"), BLOCKS, compiled=False, **OPTIONS)
    model = stream(tiny_model("llama"), torch.device("cpu"))
    found = profile_model(model, BLOCKS, compiled=False, **OPTIONS)
    assert gates
    for key, array in whole.tensors.items():
        largest = np.abs(array).max()
        np.testing.assert_allclose(found.tensors[key], array, rtol=2e-7, atol=2e-7 * largest, err_msg=key)


def test_compiled_layers_give_it_too(
    plain: Profile, gates: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    found = profile_model(tiny_model("llama"), BLOCKS, compiled=True, **OPTIONS)
    torch._dynamo.reset()
    close(found, plain)
    assert found.header["provenance"]["compiled"] is True
    assert not counters["graph_break"]
    assert len(gates) >= 9


def test_where_the_gates_kernel_fails_it_is_said_once_and_sums_are_made_without(
    plain: Profile, gates: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: Any) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(sys.modules["scarprune.profile.token_kernel"], "launch_gate", broken)
    close(profile_model(tiny_model("llama"), BLOCKS, compiled=False, **OPTIONS), plain)
    profile_model(tiny_model("llama", num_hidden_layers=4), BLOCKS, compiled=False, **OPTIONS)
    assert capsys.readouterr().err.count("so they take longer: no such instruction") == 1


def test_of_a_gated_site_gate_and_up_alone_are_kept_and_counted(
    gates: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not silu(gate), nor u: the model's own product is thrown away, with what it had saved."""
    model = tiny_model("llama").requires_grad_(False)
    sites, head = find_sites(model), find_head(model)

    def counted() -> int:
        return _saved_bytes(model, sites, lambda tokens: head.hidden(torch.zeros(1, tokens).long()), 16, {})

    gated = counted()
    for module in (accumulate_module, gate_module):
        monkeypatch.setattr(module, "has_kernel", lambda dtype, device: False)
    assert counted() - gated == 2 * sites[1].width * 4 * 16


@pytest.mark.parametrize("family", ["gpt2", "phi3"])
def test_networks_without_a_gate_of_their_own_are_watched_as_before(family: str, gates: list[str]) -> None:
    profile_model(tiny_model(family), BLOCKS, compiled=False, **OPTIONS)
    assert not gates


def test_only_what_the_kernels_give_is_taken_for_their_activation(gates: list[str]) -> None:
    torch.manual_seed(0)
    gate, up = torch.randn(2, 3, 40), torch.randn(2, 3, 40)
    for name, function in ACTIVATIONS.items():
        assert activation_of(gate, up, function(gate) * up) == name
    for u in (F.relu(gate) * up, 1.01 * F.silu(gate) * up, F.silu(up) * gate, F.silu(gate)):
        assert activation_of(gate, up, u) == ""
    assert activation_of(gate, up[..., :20], F.silu(gate) * up) == ""
    zero = torch.zeros(2, 3, 40)  # every activation gives it
    assert activation_of(zero, up, zero) == ""


@pytest.mark.parametrize("compiled", [False, True])
def test_tokens_that_are_zeros_do_not_choose_the_activation(
    compiled: bool, gates: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a text begins with padding, whose embedding is zero, and the model has no biases."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))

    def model() -> Any:
        found = tiny_model("gemma")
        with torch.no_grad():
            found.get_input_embeddings().weight[0] = 0.0
        return found

    ids = IDS.copy()
    ids[:, :4] = 0
    blocks = replace(BLOCKS, ids=ids)
    torch._dynamo.reset()
    found = profile_model(model(), blocks, compiled=compiled, **OPTIONS)
    torch._dynamo.reset()
    assert found.header["provenance"]["compiled"] is compiled
    assert set(gates) == {"gelu_tanh"}  # and not that none is taken
    monkeypatch.setattr(accumulate_module, "has_kernel", lambda dtype, device: False)
    monkeypatch.setattr(gate_module, "has_kernel", lambda dtype, device: False)
    close(found, profile_model(model(), blocks, compiled=False, **OPTIONS))


def test_sites_are_looked_at_once_for_all_passes(
    plain: Profile, gates: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    def counted(*tensors: torch.Tensor) -> str:
        looked.append(1)
        return activation_of(*tensors)

    monkeypatch.setattr(watch_module, "activation_of", counted)
    close(profile_model(tiny_model("llama"), BLOCKS, compiled=False, **OPTIONS), plain)
    assert len(looked) == 2


@pytest.mark.parametrize(("streamed", "extra"), [(False, 0), (True, 1)])
def test_no_pass_is_made_for_the_compiler_where_the_sites_were_seen(
    streamed: bool, extra: int, plain: Profile, gates: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers that are streamed come once more before the first of two passes, since one alone was seen."""
    made: list[int] = []

    def touch(run: Run) -> None:
        made.append(1)
        real(run)

    real = Run._touch
    monkeypatch.setattr(Run, "_touch", touch)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    model = tiny_model("llama")
    if streamed:
        stream(model, torch.device("cpu"))
    found = profile_model(model, BLOCKS, compiled=True, **OPTIONS)
    torch._dynamo.reset()
    close(found, plain)
    assert found.header["provenance"]["compiled"] is True
    assert len(made) == extra
