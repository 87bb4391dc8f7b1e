"""What a reproduction measures, and on how much: the preset's, or as asked."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from scarprune.errors import ArgumentError
from scarprune.paper.presets import WIKITEXT, Preset, find_preset
from scarprune.paper.texts import PaperReading
from scarprune.pipeline.inputs import Reading, judged
from scarprune.runtime.progress import remark
from scarprune.text.protocol import Protocol

STEPS = ("profile", "findings", "probes", "pruning", "paper", "paper-pruning", "report")
NO_WIKITEXT = "Measuring and judging on the built-in novels; the paper's text is WikiText-2 (--text, --eval)."


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much is measured. The paper's protocol has its own: ``PaperReading``.

    Attributes:
        blocks: to measure on.
        evaluation_blocks: to judge pruned models on; None for all of the text.
        probe_blocks: to remove single channels and sets on.
        channels: single channels that are removed.
        pairs: matched pairs of channels, of each kind.
        flips: sign flips of the halo's null.
        random_cores: that the core is compared with.
        sparsegpt: whether ``paper_sparsegpt`` is computed: several more passes, m^2 numbers a network.
    """

    blocks: int = 128
    evaluation_blocks: int | None = 64
    probe_blocks: int = 16
    channels: int = 200
    pairs: int = 40
    flips: int = 200
    random_cores: int = 20
    sparsegpt: bool = True


@dataclass(frozen=True, slots=True)
class Programme:
    """One reproduction: everything its numbers depend on but the weights and the device."""

    preset: Preset
    model: str
    text: str
    evaluation: str
    reading: Reading
    paper: PaperReading
    amounts: Amounts
    sparsities: tuple[float, ...]
    dtype: str

    def as_json(self) -> dict[str, Any]:
        """What must agree for a folder to be gone on with; flat."""
        return {
            "preset": self.preset.name,
            "model": self.model,
            "text": self.text,
            "eval": self.evaluation,
            **asdict(self.reading),
            **{f"paper_{key}": value for key, value in asdict(self.paper).items()},
            **asdict(self.amounts),
            "sparsities": list(self.sparsities),
            "dtype": self.dtype,
        }


def programme(
    name: str,
    *,
    model: str | None = None,
    text: str | None = None,
    evaluation: str | None = None,
    length: int | None = None,
    seed: int | None = None,
    protocol: Protocol | None = None,
    field: str | None = None,
    sparsities: tuple[float, ...] | None = None,
    dtype: str = "auto",
    **amounts: Any,
) -> Programme:
    """The programme of the preset or model ``name``, with what is given in place of its defaults.

    Args:
        model: where the preset's weights lie; None for its hub id.
        text: what to measure on; None for WikiText-2's training part where the paper has the model, else the
            built-in calibration text.
        evaluation: what to judge on, likewise; has to be named where ``text`` is.
        length: tokens of our blocks; None for 512.
        seed: of all draws; None for 0.
        protocol: how our blocks are cut; None for ``packed``, or ``contiguous`` with WikiText-2, whose rows
            are lines.
        field: which field of a row holds the text.
        amounts: fields of ``Amounts``, and of ``PaperReading`` as ``paper_*``; None for the default.

    Raises:
        ArgumentError: nearly the name of a preset; a sparsity outside (0, 1); no text to judge on.
    """
    preset = find_preset(name)
    chosen = preset.sparsities if sparsities is None else tuple(sorted(set(sparsities)))
    if not chosen or not all(0 < f < 1 for f in chosen):
        raise ArgumentError(f"Sparsities lie between 0 and 1, not {list(chosen)}.")
    if text is not None and evaluation is None and text != "demo":
        raise ArgumentError(f"{text} is to be measured on; what is to be judged on?", hint="Add --eval SRC.")
    wikitext = text is None and preset.shape is not None
    default = Reading(protocol="contiguous" if wikitext else "packed")
    paper, ours = PaperReading(), Amounts()
    if preset.name == "demo":
        default, paper, ours = _SMALL
    if text is None and not wikitext and preset.name != "demo":
        remark(NO_WIKITEXT)
    for_paper = {key.removeprefix("paper_"): value for key, value in amounts.items() if key[:6] == "paper_"}
    for_ours = {key: value for key, value in amounts.items() if key[:6] != "paper_"}
    made = Programme(
        preset=preset,
        model=model or preset.source,
        text=text or (f"{WIKITEXT}:train" if wikitext else "demo:calibration"),
        evaluation=judged(evaluation or (f"{WIKITEXT}:test" if wikitext else "demo:evaluation")),
        reading=replace(
            default, **_given({"length": length, "seed": seed, "protocol": protocol, "field": field})
        ),
        paper=replace(paper, **_given(for_paper)),
        amounts=replace(ours, **_given(for_ours)),
        sparsities=chosen,
        dtype=dtype,
    )
    for key, value in made.as_json().items():
        if type(value) is int and value < (0 if key == "seed" else 1):
            raise ArgumentError(f"{key.replace('_', ' ')} must be 1 or more, not {value}.")
    return made


def chosen_steps(names: str | None) -> tuple[str, ...]:
    """The steps of a list with commas, in their own order; all where None.

    Raises:
        ArgumentError: no such step, or one whose predecessor is left out as well as not there.
    """
    if names is None:
        return STEPS
    asked = [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        if name not in STEPS:
            raise ArgumentError(f"There is no step {name!r}.", hint=f"Steps are {', '.join(STEPS)}.")
    return tuple(name for name in STEPS if name in asked)


def _given(amounts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in amounts.items() if value is not None}


# The built-in model on two CPU cores, in a few minutes.
_SMALL = (
    Reading(length=128),
    PaperReading(length=128, redundancy_length=128, block=256, blocks=6),
    Amounts(
        blocks=48,
        evaluation_blocks=12,
        probe_blocks=8,
        channels=40,
        pairs=40,
        flips=50,
        random_cores=5,
    ),
)
