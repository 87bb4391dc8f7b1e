"""Tokenizers that are trained once for all tests of text."""

import pytest

from support.tokenizers import byte_level, marked_words


@pytest.fixture(scope="session")
def tokenizer():
    return byte_level()


@pytest.fixture(scope="session")
def bare_tokenizer():
    """Without BOS and EOS."""
    return byte_level(bos=False, eos=False)


@pytest.fixture(scope="session")
def adding_tokenizer():
    """Puts its own BOS and EOS around a text."""
    return marked_words()
