"""The criterion, fixed before anything is measured, and what it says of the numbers."""

from collections.abc import Mapping
from typing import Any

from scarprune.stats.interval import Estimate
from scarprune.stats.weighted import win_rate as rate

CRITERION = (
    "The loss proxy is refuted on this model where, of two channels matched in activation power whose loss "
    "proxies differ by 4 times or more, the one with the larger loss proxy does not do more harm when "
    "removed more often than chance (the 95% interval of its win rate reaches one half or lies below it), "
    "or where its core holds fewer of the truly most harmful 1% of channels than the largest activation "
    "powers do."
)
_FEWEST_PAIRS = 10


def verdict(win_rate: Estimate, pairs: int, recall: Mapping[str, float] | None) -> dict[str, Any]:
    """``refuted`` (None where the pairs are too few to say) and the ``reason``, in words.

    With few pairs the interval is wide, and the criterion, which is one-sided, refutes easily: the reason
    says how many wins would have cleared it.
    """
    if recall is not None and recall["loss_proxy"] < recall["activation_power"]:
        return {
            "refuted": True,
            "reason": f"its core holds {recall['loss_proxy']:.0%} of the most harmful channels, the largest "
            f"activation powers {recall['activation_power']:.0%}",
        }
    if win_rate.value is None or win_rate.low is None or pairs < _FEWEST_PAIRS:
        return {"refuted": None, "reason": f"{pairs} pairs are too few; {_FEWEST_PAIRS} are needed"}
    shown = f"{win_rate.value:.0%} of {pairs} pairs (95% interval {win_rate.low:.0%} to {win_rate.high:.0%})"
    if win_rate.low <= 0.5:
        enough = next(wins for wins in range(pairs + 1) if (rate(wins, pairs).low or 0.0) > 0.5)
        return {
            "refuted": True,
            "reason": f"the larger loss proxy wins {shown}, which is not above one half; of {pairs} pairs "
            f"{enough} won would have cleared it",
        }
    without = "" if recall is not None else "; recall was not measured (--exhaustive-sites)"
    return {"refuted": False, "reason": f"the larger loss proxy wins {shown}{without}"}
