"""Intervals: delete-one-group jackknife, and means over units, on the scale that suits (``method`` 3)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special, stats

Scale = Literal["identity", "logit", "log", "fisher"]

_TO: dict[str, Callable[[float], float]] = {
    "identity": float,
    "logit": lambda x: float(special.logit(x)),
    "log": lambda x: math.log(x) if x > 0 else -math.inf,
    "fisher": lambda x: math.atanh(x) if abs(x) < 1 else math.copysign(math.inf, x),
}
_FROM: dict[str, Callable[[float], float]] = {
    "identity": float,
    "logit": lambda x: float(special.expit(x)),
    "log": math.exp,
    "fisher": math.tanh,
}
_LEVEL = 0.95
_FEWEST = 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95% interval; ``reason`` says why a part of it is None."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """``value``, ``low``, ``high``, and ``reason`` where one is given."""
        document: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high}
        return document if self.reason is None else {**document, "reason": self.reason}


def jackknife(value: float | None, left_out: Sequence[float | None], scale: Scale) -> Estimate:
    """theta +- t(n - 1) * se on ``scale``, with se^2 = (n - 1)/n * sum (theta_(-g) - mean)^2.

    Args:
        value: theta, of all groups.
        left_out: theta_(-g), of all groups but one, for each of the n groups.
        scale: logit for shares, log for ratios, fisher for correlations.

    The percentile bootstrap over 8 groups covers 66% where it should cover 95%, hence the jackknife.
    """
    if value is None:
        return Estimate(None, reason="the quantity itself is not defined")
    if len(left_out) < _FEWEST:
        return Estimate(value, reason=f"an interval needs {_FEWEST} groups, not {len(left_out)}")
    if any(x is None for x in left_out):
        return Estimate(value, reason="without one of the groups the quantity is not defined")
    theta = _TO[scale](value)
    without = np.array([_TO[scale](x) for x in left_out if x is not None])
    if not (math.isfinite(theta) and np.isfinite(without).all()):
        return Estimate(value, reason=f"at the end of its range there is no interval on the {scale} scale")
    n = len(without)
    error = math.sqrt((n - 1) / n * float(np.square(without - without.mean()).sum()))
    return _interval(value, theta, error, n, scale)


def over_units(values: Sequence[float | None], scale: Scale = "identity") -> Estimate:
    """The mean of independent units (sites, pairs, seeds) on ``scale``, with its t interval over them.

    Units that are None, or at the end of the scale, are left out.
    """
    known = [_TO[scale](value) for value in values if value is not None]
    finite = np.array([value for value in known if math.isfinite(value)])
    if not len(finite):
        return Estimate(None, reason="no unit gave a number")
    theta = float(finite.mean())
    value = _FROM[scale](theta)
    if len(finite) < _FEWEST:
        return Estimate(value, reason=f"an interval needs {_FEWEST} units, not {len(finite)}")
    error = float(finite.std(ddof=1)) / math.sqrt(len(finite))
    return _interval(value, theta, error, len(finite), scale)


def _interval(value: float, theta: float, error: float, units: int, scale: Scale) -> Estimate:
    reach = float(stats.t.ppf((1 + _LEVEL) / 2, units - 1)) * error
    low, high = theta - reach, theta + reach
    if scale == "log" and high > 700:
        return Estimate(value, reason="the interval is wider than numbers go")
    return Estimate(value, _FROM[scale](low), _FROM[scale](high))
