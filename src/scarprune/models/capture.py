"""Forward passes of transformers that ask the GPU nothing: a host need not wait, and they can be captured."""

import contextlib
from collections.abc import Iterator
from typing import Any

from transformers import masking_utils


@contextlib.contextmanager
def plain_causal_masks() -> Iterator[None]:
    """Let transformers' causal masks be plain, without a look whether a block packs several sequences.

    Our blocks are one sequence each, without padding. The look makes the host wait for all that the GPU has
    still to do, and then the GPU for the host, once a pass. While a CUDA graph is captured transformers may
    not look, and builds masks in full, which rules out the fast attention kernels. Where a model makes a
    padding mask by itself (OPT, up to transformers 5.17) it may still not be asked whether it pads. Where
    these names are gone, captures work on with full masks.
    """
    is_tracing: Any = getattr(masking_utils, "is_tracing", None)
    replaced: dict[str, Any] = {
        "find_packed_sequence_indices": lambda position_ids: None,
        "is_tracing": lambda tensor=None: tensor is not None and is_tracing(tensor),
    }
    originals = {name: getattr(masking_utils, name) for name in replaced if hasattr(masking_utils, name)}
    for name in originals:
        setattr(masking_utils, name, replaced[name])
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(masking_utils, name, original)
