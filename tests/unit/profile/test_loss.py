"""The loss and its gradient at the last hidden states, against autograd in float64 over whole logits."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from scarprune.models.head import Head
from scarprune.profile import loss as loss_module
from scarprune.profile.loss import Rows, loss_gradient, loss_rows, part_of_loss, sample
from support.tiny_models import tiny_model

B, T, D, V = 3, 7, 32, 96


def head_of(factor: float, softcap: float | None, dtype: torch.dtype = torch.float32) -> Head:
    model = tiny_model("llama").to(dtype).requires_grad_(False)
    return Head(model, scale=factor, softcap=softcap)


def brute_force(head: Head, hidden: torch.Tensor, targets: torch.Tensor, scale: float) -> tuple[Any, Any]:
    weight = head.model.get_output_embeddings().weight.double()  # type: ignore[operator]
    states = hidden.double().requires_grad_()
    logits = states[:, :-1] @ weight.T * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    nats = F.cross_entropy(logits.reshape(-1, V), targets.reshape(-1), reduction="sum")
    (nats * scale).backward()  # type: ignore[no-untyped-call]
    return nats.detach(), states.grad


@pytest.mark.parametrize("tokens", [1000, 4])  # all in one chunk; six chunks, the last one short
@pytest.mark.parametrize(("factor", "softcap"), [(1.0, None), (2.5, None), (0.5, 0.3)])
def test_gradient_of_both_kinds_of_labels(
    factor: float, softcap: float | None, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "chunk_tokens", lambda vocabulary, device, most=None: tokens)
    torch.manual_seed(0)
    head, hidden = head_of(factor, softcap), 3 * torch.randn(B, T, D)
    ids, draws = torch.randint(V, (B, T)), torch.rand(B, T - 1)
    found = loss_gradient(head, hidden, ids, ("data", "model"), draws, V, scale=4.0)
    drawn = sample(head.logits(hidden[:, :-1]).reshape(-1, V), draws.reshape(-1)).view(B, T - 1)
    for kind, targets in (("data", ids[:, 1:]), ("model", drawn)):
        nats, gradient = brute_force(head, hidden, targets, 4.0)
        assert float(found.loss[kind]) == pytest.approx(float(nats), rel=1e-5)
        torch.testing.assert_close(found.gradient[kind].double(), gradient, rtol=1e-4, atol=1e-6)
        assert not found.gradient[kind][:, -1].any()  # the last position predicts nothing


def test_half_precision_stays_within_its_rounding() -> None:
    torch.manual_seed(0)
    head, hidden, ids = head_of(1.0, None, torch.bfloat16), torch.randn(B, T, D), torch.randint(V, (B, T))
    half = hidden.bfloat16()
    found = loss_gradient(head, half, ids, ("data",), None, V).gradient["data"]
    _, gradient = brute_force(head, half.float(), ids[:, 1:], 1.0)
    assert found.dtype == torch.bfloat16
    # One rounding of each logit's gradient and one of the sum, 2^-9 each, of terms that add up to two.
    weight = head.model.get_output_embeddings().weight  # type: ignore[operator]
    allowed = 2.0**-8 * float(gradient.abs().max()) + 2 * 2.0**-8 * float(weight.float().abs().max())
    assert float((found.double() - gradient).abs().max()) < allowed


@pytest.mark.parametrize(("factor", "softcap"), [(1.0, None), (2.5, None), (0.5, 0.3)])
def test_parts_of_a_vocabulary_give_what_the_whole_does(factor: float, softcap: float | None) -> None:
    """Of two parts, 50 ids and 46: their own shares of the gradient, and the loss of both together."""
    torch.manual_seed(0)
    output, targets = 3 * torch.randn(9, V), torch.tensor([0, 7, 49, 50, 51, 95, -1, 49, -1])
    nats, expected = loss_rows(output, targets, 4.0, factor, softcap)
    for start, stop in ((0, 50), (50, V)):
        known: list[torch.Tensor] = []
        for first, last in ((0, 50), (50, V)):
            place = torch.where(targets < 0, -1, targets - first)
            known.append(part_of_loss(output[:, first:last], place, factor, softcap))
        part = SimpleNamespace(start=start, of_all=lambda mine, known=known: torch.stack(known))
        found, gradient = Rows().part(part, output[:, start:stop], targets, 4.0, factor, softcap)  # type: ignore[arg-type]
        assert float(found) == pytest.approx(float(nats), rel=1e-6)
        torch.testing.assert_close(gradient, expected[:, start:stop])
