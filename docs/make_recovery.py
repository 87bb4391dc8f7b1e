"""Draws the README's second figure: what a cut costs, and what comes back.

pip install matplotlib
python docs/make_recovery.py docs/recovery.svg
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
RECOVER = ROOT / "benchmarks" / "records" / "recover_smollm2-135m-instruct.q4_1.json"
SWEEP = ROOT / "docs" / "records" / "sweep-smollm2-runs.jsonl"
TEXT = "wikitext2-test.npy"
OURS, OTHERS, INK = "#b5342a", "#8a97a6", "#2b2f36"
Bar = tuple[str, float, float, str]  # what, its height, the deviation over seeds, color


def of_seeds(rows: list[dict[str, Any]], sparsity: float, stage: str) -> tuple[float, float]:
    """Mean and standard deviation of the excess over calibration seeds."""
    found = [row[stage][TEXT] for row in rows if row["sparsity"] == sparsity]
    return statistics.mean(found), statistics.stdev(found)


def of_sweep(score: str, compensate: str) -> tuple[float, float]:
    """The same of a way in the sweep, at half of the channels."""
    runs = [json.loads(line) for line in SWEEP.read_text(encoding="utf-8").splitlines()]
    found = [r["excess_nats"] for r in runs if (r["score"], r["compensate"]) == (score, compensate)]
    return statistics.mean(found), statistics.stdev(found)


def bars(rows: list[dict[str, Any]], sparsity: float) -> list[Bar]:
    """From the most to the least that is lost; of others at half of the channels alone."""
    cut, refit, heal = (of_seeds(rows, sparsity, stage) for stage in ("none", "refit", "heal"))
    ours: list[Bar] = [
        ("scarprune, cut alone", *cut, OURS),
        ("scarprune, refit", *refit, OURS),
        (f"then healed for {'a minute' if sparsity == 0.5 else 'half a minute'}", *heal, OURS),
    ]
    if sparsity != 0.5:
        return ours
    others: list[Bar] = [
        ("Wanda, cut alone", *of_sweep("wanda", "none"), OTHERS),
        ("FLAP, cut alone", *of_sweep("flap_wifv", "none"), OTHERS),
        ("FLAP with least squares", *of_sweep("flap_ifv", "ls"), OTHERS),
    ]
    return [*others[:2], ours[0], others[2], *ours[1:]]


def draw(out: Path) -> None:
    """Write the figure; its format is that of the name of ``out``."""
    rows = json.loads(RECOVER.read_text(encoding="utf-8"))["rows"]
    plt.rcParams.update(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "text.color": INK}
    )
    figure, panels = plt.subplots(2, 1, figsize=(8.4, 3.3), height_ratios=(6, 3), sharex=True)
    for axes, sparsity, share in zip(panels, (0.5, 0.2), ("half", "a fifth"), strict=True):
        found = bars(rows, sparsity)
        places = range(len(found))[::-1]
        axes.barh(
            places,
            [bar[1] for bar in found],
            xerr=[bar[2] for bar in found],
            color=[bar[3] for bar in found],
            height=0.7,
            error_kw={"elinewidth": 0.9, "ecolor": INK},
        )
        axes.set_yticks(places, [bar[0] for bar in found])
        for place, bar in zip(places, found, strict=True):
            axes.text(bar[1] + bar[2] + 0.015, place, f"{bar[1]:.2f}", va="center")
        axes.set_title(f"Without {share} of the channels", loc="left", fontsize=10)
    panels[-1].set(xlabel="excess loss, nats per token")
    figure.tight_layout(h_pad=1.2)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
