"""A site: one feed-forward network, seen at the input of its down projection."""

from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["gate", "up", "down"]


@dataclass(frozen=True, slots=True)
class Projection:
    """One matrix of a feed-forward network: a module, or one of the equal parts of a fused one.

    Attributes:
        role: ``gate`` (gated networks alone), ``up`` (also the only reader of a plain network), ``down``.
        module: path in ``model.named_modules()``.
        transposed: the weight is stored [in, out], as in GPT-2's Conv1D.
        part: which of ``parts`` equal slices along the channels' dimension is this projection's.
        parts: 2 for a fused ``gate_up_proj``, else 1.
    """

    role: Role
    module: str
    transposed: bool = False
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Site:
    """One feed-forward network.

    Attributes:
        name: ``named_modules()`` path of the down projection; the key of every dict, tensor and JSON.
        layer: index of the transformer layer, counted from 0.
        width: channels m, the intermediate size.
        hidden: d, the size of what the network writes.
        gated: whether a gate multiplies what ``up`` reads.
        projections: gate (if gated), up, down; empty where only the numbers are known.
    """

    name: str
    layer: int
    width: int
    hidden: int
    gated: bool
    projections: tuple[Projection, ...] = ()

    @property
    def down(self) -> Projection:
        """The projection that writes to the residual stream."""
        return self.projections[-1]

    @property
    def readers(self) -> tuple[Projection, ...]:
        """The projections that read the network's input: gate (if gated) and up."""
        return self.projections[:-1]

    def as_json(self) -> dict[str, Any]:
        """What artifacts keep of a site."""
        return {
            "name": self.name,
            "layer": self.layer,
            "width": self.width,
            "hidden": self.hidden,
            "gated": self.gated,
        }
