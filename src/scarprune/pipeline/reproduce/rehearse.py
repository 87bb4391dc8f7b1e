"""What a reproduction will take, without doing it: steps, memory, time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scarprune.models.context import vocabulary_size
from scarprune.models.find import find_sites
from scarprune.models.head import find_head
from scarprune.paper.cost import Work, of_shape
from scarprune.paper.texts import paper_blocks
from scarprune.pipeline.inputs import Loading
from scarprune.pipeline.reproduce.programme import Programme
from scarprune.profile.estimate import estimate_memory, expected_seconds, matmul_parameters
from scarprune.profile.size import sums_bytes
from scarprune.runtime.provenance import provenance
from scarprune.scores.score import scores

_WIKITEXT_TEST_TOKENS = 300_000  # 290,000 to 340,000 with the tokenizers of the presets
_RANKINGS_OF_PAPER = 16
_PLANS_OF_PROBES = 60  # sets, doses and whole plans of `validate`, each about one forward pass


def rehearse(programme: Programme, *, loading: Loading = Loading(), steps: Sequence[str]) -> dict[str, Any]:
    """Tokens, operations and seconds of each step, and memory, of the model if it is here, else of its shape.

    Seconds are those of matrix products at this machine's rate and no more than a rough guide; steps that
    remove channels one at a time start in the middle of the model and take about half of what is said.
    """
    shape = programme.preset.shape
    if shape is not None and not is_here(programme.model):
        length = max(programme.reading.length, programme.paper.length)
        found = of_shape(shape, _work(programme, _WIKITEXT_TEST_TOKENS, steps), length)
        evaluation = "about 300,000 tokens of WikiText-2; exact once it is tokenized"
    else:
        model, tokenizer = loading.load(programme.model)
        paper = programme.paper.within(model)
        field = programme.reading.field
        blocks = paper_blocks(programme.evaluation, tokenizer, paper.block, paper.blocks, field)
        found = _of_model(model, programme, _work(programme, int(blocks.lengths.sum()), steps))
        evaluation = f"{int(blocks.lengths.sum()):,} tokens"
    return {
        "provenance": provenance(seed=programme.reading.seed),
        "model": programme.model,
        "preset": programme.preset.name,
        "options": programme.as_json(),
        "dry_run": True,
        "paper_evaluation": evaluation,
        **found,
    }


def is_here(source: str) -> bool:
    """Whether the weights are on this machine: a path, the built-in model, or in the hub's cache."""
    if source == "demo" or Path(source).expanduser().exists():
        return True
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(source, "config.json"), str)
    except HFValidationError:
        return False


def _work(programme: Programme, paper_tokens: int, steps: Sequence[str]) -> dict[str, Work]:
    """Upper bounds, in tokens: the paper's texts count as if each were as long as it may be."""
    amounts, paper, length = programme.amounts, programme.paper, programme.reading.length
    calibration, probes = amounts.blocks * length, amounts.probe_blocks * length
    texts = paper.texts * paper.length
    evaluation = (amounts.evaluation_blocks or 0) * length or paper_tokens
    tried = amounts.channels + 4 * amounts.pairs + _PLANS_OF_PROBES
    ours = (len(scores()) + 2) * len(programme.sparsities) + 1
    theirs = _RANKINGS_OF_PAPER * len(programme.sparsities) + 1
    every = {
        "profile": Work(0, 6.0 * calibration),  # two passes, both labels, and the extra ones
        "findings": Work(0, 2.0 * calibration),
        "probes": Work(tried * probes, 2.0 * probes),
        "pruning": Work(ours * evaluation),
        "paper": Work((3 if amounts.sparsegpt else 2) * texts, 4.0 * texts),
        "paper-pruning": Work(theirs * paper_tokens),
    }
    return {name: work for name, work in every.items() if name in steps}


def _of_model(model: Any, programme: Programme, steps: dict[str, Work]) -> dict[str, Any]:
    sites, vocabulary = find_sites(model), vocabulary_size(model)
    device = next(model.parameters()).device
    totals = sums_bytes([site.width for site in sites], kinds=2)
    any_text = np.arange(vocabulary)
    memory = estimate_memory(
        model, find_head(model), sites, device, vocabulary, totals, False, any_text, looks={}
    )
    length = max(programme.reading.length, programme.paper.within(model).length)
    widest = max(site.width for site in sites)
    each = expected_seconds(model, 1_000) / 1_000  # forward and backward, a token
    parameters = matmul_parameters(model)
    return {
        "parameters": parameters,
        "device": str(device),
        "weights_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "one_block_bytes": memory.peak(1, length),
        "sparsegpt_bytes": memory.resident + 12 * widest**2,
        "operations": {name: work.operations(parameters) for name, work in steps.items()},
        "seconds": {name: each * (work.both + work.forward / 2) for name, work in steps.items()},
        "missing": {},
    }
