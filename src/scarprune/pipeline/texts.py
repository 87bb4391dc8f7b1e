"""Which text ``prune`` measures on and which it judges on, and how much the two have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scarprune.errors import ScarpruneError, TextError
from scarprune.pipeline.inputs import Reading, judged
from scarprune.profile.sums import Profile
from scarprune.runtime.progress import remark
from scarprune.text.blocks import DEFAULT_COUNT, Blocks
from scarprune.text.draw import spread
from scarprune.text.overlap import overlap

MOST_UNUSED = 64
_FEW = 8
_WORTH_SAYING = 0.01
_NAME_ONE = "Name a text to judge on with --eval."


@dataclass(frozen=True, slots=True)
class Texts:
    """What a prune reads.

    Attributes:
        calibration: what the profile is measured on; None where the text of a given profile is not at hand.
        evaluation: what the dense and the pruned model are judged on.
        overlap: share of the evaluation's 13-grams of tokens that calibration holds; None where unknown.
    """

    calibration: Blocks | None
    evaluation: Blocks
    overlap: float | None


def read_texts(
    tokenizer: Any | None,
    reading: Reading,
    *,
    text: str | None,
    evaluation: str | None,
    profile: Profile | None,
    count: int = DEFAULT_COUNT,
    evaluation_count: int | None = None,
) -> Texts:
    """Calibration and evaluation blocks, checked against each other.

    Args:
        tokenizer: the model's.
        reading: how text becomes blocks.
        text: what to measure on; None is the shipped calibration text, or what ``profile`` was measured on.
        evaluation: what to judge on; None takes up to 64 blocks that calibration did not use.
        profile: where measuring is already done.
        count: blocks to measure on.
        evaluation_count: blocks to judge on; None is all of a text that was named, up to 64 otherwise.

    Raises:
        TextError: unreadable or too short; nothing left to judge on.
    """
    if evaluation_count is not None and evaluation_count < 1:
        raise TextError(f"At least one block is needed to judge on, not {evaluation_count}.")
    if profile is None:
        calibration: Blocks | None = reading.blocks(text or "demo", tokenizer, count)
    else:
        reading = as_read(profile.header["text"], reading)
        calibration = read_again(profile.header["text"], tokenizer, reading)
    if evaluation is not None:
        chosen = reading.blocks(judged(evaluation), tokenizer, evaluation_count)
    else:
        chosen = _unused(text, calibration, tokenizer, reading, evaluation_count or MOST_UNUSED)
    return Texts(calibration, chosen, say_overlap(calibration, chosen))


def say_overlap(calibration: Blocks | None, evaluation: Blocks) -> float | None:
    """Share of the evaluation's 13-grams of tokens that calibration holds; said where it is 1% or more."""
    if calibration is None:
        return None
    shared = overlap(calibration, evaluation)
    if shared >= _WORTH_SAYING:
        remark(
            f"{shared:.1%} of the evaluation text (13-grams of tokens) is in the calibration text too: "
            "the perplexities are kinder than on new text."
        )
    return shared


def as_read(entries: Sequence[Mapping[str, Any]], reading: Reading) -> Reading:
    """How the (first) text of a profile was read; ``entries`` is the ``text`` of its header."""
    if not entries or entries[0]["protocol"] == "tokens":
        return reading
    first = entries[0]
    bos = None if first["protocol"] == "contiguous" else bool(first["bos"])
    return replace(
        reading, length=int(first["length"]), seed=int(first["seed"]), protocol=first["protocol"], bos=bos
    )


def read_again(
    entries: Sequence[Mapping[str, Any]], tokenizer: Any | None, reading: Reading
) -> Blocks | None:
    """The blocks that a profile was measured on, where there is one text and it can still be read."""
    if len(entries) != 1:
        return None
    (entry,) = entries
    try:
        again = reading.blocks(str(entry["source"]), tokenizer, int(entry["blocks"]))
    except (ScarpruneError, KeyError, TypeError, ValueError):
        return None
    return again if again.fingerprint == entry.get("fingerprint") else None


def _unused(
    text: str | None, calibration: Blocks | None, tokenizer: Any | None, reading: Reading, most: int
) -> Blocks:
    """Up to ``most`` blocks, spread over the text, that calibration did not use."""
    if calibration is None and text is None:
        raise TextError("The text that the profile was measured on cannot be read again.", hint=_NAME_ONE)
    source = text or (calibration.source if calibration is not None else "")
    try:
        rest = reading.blocks(source, tokenizer, None, skip=calibration)
    except TextError as error:
        if calibration is None or source != calibration.source:
            raise
        raise TextError(
            f"Measuring takes all {len(calibration)} blocks of {source}; none is left to judge on.",
            hint="Name a text to judge on with --eval, or measure on fewer --blocks.",
        ) from error
    if len(rest) < _FEW:
        remark(f"Only {len(rest)} blocks are left to judge on: the perplexities are rough. {_NAME_ONE}")
    return rest if len(rest) <= most else rest.take(spread(len(rest), most, reading.seed))
