"""The first compiled batch of a run counts only where the same blocks give the same sums eagerly.

A compiler that drops part of a gradient says nothing, and what it leaves looks like any other sum.
"""

import contextlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scarprune.profile.accumulate import SumsPass
from scarprune.profile.observer import Observer

if TYPE_CHECKING:
    from scarprune.profile.passes import Run

_AGREES = 0.1  # of a site's sum: rounding in other places changes less of it in any dtype, a lost term more
_EAGER_PARTS = 4  # a block takes more memory eagerly than compiled
_WRONG, _UNKNOWN, _RIGHT = 0, 1, 2


class Proof:
    """Batches to take, and beside them, eagerly and not to be counted, the blocks of a compiled one.

    Attributes:
        batches: rows of the blocks in each: those given, then those taken for the proof alone; there are none
            where nothing is compiled, a batch agreed before, or the observer is not that of pass 1.
        eager: whether the batch that runs is one for the proof alone.
    """

    def __init__(self, run: "Run", observer: Observer, batches: Sequence[np.ndarray]) -> None:
        self._run, self._given = run, len(batches)
        self._expected: dict[str, float] = {}
        self._found: dict[str, float] = {}
        self.batches, self.eager = list(batches), False
        compiled = [number for number, rows in enumerate(batches) if run.takes(rows)]
        if compiled and not run.compiling.proven and isinstance(observer, SumsPass):
            self._compiled = compiled[0]
            rows = batches[self._compiled]
            self.batches += np.array_split(rows, min(len(rows), _EAGER_PARTS))

    def counts(self, number: int) -> bool:
        """Whether a batch is one of those given."""
        return number < self._given

    def running(self, number: int | None) -> contextlib.AbstractContextManager[Any]:
        """Layers run compiled inside if the batch is; None is no batch at all."""
        self.eager = number is not None and not self.counts(number)
        return self._run.running(None if number is None or self.eager else self.batches[number])

    def see(self, number: int, observer: Observer) -> None:
        """Note what the batch just taken has given, before it is committed."""
        if len(self.batches) == self._given or (self.counts(number) and number != self._compiled):
            return
        assert isinstance(observer, SumsPass)
        sums = self._found if self.counts(number) else self._expected
        for name, size in observer.sizes().items():
            sums[name] = sums.get(name, 0.0) + size

    def holds(self) -> bool:
        """Whether the compiled batch may count; where not, nothing is compiled any more, and that is said.

        The parts of a copy decide together. Where a number overflowed there is nothing to compare: the batch
        counts or not as any other does, and the next one is compared.
        """
        if not self._expected:
            return True
        name = max(self._expected, key=self._distance)
        judged = _RIGHT if self._distance(name) <= _AGREES else _WRONG
        if not all(map(math.isfinite, self._expected.values())):
            judged = _UNKNOWN
        judged = int(self._run.ranks.least_of_copy(judged))
        if judged == _WRONG:
            found, expected = self._found[name], self._expected[name]
            reason = f"{name} of the same blocks is {found:.4g} compiled and {expected:.4g} eagerly."
            self._run.compiling.gives_up(ArithmeticError(reason))
        self._run.compiling.proven = judged == _RIGHT
        return judged != _WRONG

    def _distance(self, name: str) -> float:
        """From what was expected of a sum to what was found, relative to the first."""
        expected = self._expected[name]
        away = abs(self._found[name] - expected)
        relative = away / expected if expected else away
        return relative if math.isfinite(relative) else math.inf
