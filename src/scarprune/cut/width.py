"""The one width that a config can hold, and what it costs where a plan's widths differ."""

from scarprune.errors import PlanError
from scarprune.plan.plan import Plan


def stored_width(plan: Plan, pad: bool) -> int:
    """Channels that every site stores after the cut: the widest, where ``pad`` allows zeros in the others.

    Raises:
        PlanError: widths differ and ``pad`` is false.
    """
    widths = sorted(set(plan.widths.values()))
    if len(widths) > 1 and not pad:
        raise PlanError(
            f"The plan's widths differ by site ({widths[0]} to {widths[-1]}), and the config holds only one.",
            hint="Use pad=True (--pad) to fill up with zero channels, or a plan with uniform allocation.",
        )
    return widths[-1]


def padding(plan: Plan, width: int) -> int:
    """Channels of zeros that ``plan`` costs where every site stores ``width``."""
    return sum(width - kept for kept in plan.widths.values())
