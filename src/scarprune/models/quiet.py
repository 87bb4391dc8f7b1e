"""Other libraries' bars and warnings, kept from burying what scarprune says."""

import contextlib
import io
import warnings
from collections.abc import Iterator

from transformers.utils import logging as transformers_logging


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing on stderr while the block runs; errors are raised as ever."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        # The GGUF reader draws its bar by tqdm itself, whatever transformers was told.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
