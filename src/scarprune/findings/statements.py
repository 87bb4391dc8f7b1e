"""Findings in words: one sentence a quantity, made from the numbers and from nothing else."""

from collections.abc import Iterator, Mapping
from typing import Any

Findings = Mapping[str, Any]


def statements(findings: Findings) -> list[dict[str, str]]:
    """What the numbers of ``findings`` say, as ``{"about", "text"}``, in the order of a reader's questions.

    A quantity that is missing gives no sentence; a difference whose interval holds "no difference" is called
    that.
    """
    made = (
        ("concentration", _concentration),
        ("activation", _activation),
        ("stability", _stability),
        ("halo", _halo),
        ("read side", _read_side),
        ("tokens", _tokens),
        ("agreement", _agreement),
    )
    return [{"about": about, "text": text} for about, sentences in made for text in sentences(findings)]


def _concentration(findings: Findings) -> Iterator[str]:
    shares = findings["summary"]["core_share"]
    if shares["median"] is None:
        yield "No site has a loss proxy to share: every gradient was zero."
        return
    sites = findings["sites"]
    core = sum(len(site["core"]) for site in sites)
    channels = sum(site["width"] for site in sites)
    yield (
        f"The core, {core:,} of {channels:,} channels, holds {_percent(shares['median'])} of the loss proxy "
        f"of a median site{_interval(shares.get('interval'), _percent)}; by site "
        f"{_percent(shares['min'])} to {_percent(shares['max'])}."
    )
    fitted = findings["summary"]["core_share_cross_fitted"]["median"]
    if fitted is not None:
        yield f"Chosen on one half of the text and weighed on the other, the core holds {_percent(fitted)}."


def _activation(findings: Findings) -> Iterator[str]:
    overlap, rank = findings["summary"]["jaccard_activation"], findings["summary"]["spearman_activation"]
    if overlap["median"] is None:
        return
    yield (
        f"Core and activation outliers overlap with a Jaccard index of {overlap['median']:.2f} in a median "
        f"site (two random sets: {overlap['chance']:.3f})"
        + (
            "."
            if rank["median"] is None
            else f"; the rank correlation of all channels is {rank['median']:.2f}."
        )
    )


def _stability(findings: Findings) -> Iterator[str]:
    half = findings["summary"]["split_half_jaccard"]
    if half["median"] is None:
        return
    yield (
        f"Two halves of the same text agree on the core with a Jaccard index of {half['median']:.2f} in a "
        f"median site (chance: {half['chance']:.3f})."
    )


def _halo(findings: Findings) -> Iterator[str]:
    controls = ((findings.get("halo") or {}).get("controls") or {}).get("variants", {})
    for control in controls.get("plain", {}).values():
        if isinstance(control, Mapping) and control.get("statement"):
            text = str(control["statement"])
            yield text[0].upper() + text[1:].rstrip(".") + "."


def _read_side(findings: Findings) -> Iterator[str]:
    found = (findings.get("halo") or {}).get("read_side")
    if not found or found["summary"]["lp_share_of_read_halo"]["median"] is None:
        return
    held, random = (found["summary"][key]["median"] for key in ("lp_share_of_read_halo", "random_median"))
    yield (
        f"The {_percent(found['share'])} of a network's channels that read most where the core before them "
        f"writes hold {_percent(held)} of its loss proxy"
        + ("." if random is None else f"; where random cores write, {_percent(random)} (medians).")
    )


def _tokens(findings: Findings) -> Iterator[str]:
    odd = findings.get("odd_tokens")
    if odd is None or not odd["flagged"]:
        return
    yield (
        f"{odd['flagged']:,} of {odd['of']:,} core channels rest on fewer than {odd['threshold']} effective "
        "tokens: another text may not put them into the core."
    )


def _agreement(findings: Findings) -> Iterator[str]:
    for pair in (findings.get("agreement") or {}).get("pairs", []):
        differ = " and ".join(pair["differ"]) or "nothing that is recorded"
        median, chance = pair["jaccard"]["median"], pair["jaccard"].get("chance")
        if median is not None:
            yield (
                f"Profiles {pair['a'] + 1} and {pair['b'] + 1}, which differ in {differ}, share their core "
                f"with a Jaccard index of {median:.2f}"
                + ("." if chance is None else f" (chance: {chance:.3f}).")
            )


def _interval(estimate: Mapping[str, Any] | None, word: Any) -> str:
    if not estimate or estimate.get("low") is None:
        return ""
    return f" (95% interval {word(estimate['low'])} to {word(estimate['high'])})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
