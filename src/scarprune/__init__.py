"""Shows which feed-forward channels a language model's loss hangs on, and cuts the others out.

The public names are loaded when they are first used, so that importing the package is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scarprune.augment.own_text import own_text
    from scarprune.cut.compensate.job import Bounds
    from scarprune.cut.prune import prune_model
    from scarprune.cut.save import save_model
    from scarprune.distill.heal import heal
    from scarprune.errors import (
        ArgumentError,
        ArtifactError,
        MemoryBudgetError,
        NumericsError,
        PlanError,
        ScarpruneError,
        TextError,
        UnsupportedModelError,
    )
    from scarprune.evaluate.masks import masked
    from scarprune.evaluate.perplexity import perplexity
    from scarprune.findings.analyze import analyze
    from scarprune.findings.probes.validate import validate
    from scarprune.models.family import register_family
    from scarprune.models.find import find_sites
    from scarprune.models.load import load_model
    from scarprune.models.site import Site
    from scarprune.pipeline.reproduce.run import reproduce
    from scarprune.plan.plan import Plan, load_plan, make_plan
    from scarprune.profile.run import profile_model
    from scarprune.profile.sums import Profile, load_profile
    from scarprune.scores.core import core
    from scarprune.scores.score import register_score, score
    from scarprune.text.blocks import Blocks, read_blocks

__version__ = "0.1.0"

_HOMES = {
    "load_model": "models.load",
    "find_sites": "models.find",
    "register_family": "models.family",
    "Site": "models.site",
    "read_blocks": "text.blocks",
    "Blocks": "text.blocks",
    "own_text": "augment.own_text",
    "profile_model": "profile.run",
    "load_profile": "profile.sums",
    "Profile": "profile.sums",
    "analyze": "findings.analyze",
    "validate": "findings.probes.validate",
    "reproduce": "pipeline.reproduce.run",
    "score": "scores.score",
    "register_score": "scores.score",
    "core": "scores.core",
    "make_plan": "plan.plan",
    "load_plan": "plan.plan",
    "Plan": "plan.plan",
    "masked": "evaluate.masks",
    "perplexity": "evaluate.perplexity",
    "prune_model": "cut.prune",
    "heal": "distill.heal",
    "Bounds": "cut.compensate.job",
    "save_model": "cut.save",
    "ScarpruneError": "errors",
    "ArgumentError": "errors",
    "ArtifactError": "errors",
    "MemoryBudgetError": "errors",
    "NumericsError": "errors",
    "PlanError": "errors",
    "TextError": "errors",
    "UnsupportedModelError": "errors",
}

__all__ = [
    "ArgumentError",
    "ArtifactError",
    "Blocks",
    "Bounds",
    "MemoryBudgetError",
    "NumericsError",
    "Plan",
    "PlanError",
    "Profile",
    "ScarpruneError",
    "Site",
    "TextError",
    "UnsupportedModelError",
    "__version__",
    "analyze",
    "core",
    "find_sites",
    "heal",
    "load_model",
    "load_plan",
    "load_profile",
    "make_plan",
    "masked",
    "own_text",
    "perplexity",
    "profile_model",
    "prune_model",
    "read_blocks",
    "register_family",
    "register_score",
    "reproduce",
    "save_model",
    "score",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name == "plots":  # a module of charts, not a name in one
        return importlib.import_module("scarprune.plots")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"scarprune.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
