"""Draws the README's figure from a demo's own numbers.

pip install matplotlib
scarprune demo smollm2 && python docs/make_figure.py scarprune-demo/demo.json docs/smollm2.svg
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

CORE, REST, INK = "#b5342a", "#8a97a6", "#2b2f36"
WORDS = {
    "scar_prot": "SCAR-Prot",
    "loss_proxy": "loss proxy",
    "activation_power": "activation power",
    "wanda": "Wanda",
    "random_core": "random, core kept",
    "random": "random",
}

KEEPS_CORE = {"scar_prot", "loss_proxy", "random_core"}


def draw(result: dict[str, Any], out: Path) -> None:
    """Write the figure; its format is that of the name of ``out``."""
    plt.rcParams.update(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "text.color": INK}
    )
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 2.9), width_ratios=(1.15, 1))
    _draw_core(left, result)
    _draw_rankings(right, result)
    figure.tight_layout(w_pad=2.5)
    figure.savefig(out, metadata={"Date": None})


def _draw_core(axes: Any, result: dict[str, Any]) -> None:
    shares = [100 * (site["core_share"] or 0) for site in result["sites"]]
    axes.bar([site["layer"] for site in result["sites"]], shares, color=CORE, width=0.75)
    axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axes.set(xlabel="layer", ylabel="% of the loss proxy")
    axes.set_title("What 1% of the channels hold", loc="left", fontsize=10)


def _draw_rankings(axes: Any, result: dict[str, Any]) -> None:
    rankings = sorted(result["rankings"], key=lambda ranking: -ranking["excess_nats"])
    values = [ranking["excess_nats"] for ranking in rankings]
    errors = [ranking["excess_standard_error"] or 0 for ranking in rankings]
    kept = [ranking["ranking"] in KEEPS_CORE for ranking in rankings]
    places = range(len(rankings))
    axes.barh(
        places,
        values,
        xerr=errors,
        color=[CORE if core else REST for core in kept],
        height=0.7,
        error_kw={"elinewidth": 0.9, "ecolor": INK},
    )
    axes.set_yticks(places, [WORDS[ranking["ranking"]] for ranking in rankings])
    axes.set(xlabel="excess loss, nats per token (± s.e.)")
    axes.set_title(f"Without {result['sparsity']:.0%} of the channels", loc="left", fontsize=10)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    draw(json.loads(source.read_text(encoding="utf-8")), target)
