"""A model whose layers lie elsewhere and come to the device one at a time, the next while one computes."""

import contextlib
import functools
import weakref
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from scarprune.errors import NumericsError, UnsupportedModelError
from scarprune.models.fingerprint import carry_fingerprint, fingerprint_model
from scarprune.models.forward import carry_device
from scarprune.models.layers import find_layers
from scarprune.models.shelf import MemoryShelf, Shelf
from scarprune.runtime.slots import Slots

_STREAMED = "_scarprune_streamed"
_ALIGNED = 256  # bytes: what kernels like a matrix to begin at


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one weight of a layer goes: in a module, and in the layer's bytes."""

    name: str
    owner: nn.Module
    absent: nn.Parameter
    start: int

    @property
    def size(self) -> int:
        return self.absent.numel() * self.absent.element_size()

    def put(self, parameter: nn.Parameter) -> None:
        setattr(self.owner, self.name.rpartition(".")[2], parameter)

    def view(self, buffer: torch.Tensor) -> torch.Tensor:
        return buffer[self.start : self.start + self.size].view(self.absent.dtype).view(self.absent.shape)


class Streamed:
    """The layers of one model: none is there until it is called or held, and at most two are.

    The model can be called as ever, without gradients. What needs gradients, or takes many batches through a
    layer before the next, holds the layer meanwhile.

    Attributes:
        shelf: where the weights lie.
        device: where layers compute.
        layers: the modules, in order.
        slot_bytes: of one layer's weights on the device, the largest.
        nbytes: of all layers' weights on the device.
    """

    def __init__(self, model: nn.Module, shelf: Shelf, device: torch.device) -> None:
        """Take over the layers of ``model``, whose parameters are on the meta device."""
        self.shelf = shelf
        self.device = device
        self.layers = find_layers(model)
        self._places = [_places(layer) for layer in self.layers]
        sizes = [_aligned(places[-1].start + places[-1].size) for places in self._places]
        self.slot_bytes, self.nbytes = max(sizes), sum(sizes)
        self._slots = Slots(device, self.slot_bytes, self._fetch)
        self._held: int | None = None
        self._seen: set[int] = set()
        self._install()
        setattr(model, _STREAMED, self)
        carry_device(model, device)
        weakref.finalize(model, self._slots.close)

    def __len__(self) -> int:
        """Layers."""
        return len(self.layers)

    @contextlib.contextmanager
    def held(self, index: int, then: int | None = None) -> Iterator[None]:
        """Have the weights of layer ``index`` in the model while the block runs; let ``then`` come meanwhile.

        Raises:
            NumericsError: a weight is NaN or infinite, found when its layer first comes.
            ArtifactError: a file has gone.
        """
        if self._held == index:
            yield
            return
        assert self._held is None, f"layer {self._held} is still held"
        slot, buffer = self._slots.take(index)
        if then is not None and then != index:
            self._slots.send(then, besides=slot)
        self._held = index
        for place in self._places[index]:
            place.put(nn.Parameter(place.view(buffer), requires_grad=False))
        try:
            self._check(index)
            yield
        finally:
            for place in self._places[index]:
                place.put(place.absent)
            self._held = None
            self._slots.leave(slot)

    def through(self, *, back: bool = False) -> Generator[int]:
        """Every layer's number, first to last or ``back``; the layer is held until the next is asked for.

        Meanwhile layers are as they were, with nothing around them that a compiler would have to see through.
        """
        order = list(range(len(self)))[:: -1 if back else 1]
        for layer in self.layers:
            del layer.forward
        try:
            for index, then in zip(order, [*order[1:], None], strict=True):
                with self.held(index, then):
                    yield index
        finally:
            self._install()

    def _install(self) -> None:
        for index, layer in enumerate(self.layers):
            # An attribute of the instance hides the class's method; hooks before it may still stop a call.
            layer.forward = functools.partial(self._call, index, layer.forward)

    def _call(self, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._held == index:
            return forward(*args, **kwargs)
        if torch.is_grad_enabled():
            raise UnsupportedModelError(
                "The layers of this model are streamed, so it computes gradients in profile_model alone.",
                hint="Call it under torch.no_grad(), or load it whole.",
            )
        with self.held(index, (index + 1) % len(self)):
            return forward(*args, **kwargs)

    def _fetch(self, index: int, buffer: torch.Tensor) -> None:
        self.shelf.fetch(index, {place.name: place.view(buffer) for place in self._places[index]})

    def _check(self, index: int) -> None:
        if index in self._seen:
            return
        for name, parameter in self.layers[index].named_parameters():
            if not all(torch.isfinite(value) for value in torch.aminmax(parameter)):
                raise NumericsError(f"Layer {index} has weights that are NaN or infinite: {name}.")
        self._seen.add(index)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _places(layer: nn.Module) -> list[_Place]:
    places: list[_Place] = []
    start = 0
    for name, parameter in layer.named_parameters():
        owner = layer.get_submodule(name.rpartition(".")[0])
        places.append(_Place(name, owner, parameter, start))
        start = _aligned(start + places[-1].size)
    return places


def streamed_of(model: Any) -> Streamed | None:
    """What brings the layers of ``model``; None where they are in it."""
    return getattr(model, _STREAMED, None)


def present(model: Any, index: int) -> contextlib.AbstractContextManager[None]:
    """The weights of layer ``index`` are in ``model`` while the block runs, wherever they lie."""
    streamed = streamed_of(model)
    return (
        contextlib.nullcontext()
        if streamed is None
        else streamed.held(index, min(index + 1, len(streamed) - 1))
    )


def stream(model: Any, device: torch.device) -> Any:
    """Leave the layers of ``model`` in CPU memory, and compute with them on ``device`` one at a time.

    Args:
        model: on the CPU, in the dtype of computing; it is changed and returned.
        device: where to compute.
    """
    fingerprint = fingerprint_model(model)
    layers = find_layers(model)
    shelf = MemoryShelf([{name: p.detach() for name, p in layer.named_parameters()} for layer in layers])
    for layer in layers:
        for place in _places(layer):
            place.put(nn.Parameter(place.absent.to("meta"), requires_grad=False))
    settle(model, device)
    Streamed(model, shelf, device)
    carry_fingerprint(model, fingerprint)
    return model


def settle(model: Any, device: torch.device) -> None:
    """Move all but the layers to ``device``; an embedding that is not the head as well stays on the CPU."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    apart = device.type != "cpu" and (head is None or head.weight is not embedding.weight)
    moved: dict[int, nn.Parameter] = {}  # what is tied stays so
    for module in model.modules():
        if apart and module is embedding:
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.is_meta:
                if id(parameter) not in moved:
                    moved[id(parameter)] = nn.Parameter(parameter.to(device), requires_grad=False)
                setattr(module, name, moved[id(parameter)])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    if apart:
        embedding.register_forward_pre_hook(lambda module, args: tuple(ids.cpu() for ids in args))
        embedding.register_forward_hook(lambda module, args, found: found.to(device))
