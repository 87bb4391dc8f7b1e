"""The protocols by which text is cut: packed, contiguous, documents."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from scarprune.errors import ArgumentError, TextError
from scarprune.text.pieces import Pieces, cut_joined, cut_single
from scarprune.text.tokens import tokenize

Protocol = Literal["packed", "contiguous", "documents"]


@dataclass(frozen=True, slots=True)
class Cutting:
    """How documents become pieces.

    Attributes:
        protocol: ``packed``, ``contiguous`` or ``documents``.
        length: tokens of a block, with its BOS.
        front: id of the BOS put in front of each piece, or None.
        separator: id put between packed documents, or None.
        special: whether a contiguous text gets the tokenizer's own special tokens.
    """

    protocol: Protocol
    length: int
    front: int | None
    separator: int | None
    special: bool

    @property
    def lead(self) -> int:
        """Tokens of a block in front of its piece."""
        return 0 if self.front is None else 1

    def cut(self, documents: Sequence[str], tokenizer: Any) -> Pieces:
        """Tokenize ``documents`` and cut them to pieces of ``length - lead`` tokens."""
        size, first_target = self.length - self.lead, 1 - self.lead
        match self.protocol:
            case "packed":
                tokens = tokenize(documents, tokenizer)
                return cut_joined(tokens, size, first_target=first_target, separator=self.separator)
            case "contiguous":
                whole = tokenize(["\n\n".join(documents)], tokenizer, special=self.special)
                pieces = cut_joined(whole, size, first_target=first_target, separator=None)
                return replace(pieces, documents=None)
            case "documents":
                return cut_single(tokenize(documents, tokenizer), size, first_target=first_target)


def choose_cutting(
    tokenizer: Any, protocol: Protocol, length: int, bos: bool | None, separator: str | None
) -> Cutting:
    """The cutting that ``read_blocks`` describes, for this tokenizer.

    Raises:
        ArgumentError: a value that can never be right.
        TextError: BOS is asked for and the tokenizer has none.
    """
    if length < 2:
        raise ArgumentError(f"Blocks of {length} tokens predict nothing.", hint="Use a length of 2 or more.")
    if protocol not in get_args(Protocol):
        known = ", ".join(get_args(Protocol))
        raise ArgumentError(f"{protocol!r} is no protocol of cutting text.", hint=f"Use one of: {known}.")
    if separator not in ("eos", None):
        raise ArgumentError(f"{separator!r} is no separator of documents.", hint="Use 'eos' or None.")
    if protocol == "contiguous":
        if bos:
            raise ArgumentError("Contiguous blocks have no BOS in front.", hint="Use the protocol 'packed'.")
        return Cutting(protocol, length, front=None, separator=None, special=bos is None)
    front = None if bos is False else tokenizer.bos_token_id
    if bos and front is None:
        raise TextError("BOS is asked for, but this model's tokenizer has none.", hint="Use --no-bos.")
    between = tokenizer.eos_token_id if separator == "eos" else None
    return Cutting(protocol, length, front=front, separator=between, special=False)
