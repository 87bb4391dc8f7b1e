"""One model in several processes, each with its own channels and heads, by the plan that transformers has.

transformers loads the slices and installs what each module needs. The linear layers of the plan, most of the
work, then compute on plain tensors: the weights are frozen, so that all a layer needs is one sum over the
parts of what row-wise layers put out, and one of the gradient where column-wise layers read (Megatron-LM,
arXiv 1909.08053, section 3).
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.distributed import DistributedConfig

from scarprune.errors import UnsupportedModelError
from scarprune.models.family import read, text_config
from scarprune.models.quiet import quiet
from scarprune.runtime.ranks import Ranks

_COPIED = "_scarprune_copied"


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` with the slices of all parts: they call this together; others are returned as they are."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def held(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of ``tensor``, sharing its memory."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def refuse_without_plan(config: Any, automatic: Any, parts: int) -> None:
    """Refuse a model that cannot be held in ``parts`` parts.

    Raises:
        UnsupportedModelError: transformers has no plan for the architecture, or its heads or channels do not
            divide.
    """
    text = text_config(config)
    name = read(text, "model_type")
    with torch.device("meta"), quiet():
        plan = automatic.from_config(config).tp_plan
    if not any(style.startswith(("colwise", "rowwise")) and "*" in path for path, style in plan.items()):
        raise UnsupportedModelError(
            f"transformers has no plan for tensor parallelism of {name!r}, so --tp {parts} cannot be.",
            hint="Use data parallelism (without --tp), or --device-map auto in one process.",
        )
    for key in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        count = read(text, key)
        if isinstance(count, int) and count % parts:
            raise UnsupportedModelError(
                f"{name!r} has {key} {count}, which {parts} parts cannot share equally."
            )


@contextlib.contextmanager
def in_parts(ranks: Ranks, device: torch.device) -> Iterator[dict[str, Any]]:
    """Options of ``from_pretrained`` that give this process its part; they hold while the block runs.

    transformers asks for a mesh of all processes. Here its mesh is that of one copy, with others beside it.
    """

    def prepare(config: Any, *, device_map: Any = None, device_mesh: Any = None) -> tuple[Any, Any, Any]:
        return config, device, _Mesh(ranks.tensor_mesh) if _asks_for_views() else ranks.tensor_mesh

    saved = PreTrainedModel.__dict__.get("prepare_distribute_model")
    PreTrainedModel.prepare_distribute_model = staticmethod(prepare)
    try:
        yield {"distributed_config": DistributedConfig(tp_size=ranks.parts)}
    finally:
        if saved is None:
            del PreTrainedModel.prepare_distribute_model  # it is inherited
        else:
            PreTrainedModel.prepare_distribute_model = saved


class _Mesh:
    """What newer releases of transformers ask for the views of their mesh: all are the one there is."""

    def __init__(self, mesh: Any) -> None:
        self.mesh = mesh

    def get_mesh(self, dims: Any) -> Any:
        return self.mesh


def _asks_for_views() -> bool:
    from transformers.distributed import utils

    return hasattr(utils, "TransformersDeviceMesh")


def compute_on_plain_tensors(model: Any, ranks: Ranks) -> None:
    """Let the frozen linear layers of the plan compute on what this process holds."""
    group = ranks.tensor_mesh.get_group()
    for name, module in model.named_modules():
        kind = _KINDS.get(model.tp_plan.get(re.sub(r"\.\d+(?=\.|$)", ".*", name)))
        if kind is None or type(module) is not nn.Linear or not hasattr(module.weight, "to_local"):
            continue
        vars(module).pop("forward", None)  # transformers' own, on tensors that know how they are divided
        # A class, not a closure for each module: all layers are then one program to a compiler.
        module.__class__ = kind
        module.held_weight = held(module.weight).detach()
        module.held_bias = None if module.bias is None else held(module.bias).detach()
        module.group = group
        vars(module)["ranks"] = ranks


class _Divided(nn.Linear):
    """A linear layer of which this process holds a part, as plain tensors."""

    held_weight: torch.Tensor
    held_bias: torch.Tensor | None
    group: Any
    ranks: Ranks


class _ColumnWise(_Divided):
    """Gives this part's channels of the output, from the whole input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            # Layers that read the same x share one sum of its gradient. What is kept at x must not hold x,
            # as a view does, and the graph of a leaf: no collector sees such a circle, and it would stay.
            copied = getattr(x, _COPIED, None)
            if copied is None:
                copied = _SumOfGradients.apply(x, self.group)  # type: ignore[no-untyped-call]
                if not x.is_leaf:
                    setattr(x, _COPIED, copied)
            x = copied
        return F.linear(x, self.held_weight, self.held_bias)


class Gathered(_ColumnWise):
    """Gives the whole output, each part of it computed where its channels are: the head, above all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The output [..., out] of the input [..., in]."""
        return self.joined(self.part_of_output(x))

    def part_of_output(self, x: torch.Tensor) -> torch.Tensor:
        """The channels of the output that this process computes, from ``start`` on."""
        return super().forward(x)

    def joined(self, part: torch.Tensor) -> torch.Tensor:
        """The whole output, from every process's part of it."""
        y: torch.Tensor = _AllParts.apply(part, self.out_features, self.ranks)  # type: ignore[no-untyped-call]
        return y

    @property
    def start(self) -> int:
        """The first channel of this process's."""
        return self.ranks.slice_of(self.out_features)[0]

    def of_all(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` of every process: [parts, ...]."""
        found = [torch.empty_like(values) for _ in range(self.ranks.parts)]
        dist.all_gather(found, values, group=self.group)
        return torch.stack(found)


class _RowWise(_Divided):
    """Gives the whole output, from this part's channels of the input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = _SumOfProducts.apply(x, self.held_weight, self.group)  # type: ignore[no-untyped-call]
        return y if self.held_bias is None else y + self.held_bias


class _SumOfGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        return x.detach()  # no view, see above

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient, group=ctx.group)
        return gradient, None


class _AllParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, width: int, ranks: Ranks) -> torch.Tensor:
        ctx.mine = ranks.slice_of(width)
        return ranks.line_up(y, -1, width)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        start, stop = ctx.mine
        return gradient[..., start:stop], None, None


class _SumOfProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.save_for_backward(weight)
        y = F.linear(x, weight)
        dist.all_reduce(y, group=group)
        return y.view_as(y)  # the compiler of torch 2.11 gives what was summed in place no gradient, silently

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return gradient @ weight, None, None


_KINDS: dict[str | None, type[_Divided]] = {
    "colwise": _ColumnWise,
    "colwise_gather_output": Gathered,
    "colwise_rep": Gathered,
    "rowwise": _RowWise,
}
