"""The paper's claims, each with a criterion fixed here, decided by what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from scarprune.paper.pruning import difference

Document = Mapping[str, Any]
Row = Mapping[str, Any]

CONCENTRATED = 10.0  # times the share that the core would hold if all channels held alike
FEW_SHARED = 1 / 3  # a Jaccard index: half of each of two equal sets
LARGE_NATS = 1.0
_HALF = 0.5
_WIDE = 2.0  # standard errors


def claims(
    findings: Document | None, validation: Document | None, rows: Sequence[Row], targets: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """``claim``, ``criterion``, ``holds`` (null where it cannot be decided), ``why``.

    Args:
        findings: what ``analyze`` wrote; None where it was not run.
        validation: what ``validate`` wrote; None where it was not run.
        rows: of ``pruning``, with ``block_excess_nats``.
        targets: protocol -> predicted tokens of each block of its evaluation text.
    """
    ours = {row["score"]: row for row in rows if row["protocol"] == "ours" and row["sparsity"] == _HALF}
    paper = {row["score"]: row for row in rows if row["protocol"] == "paper" and row["sparsity"] == _HALF}
    mine, theirs = targets.get("ours", ()), targets.get("paper", ())
    return [
        _concentrated(findings),
        _apart(findings),
        _halo(findings),
        _truth(validation),
        _less(
            "Keeping the core rescues a random cut",
            ours,
            mine,
            "random_core",
            "random",
        ),
        _less("Removing the core is worse than a random cut", ours, mine, "random", "core_removed"),
        _less("The loss proxy beats activation power", ours, mine, "loss_proxy", "activation_power"),
        _less("Protecting by the halo helps the loss proxy", ours, mine, "scar_prot", "loss_proxy"),
        _less(
            "Channel-wise Wanda as the paper computes it is no rival",
            paper,
            theirs,
            "loss_proxy",
            "paper_wanda",
            LARGE_NATS,
        ),
        _less(
            "Wanda on packed text without padding is no rival either",
            ours,
            mine,
            "loss_proxy",
            "wanda",
            LARGE_NATS,
        ),
    ]


def _claim(claim: str, criterion: str, holds: bool | None, why: str) -> dict[str, Any]:
    return {"claim": claim, "criterion": criterion, "holds": holds, "why": why}


def _concentrated(findings: Document | None) -> dict[str, Any]:
    claim = "The loss proxy is concentrated in the core"
    criterion = f"the core of a median site holds at least {CONCENTRATED:g} times its share of the channels"
    share = findings["summary"]["core_share"]["median"] if findings else None
    if findings is None or share is None:
        return _claim(claim, criterion, None, "It was not measured.")
    part = sum(len(site["core"]) for site in findings["sites"]) / sum(s["width"] for s in findings["sites"])
    why = f"The core, {part:.2%} of the channels, holds {share:.1%}: {share / part:.1f} times its share."
    return _claim(claim, criterion, share >= CONCENTRATED * part, why)


def _apart(findings: Document | None) -> dict[str, Any]:
    claim = "The core is not the activation outliers"
    criterion = "the median Jaccard index is below 1/3: less than half of each is in the other"
    found = findings["summary"]["jaccard_activation"]["median"] if findings else None
    if found is None:
        return _claim(claim, criterion, None, "It was not measured.")
    return _claim(claim, criterion, found < FEW_SHARED, f"The median Jaccard index is {found:.2f}.")


def _halo(findings: Document | None) -> dict[str, Any]:
    claim = "The halo is more redundant with the core than channels of like loss proxy"
    criterion = "the interval of the pooled ratio, beyond sign flips, lies above 1"
    controls = ((findings or {}).get("halo") or {}).get("controls") or {}
    found = controls.get("variants", {}).get("plain", {}).get("matched")
    ratio = (found or {}).get("ratio") or {}
    if not found or ratio.get("low") is None:
        return _claim(claim, criterion, None, "There is no interval, or it was not measured.")
    if found["sites_left_out"]:
        why = f"In {found['sites_left_out']} sites there is no ratio. AUC: {found['statement']}."
        low = (found.get("auc") or {}).get("low")
        return _claim(claim, criterion, None if low is None else low > 0.5, why)
    return _claim(claim, criterion, ratio["low"] > 1, f"{found['statement'].capitalize()}.")


def _truth(validation: Document | None) -> dict[str, Any]:
    claim = "The loss proxy tells which channels do harm when removed"
    criterion = str(validation["criterion"]) if validation else "that of `scarprune validate`"
    refuted = validation["verdict"]["refuted"] if validation else None
    if validation is None or refuted is None:
        return _claim(claim, criterion, None, "It was not measured, or on too little.")
    reason = str(validation["verdict"]["reason"])
    return _claim(claim, criterion, not refuted, f"{reason[:1].upper()}{reason[1:]}.")


def _less(
    claim: str,
    rows: Mapping[str, Row],
    targets: Sequence[int],
    better: str,
    worse: str,
    least: float = 0.0,
) -> dict[str, Any]:
    """Whether ``better`` costs less than ``worse`` at 50%, by ``least`` and two paired standard errors."""
    criterion = f"at 50%, {better} costs less than {worse} by more than {_WIDE:g} paired standard errors"
    if least:
        criterion = f"at 50%, {better} costs {least:g} nat less than {worse}, and {_WIDE:g} standard errors"
    if better not in rows or worse not in rows:
        return _claim(claim, criterion, None, "It was not measured.")
    gap, error = difference(rows[worse], rows[better], targets)
    said = f"{worse} costs {gap:+.3f} nats against {better}"
    if error is None:
        return _claim(claim, criterion, None, f"{said}, from one block: no error is known.")
    return _claim(claim, criterion, gap > max(least, _WIDE * error), f"{said} (standard error {error:.3f}).")
