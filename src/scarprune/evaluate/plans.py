"""Several plans judged in one pass over the text, as masks on the dense model."""

from collections.abc import Sequence

from scarprune.errors import NumericsError
from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.perplexity import Perplexity, checked, of_blocks
from scarprune.evaluate.removal import Removal
from scarprune.models.fingerprint import fingerprint_model
from scarprune.plan.plan import Plan
from scarprune.stats.select import outside

AT_ONCE = 8  # plans whose results are lost together when a run is stopped; more are hardly faster


def judge_plans(ablator: Ablator, plans: Sequence[Plan]) -> list[Perplexity | NumericsError]:
    """What ``perplexity`` gives of the model ``masked`` by each plan; its error where a loss is not finite.

    Plans that remove the same channels run once, and layers below the first that a plan touches run once for
    all plans.

    Raises:
        PlanError: a plan is for other sites, widths or weights.
    """
    fingerprint = fingerprint_model(ablator.model)
    for plan in plans:
        plan.check(ablator.sites, fingerprint)
    nats = ablator.any_losses([removal_of(plan) for plan in plans], "Evaluating")
    found: list[Perplexity | NumericsError] = []
    for row in nats:
        try:
            found.append(checked(of_blocks(ablator.blocks, row)))
        except NumericsError as error:
            found.append(error)
    return found


def removal_of(plan: Plan) -> Removal:
    """The channels that ``plan`` does not keep."""
    return Removal({site.name: outside(site.keep, site.width) for site in plan.sites})
