"""Which stored tensors a cut touches: from the plan, the family and a checkpoint's names and shapes."""

from dataclasses import replace

from scarprune.cut.slice import Selection, selections
from scarprune.errors import UnsupportedModelError
from scarprune.models.checkpoint import Checkpoint
from scarprune.models.family import Family
from scarprune.models.layout import sites_of
from scarprune.models.names import canonical
from scarprune.models.site import Site
from scarprune.plan.plan import Plan


def stored_sites(checkpoint: Checkpoint, family: Family) -> list[Site]:
    """The sites of a checkpoint under the names of its files, in layer order.

    Raises:
        UnsupportedModelError: its tensors are not what the family declares.
    """
    shapes = {}
    for name, tensor in checkpoint.tensors.items():
        if name.endswith(".weight") and len(tensor.shape) == 2:
            out, into = reversed(tensor.shape) if family.kind == "conv1d" else tensor.shape
            shapes[name.removesuffix(".weight")] = (into, out)
    try:
        return sites_of(family, shapes)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(
            f"{checkpoint.folder} cannot be cut as it lies on disk: {error.message}",
            hint="Load the model and cut it in memory (prune_model, save_model).",
        ) from error


def stored_selections(checkpoint: Checkpoint, family: Family, plan: Plan, width: int) -> dict[str, Selection]:
    """Stored name -> what stays of it, for every tensor that a cut touches.

    Args:
        checkpoint: the source.
        family: of the source.
        plan: names its sites as the model in memory does.
        width: channels to store in every site.

    Raises:
        PlanError: the plan is for other sites or widths.
        UnsupportedModelError: the checkpoint's tensors are not what the family declares.
    """
    found = {canonical(site.name): site for site in stored_sites(checkpoint, family)}
    names = {canonical(planned.name): planned.name for planned in plan.sites}
    plan.check([replace(site, name=names.get(key, site.name)) for key, site in found.items()])
    return {
        name: selection
        for planned in plan.sites
        for module, parameter, selection in selections(found[canonical(planned.name)], planned.keep, width)
        if (name := f"{module}.{parameter}") in checkpoint.tensors
    }
