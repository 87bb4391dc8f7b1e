"""What transformers raises while loading, as one sentence about what was loaded."""

import contextlib
import struct
from collections.abc import Iterator

from huggingface_hub.errors import StrictDataclassError

from scarprune.errors import ArtifactError, MemoryBudgetError, ScarpruneError, UnsupportedModelError, one_line
from scarprune.models.source import Origin
from scarprune.runtime.memory import is_out_of_memory

_LIBRARY_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    RuntimeError,
    struct.error,
    StrictDataclassError,
)
_UNKNOWN_ARCHITECTURE = ("does not recognize this architecture", "is not supported yet")


@contextlib.contextmanager
def as_sentences(
    origin: Origin, what: str = "The model", *, trust_remote_code: bool = False
) -> Iterator[None]:
    """Turn errors of loading into scarprune's.

    Raises:
        MemoryBudgetError: out of memory.
        UnsupportedModelError: remote code, an unknown architecture, a missing package.
        ArtifactError: anything else: the files are damaged or do not fit each other.
    """
    try:
        yield
    except ScarpruneError:
        raise
    except (MemoryError, *_LIBRARY_ERRORS) as error:
        reason = one_line(error)
        if is_out_of_memory(error):
            raise MemoryBudgetError(
                f"The weights of {origin.source} do not fit in memory.",
                hint='Use a smaller --dtype, or device_map="auto".',
            ) from error
        if "trust_remote_code" in reason and not trust_remote_code:
            raise UnsupportedModelError(
                f"{origin.source} comes with Python code of its own, which scarprune runs only when told to.",
                hint="Pass --trust-remote-code if you trust it.",
            ) from error
        if any(words in reason for words in _UNKNOWN_ARCHITECTURE):
            raise UnsupportedModelError(
                f"The installed transformers does not know the architecture of {origin.source}: {reason}"
            ) from error
        if isinstance(error, ImportError):
            raise UnsupportedModelError(
                f"{origin.source} needs a package that is not installed: {reason}"
            ) from error
        raise ArtifactError(f"{what} in {origin.path} could not be loaded: {reason}") from error
