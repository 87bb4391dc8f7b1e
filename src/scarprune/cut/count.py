"""How many parameters and bytes a checkpoint holds, told from its files alone."""

from collections.abc import Sequence
from typing import NamedTuple

from scarprune.cut.cast import DTYPES
from scarprune.cut.transfer import Transfer
from scarprune.models.checkpoint import ITEM_BYTES, Stored
from scarprune.models.names import OUTPUT, canonical

_BUFFERS = ("masked_bias", "inv_freq")
_COMPARED_BYTES = 1 << 20


class Count(NamedTuple):
    """Parameters, and their bytes in the dtype they are saved in; tied ones once."""

    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int


def count(transfers: Sequence[Transfer]) -> Count:
    """Count what is stored before and after; buffers that old checkpoints carry along are no parameters."""
    tied = _tied_output([transfer.tensor for transfer in transfers])
    moved = [t for t in transfers if _is_parameter(t.tensor) and t.tensor.name != tied]
    return Count(
        sum(t.tensor.items for t in moved),
        sum(t.target.items for t in moved),
        sum(t.tensor.items * ITEM_BYTES[t.target.dtype] for t in moved),
        sum(t.target.nbytes for t in moved),
    )


def _is_parameter(tensor: Stored) -> bool:
    last = tensor.name.rsplit(".", 1)[-1]
    mask = last == "bias" and len(tensor.shape) != 1  # GPT-2's attention masks
    return tensor.dtype in (*DTYPES.values(), "F64") and last not in _BUFFERS and not mask


def _tied_output(tensors: Sequence[Stored]) -> str | None:
    """The output embedding's name, where another tensor begins with the same bytes."""
    output = next((tensor for tensor in tensors if canonical(tensor.name) == OUTPUT), None)
    if output is None:
        return None
    alike = [t for t in tensors if t is not output and (t.shape, t.dtype) == (output.shape, output.dtype)]
    return output.name if any(_begins(t) == _begins(output) for t in alike) else None


def _begins(tensor: Stored) -> bytes:
    with tensor.path.open("rb") as file:
        file.seek(tensor.start)
        return file.read(min(tensor.nbytes, _COMPARED_BYTES))
