"""Full collections are rare in a command, and passes leave them nothing that matters."""

import gc
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from scarprune.cli import main as cli
from scarprune.distill.heal import heal
from scarprune.evaluate.perplexity import perplexity
from scarprune.profile.run import profile_model
from scarprune.text.blocks import Blocks
from support.healing import dense_and_cut, text
from support.tiny_models import TINY_FAMILIES, tiny_model


@pytest.fixture
def thresholds() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)


@pytest.fixture
def only_collected() -> Iterator[Callable[[], list[torch.Tensor]]]:
    """What gives the tensors made since then that nothing but a collection finds."""
    gc.collect()
    gc.disable()
    # Other tests' tensors may be garbage only now; a weak reference to one would be gone by then.
    before = {id(found) for found in gc.get_objects() if issubclass(type(found), torch.Tensor)}
    gc.set_debug(gc.DEBUG_SAVEALL)

    def collected() -> list[torch.Tensor]:
        gc.collect()
        tensors = [found for found in gc.garbage if issubclass(type(found), torch.Tensor)]
        return [tensor for tensor in tensors if id(tensor) not in before]

    yield collected
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def test_a_command_collects_young_objects_as_ever_and_all_of_them_rarely(
    thresholds: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "run", lambda: 0)
    with pytest.raises(SystemExit):
        cli.main()
    young, middle, full = gc.get_threshold()
    assert (young, middle) == thresholds[:2]
    # Releases from 3.14 on may collect all objects bit by bit: those say 0.
    assert full >= 100 or (full == 0 and sys.version_info >= (3, 14))


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_passes_leave_no_tensor_to_the_collector(
    family: str, only_collected: Callable[[], list[torch.Tensor]]
) -> None:
    """Else activations would stay in memory until the next full collection."""
    model = tiny_model(family)
    ids = np.random.default_rng(0).integers(3, 90, size=(4, 12))
    blocks = Blocks(ids, np.full(4, 12), None, "tokens", "test")
    profile_model(model, blocks, batch=2, labels="both")
    perplexity(model, blocks, batch=2)
    assert not only_collected()


def test_a_heal_leaves_no_tensor_to_the_collector(only_collected: Callable[[], list[torch.Tensor]]) -> None:
    """Else its teacher and what the optimizer remembers would stay beside the model that it gives back."""
    teacher, student = dense_and_cut()
    heal(student, teacher, text(), steps=2, batch=4)
    del teacher, student
    assert not only_collected()


def test_a_tensor_in_a_cycle_is_found(only_collected: Callable[[], list[torch.Tensor]]) -> None:
    cycle: list[object] = [torch.ones(3)]
    cycle.append(cycle)
    del cycle
    assert [tensor.tolist() for tensor in only_collected()] == [[1, 1, 1]]
