"""What the paper's baselines see: texts padded to one length, with the padding counted (``method`` 11)."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from scarprune.errors import TextError
from scarprune.models.forward import input_device
from scarprune.models.site import Projection, Site
from scarprune.profile.token_sums import wide
from scarprune.runtime.memory import available_bytes
from scarprune.runtime.progress import track
from scarprune.text.blocks import Blocks

_SHARE_OF_FREE = 0.4
_DAMPING = 0.01
_TINY = 1e-10


@dataclass
class Output:
    """Of a reader's output, per channel [m]: what each baseline adds up."""

    total: torch.Tensor
    square: torch.Tensor
    mean_absolute: torch.Tensor  # of each text, summed over texts
    norm: torch.Tensor  # of each text, summed over texts


@dataclass
class Seen:
    """Of one site: sums of squares of the inputs of readers [d] and of the down projection [m], and outputs.

    ``inverse`` holds the diagonals of the inverse damped second moments of both inputs, for SparseGPT.
    """

    x2: torch.Tensor
    u2: torch.Tensor
    outputs: dict[str, Output] = field(default_factory=dict)
    inverse: tuple[torch.Tensor, torch.Tensor] | None = None


@dataclass(frozen=True)
class Padded:
    """Token ids [n, T] with their mask, and how many texts and tokens that is, padding included."""

    ids: torch.Tensor
    mask: torch.Tensor

    @property
    def tokens(self) -> int:
        """All positions."""
        return int(self.ids.numel())


def pad(texts: Blocks, tokenizer: Any, length: int) -> Padded:
    """``texts`` padded to ``length`` on the tokenizer's own side, by its pad token or else its EOS.

    Raises:
        TextError: the tokenizer has neither.
    """
    token = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if token is None:
        raise TextError("The tokenizer has neither a pad token nor an EOS token to pad with.")
    ids = torch.full((len(texts), length), int(token))
    mask = torch.zeros((len(texts), length), dtype=torch.int64)
    for row, size in enumerate(texts.lengths.tolist()):
        place = slice(length - size, length) if tokenizer.padding_side == "left" else slice(0, size)
        ids[row, place] = torch.from_numpy(texts.ids[row, :size])
        mask[row, place] = 1
    return Padded(ids, mask)


def see(model: nn.Module, sites: Sequence[Site], padded: Padded, *, hessians: bool = True) -> dict[str, Seen]:
    """One pass for the sums; with ``hessians`` as many more as the second moments need memory for."""
    seen: dict[str, Seen] = {}
    with contextlib.ExitStack() as stack:
        for site in sites:
            for hook in _sums(model, site, seen):
                stack.callback(hook.remove)
        _run(model, padded, "Padded texts")
    for part in _parts(model, sites) if hessians else []:
        moments: dict[tuple[str, str], torch.Tensor] = {}
        with contextlib.ExitStack() as stack:
            for site in part:
                for hook in _moments(model, site, moments):
                    stack.callback(hook.remove)
            _run(model, padded, f"Second moments of {len(part)} networks")
        for site in part:
            x, u = (moments.pop((site.name, place)) for place in ("x", "u"))
            seen[site.name].inverse = (_inverse_diagonal(x, padded), _inverse_diagonal(u, padded))
    return seen


def mean_outputs(model: nn.Module, sites: Sequence[Site], texts: Blocks) -> dict[str, np.ndarray]:
    """Act-L2: norm over texts of the signed mean over a text's tokens of the up projection: [m], unpadded."""
    squares: dict[str, torch.Tensor] = {}

    def watch(site: Site) -> Any:
        up = site.readers[-1]

        def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            mean = wide(_part(output, up, site)).flatten(0, -2).mean(0)
            squares[site.name] = squares.get(site.name, 0) + mean.square()

        return model.get_submodule(up.module).register_forward_hook(hook)

    with contextlib.ExitStack() as stack:
        for site in sites:
            stack.callback(watch(site).remove)
        with track("Texts", int(texts.lengths.sum())) as advance:
            for row, size in enumerate(texts.lengths.tolist()):
                ids = torch.from_numpy(texts.ids[row : row + 1, :size])
                _forward(model, ids, torch.ones_like(ids))
                advance(size)
    return {name: square.sqrt().cpu().numpy().astype(np.float64) for name, square in squares.items()}


def _run(model: nn.Module, padded: Padded, what: str) -> None:
    with track(what, padded.tokens) as advance:
        for row in range(len(padded.ids)):
            _forward(model, padded.ids[row : row + 1], padded.mask[row : row + 1])
            advance(padded.ids.shape[1])


@torch.no_grad()
def _forward(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> None:
    device = input_device(model)
    model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)


def _part(output: torch.Tensor, reader: Projection, site: Site) -> torch.Tensor:
    return output.narrow(-1, reader.part * site.width, site.width)


def _sums(model: nn.Module, site: Site, seen: dict[str, Seen]) -> Iterator[Any]:
    def begin(x: torch.Tensor) -> Seen:
        if site.name not in seen:
            x2, u2 = (torch.zeros(n, device=x.device) for n in (site.hidden, site.width))
            seen[site.name] = Seen(x2, u2)
        return seen[site.name]

    def at_input(module: nn.Module, args: Any) -> None:
        begin(args[0]).x2 += wide(args[0]).flatten(0, -2).square().sum(0)

    def at_down(module: nn.Module, args: Any) -> None:
        begin(args[0]).u2 += wide(args[0]).flatten(0, -2).square().sum(0)

    def at_output(reader: Projection) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            y = wide(_part(output, reader, site)).flatten(0, -2)
            new = (y.sum(0), y.square().sum(0), y.abs().mean(0), y.square().sum(0).sqrt())
            known = begin(args[0]).outputs.get(reader.role)
            old = (0, 0, 0, 0) if known is None else vars(known).values()
            seen[site.name].outputs[reader.role] = Output(*(a + b for a, b in zip(new, old, strict=True)))

        return hook

    yield model.get_submodule(site.readers[0].module).register_forward_pre_hook(at_input)
    yield model.get_submodule(site.down.module).register_forward_pre_hook(at_down)
    for reader in site.readers:
        yield model.get_submodule(reader.module).register_forward_hook(at_output(reader))


def _moments(model: nn.Module, site: Site, moments: dict[tuple[str, str], torch.Tensor]) -> Iterator[Any]:
    def hook(place: str) -> Callable[..., None]:
        def add(module: nn.Module, args: Any) -> None:
            x = wide(args[0]).flatten(0, -2)
            key = (site.name, place)
            moments[key] = x.T @ x if key not in moments else moments[key].addmm_(x.T, x)

        return add

    yield model.get_submodule(site.readers[0].module).register_forward_pre_hook(hook("x"))
    yield model.get_submodule(site.down.module).register_forward_pre_hook(hook("u"))


def _parts(model: nn.Module, sites: Sequence[Site]) -> Iterator[Sequence[Site]]:
    """Runs of sites whose second moments fit at once; one that is inverted needs three times its own."""
    room = available_bytes(input_device(model)) * _SHARE_OF_FREE
    each = max(4 * (site.hidden**2 + site.width**2) for site in sites)
    count = max(1, int(room / each) - 2)
    return (sites[start : start + count] for start in range(0, len(sites), count))


def _inverse_diagonal(moment: torch.Tensor, padded: Padded) -> torch.Tensor:
    """Diagonal of (X'X / n + 0.01 mean(diagonal) I)^-1, and the code's 1e-10 added to it."""
    h = moment / padded.tokens
    h.diagonal().add_(_DAMPING * h.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    diagonal: torch.Tensor = inverse.diagonal() + _TINY
    return diagonal
