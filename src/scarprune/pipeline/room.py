"""A model loaded within a bound of memory: whole where that leaves room to measure it, else streamed."""

from typing import Any

from scarprune.models.find import find_sites
from scarprune.models.load import outline
from scarprune.pipeline.inputs import Loading, Measuring, Spreading
from scarprune.profile.run import kinds_of, totals_bytes
from scarprune.profile.ways import fits_whole
from scarprune.runtime.device import resolve_device
from scarprune.runtime.memory import available_bytes, used_bytes
from scarprune.runtime.ranks import ALONE, Ranks


def load_within(
    loading: Loading,
    source: str,
    measuring: Measuring,
    length: int,
    spreading: Spreading | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Any, Any | None]:
    """The model of ``source`` and its tokenizer, with its layers streamed where it is too large to be whole.

    Args:
        loading: how it is loaded.
        source: a folder, a hub id, a ``.gguf`` file or ``demo``.
        measuring: what will be measured, and within which bound; ``auto`` is the memory that is free.
        length: tokens of a block.
        spreading: over which devices; what is spread is never streamed.
        ranks: the processes that take part.
    """
    spread = ranks.parts > 1 or (spreading is not None and spreading.device_map is not None)
    streamed = not spread and not _fits(loading, source, measuring, length)
    return loading.load(source, spreading, ranks, streamed=streamed)


def _fits(loading: Loading, source: str, measuring: Measuring, length: int) -> bool:
    device = resolve_device(loading.device)
    on_disk = not source.lower().endswith(".gguf")
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and not on_disk):
        return True
    if measuring.bound is None and not on_disk:  # its config alone takes long to read
        return True
    model = outline(
        source,
        loading.dtype,
        loading.device,
        revision=loading.revision,
        trust_remote_code=loading.trust_remote_code,
    )
    if model is None:
        return True
    rho = 0.01 if measuring.redundancy else None
    totals = totals_bytes(find_sites(model), kinds_of(measuring.labels), rho)
    free = available_bytes(device) if measuring.bound is None else measuring.bound - used_bytes(device)
    return fits_whole(model, totals, length, free)
