"""The down projection refitted by least squares to what the dense one writes."""

from collections.abc import Iterator

from scarprune.cut.compensate.compensation import Compensation, Fitted
from scarprune.cut.compensate.job import Job, facts_of
from scarprune.cut.compensate.ridge import solve
from scarprune.profile.gram import grams


def fit(job: Job) -> Iterator[Fitted]:
    """The ridge solution of every site, from the dense model's own channels."""
    walk, held_walk = job.walks()
    for (site, gram, _), (_, held, _) in zip(grams(walk), grams(held_walk), strict=True):
        found = solve(job, site, gram, held)
        kept = "ls" if found.weights else "none"
        errors = {"none": found.none, "ls": found.error}
        facts = facts_of(errors, kept, damping=found.damping, condition=found.condition)
        yield Fitted(site, {"ls": found.weights}, facts)


COMPENSATION = Compensation(
    name="ls",
    description="the down projection refitted by least squares to what the dense one writes",
    source="ridge regression",
    steps=("ls",),
    fit=fit,
)
