"""The mean of what removed channels wrote, as a bias of the down projection."""

from collections.abc import Iterator

from scarprune.cut.compensate.compensation import Compensation, Fitted
from scarprune.cut.compensate.gap import Gap
from scarprune.cut.compensate.job import Job, facts_of
from scarprune.profile.gram import grams


def fit(job: Job) -> Iterator[Fitted]:
    """b + W_R mean(u_R) for every site."""
    walk, held_walk = job.walks()
    for (site, gram, _), (_, held, _) in zip(grams(walk), grams(held_walk), strict=True):
        gap = Gap(job.model, site, job.plan.keep[site.name], held)
        shift = gap.lost @ gram.mean()[gap.gone]
        errors = {"none": gap.share(gap.none), "bias": gap.share(gap.error(offset=shift))}
        kept = "bias" if errors["bias"] < errors["none"] else "none"
        name = f"{site.down.module}.bias"
        values = job.rounded(name, shift if gap.bias is None else gap.bias + shift)
        yield Fitted(site, {"bias": {name: values} if kept == "bias" else {}}, facts_of(errors, kept))


COMPENSATION = Compensation(
    name="bias",
    description="the mean of what removed channels wrote becomes a bias of the down projection",
    source="FLAP, arXiv 2312.11983",
    steps=("bias",),
    fit=fit,
    adds_bias=True,
)
