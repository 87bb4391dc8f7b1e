"""Two models side by side: sizes, tokens per second, memory, and why a cut model is not faster."""

from dataclasses import asdict, dataclass
from typing import Any

from scarprune.errors import UnsupportedModelError
from scarprune.evaluate.explain import PHASES, Timed, limit, medians, ratio, reasons, verdict
from scarprune.evaluate.speed import Load, measure_speed
from scarprune.models.cost import cost_of
from scarprune.models.forward import input_device
from scarprune.pipeline.inputs import Loading
from scarprune.pipeline.stages import describe_model
from scarprune.plan.readiness import Readiness, readiness
from scarprune.runtime.clock import measure_ceiling
from scarprune.runtime.device import device_name
from scarprune.runtime.provenance import provenance

_NO_PEAK = "measured on CUDA devices alone"


@dataclass(frozen=True)
class Bench:
    """What was measured.

    Attributes:
        timed: one for each model, in the order they were named.
        sources: the models' names.
        described: what the JSON says of each.
        facts: provenance of the JSON.
    """

    timed: tuple[Timed, ...]
    sources: tuple[str, ...]
    described: tuple[dict[str, Any], ...]
    facts: dict[str, Any]

    @property
    def reasons(self) -> list[str]:
        """Why the second model is as fast as it is; empty for one model alone."""
        return reasons(*self.timed) if len(self.timed) == 2 else []

    @property
    def verdicts(self) -> list[str]:
        """For each phase, whether the second model is faster; empty for one model alone."""
        if len(self.timed) < 2:
            return []
        dense, small = (timed.speed for timed in self.timed)
        return [verdict(ratio(dense, small, phase), phase) for phase in PHASES]

    @property
    def readiness(self) -> Readiness:
        """Of the last model's width."""
        return readiness(self.timed[-1].cost.widths)

    def as_json(self) -> dict[str, Any]:
        """The keys of ``bench --json``."""
        first = self.timed[0]
        document: dict[str, Any] = {
            "provenance": self.facts,
            "load": asdict(first.load),
            "ceiling": first.ceiling.as_json(),
            "models": [_as_json(*pair) for pair in zip(self.timed, self.described, strict=True)],
        }
        if len(self.timed) == 2:
            dense, small = self.timed
            document["ratio"] = {p: ratio(dense.speed, small.speed, p).as_json() for p in PHASES}
            document["limit"] = {phase: limit(dense, small, phase) for phase in PHASES}
            document["reasons"] = self.reasons
        return document


def _as_json(timed: Timed, described: dict[str, Any]) -> dict[str, Any]:
    peak = timed.speed.peak_bytes
    return {
        **described,
        **timed.cost.as_json(),
        "prefill_tokens_per_second": medians(timed.speed.prefill),
        "decode_tokens_per_second": medians(timed.speed.decode),
        "share_of_ceiling": {phase: timed.share_of_ceiling(phase) for phase in PHASES},
        "ffn_share": {phase: timed.work(phase).ffn_share for phase in PHASES},
        "peak_bytes": peak,
        **({"peak_bytes_reason": _NO_PEAK} if peak is None else {}),
        "readiness": readiness(timed.cost.widths).as_json(),
    }


def bench(
    source: str, small: str | None = None, *, loading: Loading = Loading(), load: Load = Load()
) -> Bench:
    """Time one model, or two in turn on the same device and the same tokens.

    Args:
        source: a folder, a hub id, a ``.gguf`` file or ``demo``.
        small: the model to compare with it, most often what was cut from it.
        loading: how both are loaded; both are in memory at once.
        load: what they are given to do.

    Raises:
        UnsupportedModelError: the two are computed in different dtypes.
    """
    sources = (source,) if small is None else (source, small)
    models = [loading.load(name)[0] for name in sources]
    dtypes = sorted({str(model.dtype).removeprefix("torch.") for model in models})
    if len(dtypes) > 1:
        raise UnsupportedModelError(
            f"The two models would be computed in {' and '.join(dtypes)}, which compares dtypes, not models.",
            hint=f"Pass --dtype {dtypes[0]}.",
        )
    device = input_device(models[0])
    ceiling = measure_ceiling(device, models[0].dtype)
    costs = [cost_of(model) for model in models]
    itemsize = models[0].dtype.itemsize
    speeds = measure_speed(models, load)
    return Bench(
        timed=tuple(
            Timed(*pair, load, ceiling, device.type, itemsize) for pair in zip(costs, speeds, strict=True)
        ),
        sources=sources,
        described=tuple(describe_model(*pair) for pair in zip(models, sources, strict=True)),
        facts=provenance(device=device_name(device), seed=load.seed),
    )
