"""What a cut did, in numbers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class CutReport:
    """What a cut did.

    Attributes:
        widths: channels stored per site after the cut, padding included.
        parameters_before: numbers stored, tied ones counted once.
        parameters_after: the same of the smaller model.
        bytes_before: bytes of those parameters in the dtype they are saved in.
        bytes_after: the same of the smaller model.
        achieved_sparsity: share of all channels that are gone, padding counted as gone.
        padding: stored channels that are zero because widths differed by site.
        compensate: how the rest was asked to make up for what is gone.
        compensation: what came of that, as JSON; None where nothing was asked for.
        max_logit_difference: absolute, float32; None where nothing was reloaded.
    """

    widths: Mapping[str, int]
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    achieved_sparsity: float
    padding: int = 0
    compensate: str = "none"
    compensation: Mapping[str, Any] | None = None
    max_logit_difference: float | None = None

    @property
    def width(self) -> int | None:
        """The one width of all sites, or None."""
        widths = set(self.widths.values())
        return widths.pop() if len(widths) == 1 else None

    def as_json(self) -> dict[str, Any]:
        """The fields, with ``widths`` by site and ``width`` where there is one."""
        return {**asdict(self), "widths": dict(self.widths), "width": self.width}
