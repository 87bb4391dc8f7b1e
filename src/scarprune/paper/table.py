"""The table "paper | paper's protocol here | our protocol here"."""

from collections.abc import Mapping, Sequence
from typing import Any

from scarprune.paper.presets import Published

# What stands in our protocol for a baseline that the paper's code computes otherwise.
COUNTERPARTS = {
    "paper_wanda": "wanda",
    "paper_flap": "flap_wifv",
    "paper_llm_pruner": "taylor",
    "paper_act_l2": "activation_power",
}
_READ_OFF = "read off a figure"
_NOTES = {
    "redundancy of the halo over the rest": "paper's protocol: ratio of means over all channels; ours: "
    "median by site of the ratio of medians, no control",
}
Row = dict[str, Any]


def table(
    published: Published,
    paper: Mapping[str, float | None],
    ours: Mapping[str, float | None],
    rows: Sequence[Row],
) -> list[Row]:
    """Rows of ``quantity``, ``paper``, ``paper_protocol``, ``our_protocol``, ``note``; null where unknown.

    Args:
        published: the paper's numbers of this model, if it has any.
        paper: quantity -> what the paper's protocol gave here.
        ours: the same of ours.
        rows: of ``pruning``, both protocols.
    """
    named = list(dict.fromkeys([*paper, *ours, *published.quantities]))
    made = [
        _row("dense perplexity", published.dense, paper, ours),
        *(
            _row(name, published.quantities.get(name), paper, ours)
            for name in named
            if name != "dense perplexity"
        ),
    ]
    found = {(row["protocol"], row["score"], row["sparsity"]): row for row in rows}
    scores = dict.fromkeys(
        [*published.perplexity, *(row["score"] for row in rows if row["protocol"] == "paper")]
    )
    for score in scores:
        made += _of_score(score, published, found)
    return made


def _row(
    name: str,
    published: float | None,
    paper: Mapping[str, float | None],
    ours: Mapping[str, float | None],
) -> Row:
    return {
        "quantity": name,
        "paper": published,
        "paper_protocol": paper.get(name),
        "our_protocol": ours.get(name),
        "note": _NOTES.get(name),
    }


def _of_score(score: str, published: Published, found: Mapping[tuple[str, str, float], Row]) -> list[Row]:
    counterpart = COUNTERPARTS.get(score, score)
    known = published.perplexity.get(score, {})
    sparsities = sorted({f for _, name, f in found if name in (score, counterpart)} | set(known))
    notes = []
    if score in published.read_off:
        notes.append(f"the paper's is {_READ_OFF}")
    if counterpart != score:
        notes.append(f"under our protocol {counterpart}")
    made = []
    for sparsity in sparsities:
        theirs, mine = (
            found.get(key, {}) for key in (("paper", score, sparsity), ("ours", counterpart, sparsity))
        )
        row = {
            "quantity": f"{score} at {sparsity:.0%}, perplexity",
            "paper": known.get(sparsity),
            "paper_protocol": theirs.get("perplexity"),
            "our_protocol": mine.get("perplexity"),
            "note": "; ".join(notes) or None,
        }
        made.append(row)
        if sparsity == 0.5:
            made.append(
                {
                    "quantity": f"{score} at 50%, share of the core pruned",
                    "paper": published.core_pruned.get(score),
                    "paper_protocol": theirs.get("share_of_core_pruned"),
                    "our_protocol": mine.get("share_of_core_pruned"),
                    "note": None if counterpart == score else f"under our protocol {counterpart}",
                }
            )
    return made
