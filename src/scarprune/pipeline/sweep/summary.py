"""What the runs of a sweep say together: means over seeds, paired differences, and which rows pay."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scarprune.pipeline.sweep.grid import Grid, Run, Way
from scarprune.stats.interval import Estimate, over_units


def rows(grid: Grid, lines: Mapping[Run, Mapping[str, Any]], reference: Way) -> list[dict[str, Any]]:
    """One row a way and sparsity, in the order of the grid.

    Args:
        grid: what was asked for.
        lines: of all its runs.
        reference: the way whose excess, at the same sparsity and seed, is taken off each other's.

    Each row has ``excess_nats`` and ``difference`` (from the reference), both with ``value`` (mean over
    seeds), ``low`` and ``high`` (95%, Student's t over seeds), ``sd`` (n - 1) and ``by_seed``.
    """
    found = []
    for sparsity in grid.sparsities:
        base = [lines[Run(reference, sparsity, seed)]["excess_nats"] for seed in grid.seeds]
        for way in grid.ways:
            of_way = [lines[Run(way, sparsity, seed)] for seed in grid.seeds]
            excess = [line["excess_nats"] for line in of_way]
            paired = [None if None in pair else pair[0] - pair[1] for pair in zip(excess, base, strict=True)]
            found.append(
                {
                    **way.as_json(),
                    "sparsity": sparsity,
                    "achieved_sparsity": float(np.mean([line["achieved_sparsity"] for line in of_way])),
                    "parameters_after": round(np.mean([line["parameters_after"] for line in of_way])),
                    "excess_nats": over_seeds(excess),
                    "difference": over_seeds(paired),
                    "seconds": float(np.mean([line["seconds"] for line in of_way])),
                }
            )
    best = pareto([(row["parameters_after"], row["excess_nats"]["value"]) for row in found])
    return [{**row, "pareto": on} for row, on in zip(found, best, strict=True)]


def over_seeds(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean, interval and deviation; null where a seed gave no number, since the others would flatter."""
    lost = values.count(None)
    if lost:
        estimate = Estimate(None, reason=f"{lost} of {len(values)} seeds gave no finite number")
    else:
        estimate = over_units(values)
    known = np.array([value for value in values if value is not None])
    sd = float(known.std(ddof=1)) if not lost and len(known) > 1 else None
    return {**estimate.as_json(), "sd": sd, "by_seed": list(values)}


def pareto(points: Sequence[tuple[int, float | None]]) -> list[bool]:
    """Of each (parameters, excess), whether no other is at most as large and costs less, or as much."""
    return [
        cost is not None
        and not any(
            other is not None and p <= size and other <= cost and (p, other) != (size, cost)
            for p, other in points
        )
        for size, cost in points
    ]
