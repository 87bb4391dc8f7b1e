"""What a reproduction takes before it starts: tokens and operations by step, memory, time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scarprune.models.shapes import Shape

_FORWARD, _BACKWARD = 2, 4  # operations per weight and token: a pass, and one with its backward pass
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens of one step: taken forward alone, and forward and backward."""

    forward: float
    both: float = 0.0

    def operations(self, parameters: int) -> float:
        """2 per weight and token forward, 4 with a backward pass that leaves out the weights' gradients."""
        return parameters * (_FORWARD * self.forward + _BACKWARD * self.both)


def of_shape(shape: Shape, steps: Mapping[str, Work], length: int) -> dict[str, Any]:
    """Memory and operations of a model that is not here, from its published shape, in bfloat16.

    Activations: about 12 numbers of the hidden size and 5 of the width a layer are kept for each token of the
    one block that has to fit; logits of a chunk aside. No time: the rate of a machine is unknown here.
    """
    weights = 2 * shape.parameters
    kept = 2 * length * shape.layers * (12 * shape.hidden + 5 * shape.width)
    moments = 4 * (shape.hidden**2 + 3 * shape.width**2)
    operations = {name: work.operations(shape.parameters) for name, work in steps.items()}
    return {
        "parameters": shape.parameters,
        "weights_bytes": weights,
        "one_block_bytes": weights + kept,
        "sparsegpt_bytes": weights + moments,
        "operations": operations,
        "seconds": None,
        "missing": {"seconds": "the model is not on this machine, so its rate cannot be measured"},
    }
