"""Architectures that no family declares: their feed-forward networks, found by shape and by what they do.

Names say nothing here. In the first layer, pairs of matrices d -> m and m -> d are candidates. A matrix is a
reader of a down projection where changing its output at one position and channel changes the down
projection's input there and nowhere else; and the readers are complete where nothing but their outputs
changes that input. Attention fails both, since it mixes positions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers.pytorch_utils import Conv1D

from scarprune.errors import UnsupportedModelError
from scarprune.models.context import vocabulary_size
from scarprune.models.family import Family, Kind, read, refuse_experts, text_config
from scarprune.models.forward import forward, input_device
from scarprune.models.quiet import quiet
from scarprune.models.weights import linear_shape

_TOKENS = 4
_CHANNELS = 3  # probed per reader
_PUSH = 2.5  # added to a reader's output: far enough to wake a ReLU
_WIDTH_NAMES = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "d_ff", "d_inner", "inner_dim")
_MISFITS = (ValueError, TypeError, AttributeError, RuntimeError, ZeroDivisionError, AssertionError)

Shapes = Mapping[str, tuple[int, int]]


class _Stop(BaseException):
    """Ends a forward pass early; nothing on the way may catch it."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A down projection of one layer with the matrices that could be its readers: path -> parts."""

    down: str
    width: int
    readers: Mapping[str, int]


def detect_family(model: Any) -> Family:
    """A family made up for ``model``, from what its modules do to a few tokens.

    Raises:
        UnsupportedModelError: experts, or no feed-forward network of a known shape in its layers.
    """
    model_type = str(read(text_config(model.config), "model_type"))
    if any(name.rsplit(".", 1)[-1] == "experts" for name, _ in model.named_modules()):
        refuse_experts(model_type)
    training = model.training
    model.eval()  # dropout would move what nothing else moves
    try:
        for layers, shapes in _layer_lists(model):
            found = [_verified(model, f"{layers}.0", candidate) for candidate in _candidates(shapes)]
            networks = [network for network in found if network is not None]
            if len(networks) == 1:
                return _as_family(model, model_type, layers, *networks[0])
    finally:
        model.train(training)
    raise UnsupportedModelError(
        f"No feed-forward network of a known shape was found in {model_type!r} "
        f"({type(model).__name__}), which is no family scarprune knows.",
        hint="See scarprune families; register_family declares a new one.",
    )


# -- candidates, by shape --------------------------------------------------------------------------


def _layer_lists(model: nn.Module) -> Iterator[tuple[str, Shapes]]:
    """Lists of layers, the longest first: path, and the matrices of the first layer by relative path."""
    lists = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    for name, layers in sorted(lists, key=lambda item: -len(item[1])):
        pairs = ((path, linear_shape(module)) for path, module in layers[0].named_modules() if path)
        shapes = {path: shape for path, shape in pairs if shape is not None}
        if shapes:
            yield name, shapes


def _candidates(shapes: Shapes) -> Iterator[_Candidate]:
    for down, (width, hidden) in shapes.items():
        readers = {
            path: 1 if shape[1] == width else 2
            for path, shape in shapes.items()
            if path != down and shape[0] == hidden and shape[1] in (width, 2 * width)
        }
        if readers:
            yield _Candidate(down, width, readers)


# -- verification, by doing ------------------------------------------------------------------------


def _verified(
    model: nn.Module, layer: str, candidate: _Candidate
) -> tuple[_Candidate, dict[str, int]] | None:
    """The candidate with its true readers, or None where it is no feed-forward network."""
    down = model.get_submodule(f"{layer}.{candidate.down}")
    rows = vocabulary_size(model)
    ids = ((torch.arange(2 * _TOKENS) * 7919 + rows // 2) % rows).view(
        2, _TOKENS
    )  # 0 is often padding: all zeros
    readers = {
        path: parts
        for path, parts in candidate.readers.items()
        if _moves_alone(model, down, model.get_submodule(f"{layer}.{path}"), ids[:1], candidate.width, parts)
    }
    if sorted(readers.values()) not in ([1], [2], [1, 1]):
        return None
    modules = [model.get_submodule(f"{layer}.{path}") for path in readers]
    if not _complete(model, down, modules, ids):
        return None
    if len(modules) == 2 and not _is_linear(model, down, modules, ids[:1]):
        readers = dict(reversed(readers.items()))  # what u is linear in is ``up``, and comes last
    return candidate, readers


@torch.no_grad()
def _input_of(model: nn.Module, down: nn.Module, ids: torch.Tensor) -> torch.Tensor | None:
    """What ``down`` reads in a forward pass that ends there, float32 [T, m]; None where it is not reached."""
    seen: list[torch.Tensor] = []

    def catch(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(args[0].detach().float().reshape(ids.shape[1], -1))
        raise _Stop

    handle = down.register_forward_pre_hook(catch)
    try:
        forward(model, ids.to(input_device(model)))
    except _Stop:
        pass
    finally:
        handle.remove()
    return seen[0] if seen else None


@contextmanager
def _changed(module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    handle = module.register_forward_hook(lambda module, args, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def _moves_alone(
    model: nn.Module, down: nn.Module, reader: nn.Module, ids: torch.Tensor, width: int, parts: int
) -> bool:
    """Whether channel i of the reader (of each half) moves channel i of u at that position alone."""
    before = _input_of(model, down, ids)
    if before is None or before.shape[1] != width:
        return False
    moved_at_all = False
    for channel in range(1, width, max(1, width // _CHANNELS)):
        for part in range(parts):

            def push(output: torch.Tensor, at: int = channel + part * width) -> torch.Tensor:
                output = output.clone()
                output.reshape(ids.shape[1], -1)[0, at] += _PUSH
                return output

            with _changed(reader, push):
                after = _input_of(model, down, ids)
            assert after is not None
            moved = (after != before).nonzero().tolist()
            if moved not in ([], [[0, channel]]):
                return False
            moved_at_all |= bool(moved)
    return moved_at_all


def _complete(model: nn.Module, down: nn.Module, readers: Sequence[nn.Module], ids: torch.Tensor) -> bool:
    """Whether u follows from the readers' outputs: with these held still, other tokens change nothing."""

    with _changed(readers[0], _still), _changed(readers[-1], _still):
        one, other = (_input_of(model, down, row[None]) for row in ids)
    return one is not None and other is not None and torch.equal(one, other)


def _is_linear(model: nn.Module, down: nn.Module, readers: Sequence[nn.Module], ids: torch.Tensor) -> bool:
    """Whether u doubles with the output of the last of two readers."""
    with _changed(readers[0], _still):
        with _changed(readers[1], _still):
            once = _input_of(model, down, ids)
        with _changed(readers[1], lambda output: 2 * _still(output)):
            twice = _input_of(model, down, ids)
    return once is not None and twice is not None and torch.allclose(2 * once, twice, rtol=1e-2)


def _still(output: torch.Tensor) -> torch.Tensor:
    """Numbers that no token changes, in the shape of ``output``."""
    steps = torch.arange(output.numel(), device=output.device, dtype=torch.float32)
    return torch.sin(steps).view_as(output).to(output)


# -- the family ------------------------------------------------------------------------------------


def _as_family(
    model: nn.Module, model_type: str, layers: str, candidate: _Candidate, readers: Mapping[str, int]
) -> Family:
    transposed = isinstance(model.get_submodule(f"{layers}.0.{candidate.down}"), Conv1D)
    paths = list(readers)
    fused = readers[paths[0]] == 2
    kind: Kind = "fused" if fused else "gated" if len(paths) == 2 else "conv1d" if transposed else "plain"
    if transposed and kind != "conv1d":
        raise UnsupportedModelError(f"{model_type!r} has a gated network of Conv1D modules: not supported.")
    key = _width_key(model, f"{layers}.0.{candidate.down}", candidate.width)
    return Family(
        name=model_type,
        description="found by structure",
        model_types=(model_type,),
        kind=kind,
        layers=layers,
        gate=None if kind in ("plain", "conv1d") else paths[0],
        up=paths[-1],
        down=candidate.down,
        width_key=key or "",
        width_fixed=None if key else "no number in its config was found to set the feed-forward width",
    )


def _width_key(model: Any, down: str, width: int) -> str | None:
    """The config's name for the width: with another number there, the model is built with that width."""
    stated = text_config(model.config).to_dict()
    names = [key for key in _WIDTH_NAMES if key in stated and stated[key] in (width, None)]
    names += [key for key, value in stated.items() if type(value) is int and value == width]
    return next((key for key in names if _built_width(model, key, width - 1, down) == width - 1), None)


def _built_width(model: Any, key: str, width: int, down: str) -> int | None:
    config = type(model.config).from_dict(model.config.to_dict())
    setattr(text_config(config), key, width)
    try:
        with torch.device("meta"), quiet():
            shape = linear_shape(type(model)(config).get_submodule(down))
    except (*_MISFITS, StrictDataclassError):
        return None  # the key means something else, and its values must fit others'
    return None if shape is None else shape[0]
