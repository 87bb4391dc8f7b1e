"""Core channels whose loss proxy rests on a few tokens, with those tokens in their text: ``odd_tokens``."""

from typing import TYPE_CHECKING, Any

import numpy as np

from scarprune.profile.sums import Profile
from scarprune.scores.core import profile_core

if TYPE_CHECKING:
    from scarprune.findings.halo_controls import Measured

THRESHOLD = 30
_AROUND = 8  # tokens of text on either side


def odd_tokens(profile: Profile, measured: "Measured", tokenizer: Any | None) -> dict[str, Any]:
    """Core channels with n_eff = (sum q^2)^2 / sum q^4 under 30, and the tokens with most of their q^2.

    ``rank`` counts from 1, the largest loss proxy first; text is None without a tokenizer.
    """
    labels = "data" if "data" in profile.labels else "model"
    q2, q4 = profile.total("sum_q2", labels=labels), profile.total("sum_q4", labels=labels)
    count = max(profile.targets(), 1)
    channels, of = [], 0
    for site, core in profile_core(profile).items():
        of += len(core)
        ranks = np.argsort(np.argsort(-q2[site], kind="stable"), kind="stable")
        top = measured.moments.top[site]
        for place, channel in enumerate(core):
            if q2[site][channel] <= 0 or q4[site][channel] <= 0:
                continue
            effective = float((q2[site][channel] / np.sqrt(q4[site][channel])) ** 2)
            if effective >= THRESHOLD:
                continue
            channels.append(
                {
                    "site": site,
                    "channel": int(channel),
                    "rank": int(ranks[channel]) + 1,
                    "n_eff": effective,
                    "lp": float(0.5 * q2[site][channel] / count),
                    "tokens": [
                        _token(measured, tokenizer, int(block), int(position), float(value), top.total[place])
                        for value, block, position in zip(
                            top.value[place], top.block[place], top.position[place], strict=True
                        )
                        if value > 0
                    ],
                }
            )
    return {"threshold": THRESHOLD, "flagged": len(channels), "of": of, "channels": channels}


def _token(
    measured: "Measured", tokenizer: Any | None, block: int, position: int, value: float, total: float
) -> dict[str, Any]:
    before, token, after = None, None, None
    if tokenizer is not None:
        ids = measured.blocks.ids[block, : int(measured.blocks.lengths[block])].tolist()
        before = tokenizer.decode(ids[max(0, position - _AROUND) : position])
        token = tokenizer.decode(ids[position : position + 1])
        after = tokenizer.decode(ids[position + 1 : position + 1 + _AROUND])
    return {
        "block": block,
        "position": position,
        "share_of_lp": value / total,
        "before": before,
        "token": token,
        "after": after,
    }
