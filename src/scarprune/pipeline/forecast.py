"""``bench --dry-run``: what the work on a model will take, from its config alone."""

import difflib
from dataclasses import asdict, dataclass
from typing import Any

import torch

from scarprune.errors import ArtifactError
from scarprune.models.family import read
from scarprune.models.load import auto_class, load_config
from scarprune.models.quiet import quiet
from scarprune.models.shapes import SHAPES
from scarprune.models.source import locate
from scarprune.pipeline.inputs import Loading
from scarprune.profile.size import file_bytes
from scarprune.runtime.device import DTYPES, resolve_device, resolve_dtype
from scarprune.runtime.progress import remark
from scarprune.runtime.provenance import provenance
from scarprune.scaling.machine import H100, Machine, measured, stated
from scarprune.scaling.placement import Placement, place
from scarprune.scaling.sizes import Sizes, sizes_of
from scarprune.scaling.stages import Job, Stage, forecast

_CLOSE = 0.6


@dataclass(frozen=True, slots=True)
class Rates:
    """What a user states of a machine: TFLOP/s of products, GB/s of memory and of the disk."""

    tflops: float | None = None
    bandwidth: float | None = None
    disk: float | None = None


@dataclass(frozen=True)
class Forecast:
    """What was worked out.

    Attributes:
        source: the model's name.
        sizes: of the model.
        dtype: of computing.
        job: what is to be done with it.
        machine: what it is done on.
        placement: how the model and the text lie on the GPUs.
        stages: what each takes.
        facts: provenance of the JSON.
    """

    source: str
    sizes: Sizes
    dtype: str
    job: Job
    machine: Machine
    placement: Placement
    stages: list[Stage]
    facts: dict[str, Any]

    @property
    def profile_bytes(self) -> int:
        """Of the profile's file."""
        sizes = self.sizes
        return file_bytes(sizes.widths, sizes.cores(), sizes.hidden, sizes.readers == 2)

    def as_json(self) -> dict[str, Any]:
        """The keys of ``bench --dry-run --json``."""
        return {
            "provenance": self.facts,
            "dry_run": True,
            "model": self.source,
            "dtype": self.dtype,
            **self.sizes.cost.as_json(),
            "profile_bytes": self.profile_bytes,
            "job": {"blocks": self.job.text.blocks, "length": self.job.text.length, "gpus": self.job.gpus}
            | {"tokens": self.job.text.tokens, "sparsity": self.job.sparsity},
            "machine": self.machine.as_json(),
            "placement": asdict(self.placement),
            "stages": [stage.as_json() for stage in self.stages],
        }


def foresee(source: str, job: Job, *, loading: Loading = Loading(), rates: Rates = Rates()) -> Forecast:
    """Work out every stage for ``source``: a published shape's name, or a model of which the config is there.

    Raises:
        ArtifactError: nothing there.
        UnsupportedModelError: an architecture whose feed-forward networks are not known.
        ArgumentError: a rate, a number of GPUs or a size of text that can never be right.
    """
    device = resolve_device(loading.device)
    config = config_of(source, loading)
    on_h100 = device.type == "cpu" and loading.device == "auto"
    dtype = _dtype(config, loading.dtype, torch.device("cuda") if on_h100 else device)
    sizes = sizes_of(built(config, loading.trust_remote_code).to(dtype), dtype.itemsize)
    if on_h100:
        remark(
            "There is no GPU here: times are those of an H100 (--device cpu for this CPU, --tflops and "
            "--bandwidth for others)."
        )
    machine = H100 if on_h100 else measured(device, dtype)
    machine = stated(machine, tflops=rates.tflops, bandwidth=rates.bandwidth, disk=rates.disk)
    return Forecast(
        source=source,
        sizes=sizes,
        dtype=str(dtype).removeprefix("torch."),
        job=job,
        machine=machine,
        placement=place(sizes, job.text, machine, job.gpus),
        stages=forecast(sizes, job, machine),
        facts=provenance(),
    )


def config_of(source: str, loading: Loading = Loading()) -> Any:
    """The config of a published shape or of a model; no weights are read, nor downloaded."""
    if source in SHAPES:
        return SHAPES[source].config()
    try:
        origin = locate(source, loading.revision, code=loading.trust_remote_code, weights=False)
    except ArtifactError as error:
        near = difflib.get_close_matches(source.lower(), SHAPES, n=1, cutoff=_CLOSE)
        if not near or "/" in source:
            raise
        known = ", ".join(SHAPES)
        raise ArtifactError(
            f"There is no model or shape called {source!r}.",
            hint=f"Did you mean {near[0]}? Known shapes are {known}.",
        ) from error
    return load_config(origin, trust_remote_code=loading.trust_remote_code)


def built(config: Any, trust_remote_code: bool = False) -> Any:
    """The model of ``config`` on the meta device: shapes without numbers."""
    options = {"trust_remote_code": True} if trust_remote_code else {}
    with torch.device("meta"), quiet():
        return auto_class(config).from_config(config, **options)


def _dtype(config: Any, name: str, device: torch.device) -> torch.dtype:
    """As a model would be loaded in: the checkpoint's on a GPU, bfloat16 where it does not say."""
    written = read(config, "dtype")
    known = written if isinstance(written, torch.dtype) else DTYPES.get(str(written).removeprefix("torch."))
    return resolve_dtype(name, known or torch.bfloat16, device)
