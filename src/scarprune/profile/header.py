"""The header of a profile's file, checked before anything is read from it."""

from collections.abc import Mapping
from typing import Any

from scarprune.models.site import Site

_TYPES: dict[str, type] = {"name": str, "layer": int, "width": int, "hidden": int, "gated": bool}


def read_sites(entries: Any) -> list[Site]:
    """The sites a header lists.

    Raises:
        ValueError: not a list of sites, or two of one name.
    """
    if not isinstance(entries, list) or not entries:
        raise ValueError("it lists no sites")
    sites = [_read_site(entry) for entry in entries]
    if len({site.name for site in sites}) != len(sites):
        raise ValueError("two sites have one name")
    return sites


def _read_site(entry: Any) -> Site:
    if not isinstance(entry, dict) or entry.keys() != _TYPES.keys():
        raise ValueError(f"a site is {entry!r:.60}")
    for key, kind in _TYPES.items():
        if type(entry[key]) is not kind:
            raise ValueError(f"{key} of a site is {entry[key]!r:.60}")
    if not entry["name"] or entry["layer"] < 0 or entry["width"] < 1 or entry["hidden"] < 1:
        raise ValueError(f"a site is {entry!r:.60}")
    return Site(**entry)


def check_header(header: Mapping[str, Any], bands: int, groups: int) -> None:
    """Raise ValueError or KeyError where a count, a label or the rest is missing or cannot be."""
    labels = header["labels"]
    if labels not in (["data"], ["model"], ["data", "model"], ["model", "data"]):
        raise ValueError(f"labels are {labels!r:.60}")
    if not isinstance(header["fingerprint"], str):
        raise ValueError("the fingerprint is no string")
    if not isinstance(header["text"], list):
        raise ValueError("the text is no list")
    rho = header["rho"]
    if type(rho) not in (int, float) or not 0 < rho <= 1:
        raise ValueError(f"rho is {rho!r:.60}")
    counts = header["counts"]
    if not isinstance(counts, dict):
        raise ValueError(f"counts are {counts!r:.60}")
    _check_counts("targets", counts["targets"], bands)
    _check_counts("positions", counts["positions"], bands)
    _check_counts("blocks", [counts["blocks"]], 1)
    _check_counts("groups", header["groups"], groups)


def _check_counts(word: str, values: Any, length: int) -> None:
    """``length`` integers, none below 0 or beyond int64, not all of them 0."""
    if not isinstance(values, list) or len(values) != length:
        raise ValueError(f"{word}: {values!r:.60}")
    if not all(type(value) is int and 0 <= value < 2**53 for value in values) or sum(values) == 0:
        raise ValueError(f"{word}: {values!r:.60}")
