"""Every family can be walked layer by layer, and that gives the model's own hidden states."""

import numpy as np
import pytest
import torch

from scarprune.errors import UnsupportedModelError
from scarprune.profile.walk import Walk
from scarprune.text.blocks import Blocks
from support.tiny_models import TINY_FAMILIES, tiny_model

LENGTHS = (24, 24, 16, 24, 24)


def blocks() -> Blocks:
    ids = np.random.default_rng(0).integers(3, 90, (len(LENGTHS), 24))
    return Blocks(ids=ids, lengths=np.array(LENGTHS), bytes=None, protocol="tokens", source="random")


@torch.no_grad()
def handed_on(model: torch.nn.Module, walk: Walk, rows: np.ndarray) -> list[torch.Tensor]:
    """Hidden states after each layer, as the model's own forward pass makes them."""
    after: list[torch.Tensor] = []

    def see(module: torch.nn.Module, args: tuple[object, ...], out: object) -> None:
        after.append(out[0] if isinstance(out, tuple) else out)

    handles = [layer.module.register_forward_hook(see) for layer in walk.layers]
    model(input_ids=walk.ids(rows), use_cache=False)
    for handle in handles:
        handle.remove()
    return after


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_walked_hidden_states_are_those_the_model_hands_on(family: str) -> None:
    model = tiny_model(family).eval()
    walk = Walk(model, blocks(), batch=2)
    assert sorted(np.concatenate(walk.batches).tolist()) == list(range(len(LENGTHS)))
    for rows in walk.batches:
        with torch.no_grad():
            hidden = walk.embedded(rows)
            for index, expected in enumerate(handed_on(model, walk, rows)):
                hidden = walk.step(index, hidden)
                torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-6)


def test_a_model_that_does_more_between_its_layers_is_refused() -> None:
    model = tiny_model("llama").eval()
    inner = model.model.layers[1].forward

    calls = 0

    def changing(hidden_states: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return inner(hidden_states * (1 + calls), *args, **kwargs)  # another function each time

    model.model.layers[1].forward = changing
    with pytest.raises(UnsupportedModelError, match="does more between its layers"):
        Walk(model, blocks(), batch=2)
