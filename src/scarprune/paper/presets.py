"""The models of arXiv 2604.23475 (version 1): where they are, their published shapes, the paper's numbers."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scarprune.errors import ArgumentError
from scarprune.models.shapes import SHAPES, Shape

WIKITEXT = "hf:wikitext:wikitext-2-raw-v1"
_TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_CLOSE = 0.6

Curve = Mapping[float, float]


@dataclass(frozen=True, slots=True)
class Published:
    """The paper's numbers; whatever it does not give is absent.

    Attributes:
        dense: perplexity of the whole model on WikiText-2.
        perplexity: score -> sparsity -> perplexity, under the names that scores have here.
        read_off: scores whose curves were read off a figure, within about a tenth.
        core_pruned: score -> share of the core that it cuts at 50%.
        quantities: other numbers by the names of the table's rows.
    """

    dense: float | None = None
    perplexity: Mapping[str, Curve] = field(default_factory=dict)
    read_off: tuple[str, ...] = ()
    core_pruned: Mapping[str, float] = field(default_factory=dict)
    quantities: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preset:
    """What ``reproduce NAME`` stands for.

    Attributes:
        name: as the user says it.
        source: hub id, or ``demo``.
        shape: as published; None for what ships with scarprune.
        published: the paper's numbers.
        sparsities: those of the paper for this model.
        signed: whether the paper's configuration counts positive correlations alone as redundancy.
    """

    name: str
    source: str
    shape: Shape | None = None
    published: Published = Published()
    sparsities: tuple[float, ...] = _TENTHS
    signed: bool = True


# Figures 2 and A11 were read by eye, the rest are from the text and the tables.
_LLAMA_8B = Published(
    dense=6.2,
    perplexity={
        "loss_proxy": {0.1: 7.5, 0.2: 9.8, 0.3: 15.5, 0.4: 30, 0.5: 55.8, 0.6: 150, 0.7: 610},
        "scar_prot": {0.5: 54.8},
        "scar_conn": {0.5: 55.7},
        "random": {0.5: 17428.5},
        "weight_norm": {0.5: 9790.2},
        "paper_wanda": {0.1: 65, 0.2: 175, 0.3: 340, 0.4: 660, 0.5: 989.2, 0.6: 1500, 0.7: 2650},
        "paper_sparsegpt": {0.5: 5256.3},
        "paper_owl": {0.5: 585.4},
        "paper_llm_pruner": {0.5: 607.3},
        "paper_flap": {0.5: 220167.1},
        "paper_ria": {0.5: 109.7},
        "paper_slimllm": {0.5: 178.2},
        "paper_act_l2": {0.5: 65.5},
        "core_removed": {0.5: 811894.1},
    },
    read_off=("loss_proxy", "paper_wanda"),
    core_pruned={
        "loss_proxy": 0.0,
        "scar_prot": 0.0,
        "scar_conn": 0.0,
        "weight_norm": 0.417,
        "paper_wanda": 0.243,
        "paper_sparsegpt": 0.346,
        "paper_owl": 0.220,
        "paper_llm_pruner": 0.268,
        "paper_flap": 0.594,
        "paper_ria": 0.155,
        "paper_slimllm": 0.220,
        "paper_act_l2": 0.196,
    },
    quantities={
        "core share, median": 0.587,
        "core share, smallest": 0.330,
        "core share, largest": 0.861,
        "largest over mean, median": 2.6e3,
        "Jaccard of core and activation outliers, median": 0.054,
        "rank correlation with activation power, median": 0.26,
        "redundancy of the halo over the rest": 2.0,
    },
)
_LLAMA_70B = Published(
    dense=2.79,
    perplexity={
        "loss_proxy": {0.3: 6.23, 0.5: 10.71, 0.7: 36.29},
        "scar_conn": {0.3: 6.23, 0.5: 10.71, 0.7: 36.37},
        "scar_prot": {0.3: 6.23, 0.5: 10.77, 0.7: 38.36},
        "paper_wanda": {0.3: 8.96, 0.5: 15.43, 0.7: 349.04},
        "paper_act_l2": {0.3: 8.81, 0.5: 26.84, 0.7: 420.51},
        "weight_norm": {0.3: 30.22, 0.5: 123.48, 0.7: 14061},
        "paper_sparsegpt": {0.3: 73.00, 0.5: 224.41, 0.7: 24717},
    },
    quantities={
        "core share, median": 0.614,
        "Jaccard of core and activation outliers, median": 0.084,
        "rank correlation with activation power, median": 0.31,
    },
)
_OLMO = Published(
    dense=6.03,
    perplexity={
        "loss_proxy": {0.5: 15.43},
        "paper_wanda": {0.5: 15.20},
        "weight_norm": {0.5: 134.08},
        "random": {0.5: 1e3},
    },
    read_off=("random",),
    quantities={
        "core share, median": 0.717,
        "core share, smallest": 0.333,
        "core share, largest": 0.941,
        "largest over mean, median": 3690,
    },
)


def _halves(scar_conn: float, wanda: float, loss_proxy: float) -> Published:
    return Published(
        perplexity={
            "scar_conn": {0.5: scar_conn},
            "paper_wanda": {0.5: wanda},
            "loss_proxy": {0.5: loss_proxy},
        },
        read_off=("loss_proxy",),
    )


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("demo", "demo", sparsities=(0.1, 0.3, 0.5, 0.7)),
        Preset(
            "llama-3.1-8b",
            "meta-llama/Llama-3.1-8B",
            SHAPES["llama-3.1-8b"],
            _LLAMA_8B,
        ),
        Preset(
            "mistral-7b",
            "mistralai/Mistral-7B-v0.1",
            SHAPES["mistral-7b"],
            _halves(25.3, 352.0, 21.9),
            signed=False,
        ),
        Preset(
            "llama-2-7b",
            "meta-llama/Llama-2-7b-hf",
            SHAPES["llama-2-7b"],
            _halves(19.5, 62.0, 19.6),
            signed=False,
        ),
        Preset(
            "qwen2-7b",
            "Qwen/Qwen2-7B",
            SHAPES["qwen2-7b"],
            _halves(21.2, 89.1, 20.4),
            signed=False,
        ),
        Preset(
            "llama-3.1-70b",
            "meta-llama/Llama-3.1-70B",
            SHAPES["llama-3.1-70b"],
            _LLAMA_70B,
            sparsities=(0.3, 0.5, 0.7),
        ),
        Preset(
            "olmo-2-7b",
            "allenai/OLMo-2-1124-7B",
            SHAPES["olmo-2-7b"],
            _OLMO,
            sparsities=_TENTHS[1:],
        ),
    )
}


def find_preset(name: str) -> Preset:
    """The preset called ``name``; otherwise ``name`` is a model, of which the paper says nothing.

    Raises:
        ArgumentError: no file or hub id with an owner, but nearly the name of a preset.
    """
    if name in PRESETS:
        return PRESETS[name]
    if not Path(name).expanduser().exists() and "/" not in name and not name.endswith(".gguf"):
        near = difflib.get_close_matches(name.lower(), PRESETS, n=1, cutoff=_CLOSE)
        if near:
            raise ArgumentError(
                f"There is no preset or folder called {name!r}.",
                hint=f"Did you mean {near[0]}? Presets are {', '.join(PRESETS)}.",
            )
    return Preset(name, name)
