"""What a cut changes in a ``config.json``: the family's own name for the width, and nothing else."""

import copy
from collections.abc import Mapping
from typing import Any

from scarprune.errors import PlanError
from scarprune.models.family import Family
from scarprune.plan.plan import Plan

_DTYPE_KEYS = ("dtype", "torch_dtype")


def config_of_cut(
    config: Mapping[str, Any], family: Family, plan: Plan, width: int, dtype: str | None = None
) -> dict[str, Any]:
    """A copy of ``config``, its keys in their order, for a model of ``width`` channels saved in ``dtype``.

    The width may be null before, which means four times the hidden size; it is a number afterwards. A plan
    that removes nothing changes nothing.

    Raises:
        PlanError: the config's width is not the one the plan was made for.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    text = changed.get("text_config")
    text = text if isinstance(text, dict) else changed
    before = {site.width for site in plan.sites}
    if before != {width}:
        stated = text.get(family.width_key)
        if stated is not None and {stated} != before:
            raise PlanError(
                f"The plan belongs to another model: the config's {family.width_key} is {stated}."
            )
        text[family.width_key] = width
    if dtype is not None:
        for part in (changed, text):
            part.update({key: dtype for key in _DTYPE_KEYS if key in part})
        if not any(key in changed for key in _DTYPE_KEYS):
            changed["dtype"] = dtype
    return changed
