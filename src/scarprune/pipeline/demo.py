"""The whole story on a model that is at hand: what ``scarprune demo`` measures, chapter by chapter."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from scarprune import demo
from scarprune.artifacts import atomic_folder, read_json, write_json
from scarprune.cut.report import CutReport
from scarprune.errors import ArtifactError
from scarprune.evaluate.generate import continuation
from scarprune.evaluate.masks import masked
from scarprune.evaluate.perplexity import Perplexity, excess, perplexity
from scarprune.pipeline.cutting import cut_in_memory, save_cut
from scarprune.pipeline.inputs import Loading, Measuring, Reading
from scarprune.pipeline.stages import core_shares, describe, describe_model, measure
from scarprune.plan.plan import Plan, make_plan
from scarprune.profile.sums import Profile
from scarprune.runtime.provenance import provenance
from scarprune.text.blocks import Blocks

SPARSITY = 0.5
RESULT = "demo.json"  # also what tells a folder of ours from anybody else's
_KIND = "demo"


@dataclass(frozen=True, slots=True)
class Setting:
    """One demo: a model, and how much of the shipped texts fits in the time that people wait.

    Attributes:
        name: of the model, for people.
        source: what ``load_model`` takes.
        length: tokens of a block.
        calibration: blocks to measure on.
        evaluation: blocks to judge on.
        prompt: the beginning of a sentence for the model to go on with.
    """

    name: str
    source: str
    length: int
    calibration: int
    evaluation: int
    prompt: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """One way to choose the channels that stay; ``key`` names it in JSON."""

    key: str
    words: str
    score: str
    protect: Literal["core"] | None = None


RANKINGS = (
    Ranking("scar_prot", "SCAR-Prot (loss proxy, core kept, halo thinned)", "scar_prot"),
    Ranking("loss_proxy", "loss proxy", "loss_proxy"),
    Ranking("activation_power", "activation power", "activation_power"),
    Ranking("wanda", "Wanda", "wanda"),
    Ranking("random_core", "random, core kept", "random", "core"),
    Ranking("random", "random", "random"),
)
CUT_BY = "scar_prot"


def setting(which: str | None) -> Setting:
    """The demo on the built-in model, or on ``smollm2``.

    Raises:
        ArtifactError: SmolLM2 is not installed, or there is no such demo.
    """
    if which is None:
        return Setting(
            name="the built-in model",
            source="demo",
            length=512,
            calibration=32,
            evaluation=16,
            prompt="The old house stood at the end of the lane, and",
        )
    if which == "smollm2":
        return Setting(
            name="SmolLM2-135M-Instruct",
            source=str(demo.smollm2_path()),
            length=128,
            calibration=12,
            evaluation=8,
            prompt="The old house stood at the end of the lane, and",
        )
    raise ArtifactError(
        f"There is no demo called {which!r}.", hint="There are `scarprune demo` and `scarprune demo smollm2`."
    )


@contextlib.contextmanager
def demo_folder(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes ``out`` when the block ends well; an earlier demo there is replaced.

    Raises:
        ArtifactError: ``out`` is there and holds something else.
    """
    if out.exists() and not _is_ours(out):
        raise ArtifactError(
            f"{out} is there and is not an earlier demo's.", hint="Choose another folder with --out."
        )
    with atomic_folder(out, overwrite=True) as growing:
        yield growing


def _is_ours(out: Path) -> bool:
    if not out.is_dir():
        return False
    if not any(out.iterdir()):
        return True
    try:
        read_json(out / RESULT, _KIND)
    except ArtifactError:
        return False
    return True


@dataclass
class Story:
    """The chapters; each is measured when it is first asked for, and kept."""

    setting: Setting
    folder: Path
    loading: Loading = Loading()

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._reading = Reading(length=self.setting.length)

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """The model and its tokenizer."""
        return self.loading.load(self.setting.source)

    @cached_property
    def calibration(self) -> Blocks:
        """What is measured on."""
        return self._reading.blocks("demo:calibration", self.loaded[1], self.setting.calibration)

    @cached_property
    def evaluation(self) -> Blocks:
        """What is judged on: other books by other authors."""
        return self._reading.blocks("demo:evaluation", self.loaded[1], self.setting.evaluation)

    @cached_property
    def profile(self) -> Profile:
        """Chapter 1: every channel measured; written to ``profile.safetensors``."""
        measured = measure(self.loaded[0], self.calibration, Measuring(), seed=0)
        measured.save(self.folder / "profile.safetensors")
        return measured

    @cached_property
    def core_shares(self) -> dict[str, float | None]:
        """Chapter 2: what the core holds of each site's loss proxy."""
        return core_shares(self.profile)

    @cached_property
    def dense(self) -> Perplexity:
        """Chapter 3: the whole model on the evaluation text."""
        return perplexity(self.loaded[0], self.evaluation)

    def plan(self, ranking: Ranking) -> Plan:
        """Half of the channels, chosen by ``ranking``."""
        return make_plan(self.profile, ranking.score, SPARSITY, protect=ranking.protect)

    @cached_property
    def pruned(self) -> dict[str, Perplexity]:
        """Chapter 3: the same under each ranking's plan, as masks; ranking's key -> perplexity."""
        model, found = self.loaded[0], {}
        for ranking in RANKINGS:
            with masked(model, self.plan(ranking)):
                found[ranking.key] = perplexity(model, self.evaluation)
        return found

    @cached_property
    def dense_words(self) -> str:
        """Chapter 5: how the whole model goes on with the prompt."""
        return continuation(*self.loaded, self.setting.prompt)

    @cached_property
    def cut(self) -> CutReport:
        """Chapter 4: the smaller checkpoint, verified; the model in memory is cut too, so it comes last."""
        plan = self.plan(next(ranking for ranking in RANKINGS if ranking.key == CUT_BY))
        plan.save(self.folder / "plan.json")
        _ = self.dense, self.pruned, self.dense_words
        reference = cut_in_memory(self.loaded[0], plan, ids=self.evaluation.ids[0])
        return save_cut(*self.loaded, plan, self.folder / "model", reference)

    @cached_property
    def pruned_words(self) -> str:
        """Chapter 5: how the cut model goes on with the prompt."""
        _ = self.cut
        return continuation(*self.loaded, self.setting.prompt)

    def as_json(self) -> dict[str, Any]:
        """All chapters; ``demo.json`` holds it."""
        sites = [
            {
                "name": site.name,
                "layer": site.layer,
                "width": site.width,
                "core_share": self.core_shares[site.name],
            }
            for site in self.profile.sites
        ]
        rankings = []
        for ranking in RANKINGS:
            nats, error = excess(self.dense, self.pruned[ranking.key])
            entry = {"ranking": ranking.key, "score": ranking.score, "protect": ranking.protect}
            judged = {
                "excess_nats": nats,
                "excess_standard_error": error,
                **self.pruned[ranking.key].as_json(),
            }
            rankings.append(entry | judged)
        return {
            "provenance": provenance(**describe_model(self.loaded[0], self.setting.name), seed=0),
            "sparsity": SPARSITY,
            "calibration": describe(self.calibration),
            "evaluation": describe(self.evaluation),
            "sites": sites,
            "dense": self.dense.as_json(),
            "rankings": rankings,
            "cut": self.cut.as_json(),
            "sentence": {
                "prompt": self.setting.prompt,
                "dense": self.dense_words,
                "pruned": self.pruned_words,
            },
            "seconds": time.monotonic() - self._began,
        }

    def write(self) -> dict[str, Any]:
        """Write ``demo.json``; returns what it holds."""
        document = self.as_json()
        write_json(self.folder / RESULT, _KIND, document)
        return document
