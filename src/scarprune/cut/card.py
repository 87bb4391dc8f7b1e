"""The model card of the output: what was cut, how to repeat it, and the licence that the source's names."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

from scarprune.cut.gguf_facts import gguf_front_matter
from scarprune.cut.report import CutReport
from scarprune.cut.travel import CARD, PLAN
from scarprune.errors import ArtifactError
from scarprune.models.source import locate
from scarprune.plan.plan import Plan
from scarprune.runtime.provenance import command, versions

_TEMPLATES = Path(__file__).parent / "templates"
_CARRIED = ("license", "license_name", "license_link", "language", "library_name", "pipeline_tag")
_TAGS = ("scarprune", "pruned")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_LARGEST_CARD_BYTES = 1 << 20


@dataclass(frozen=True)
class Quality:
    """Perplexity before and after, for the card.

    Attributes:
        dense: the evaluation of the source, as JSON: ``perplexity`` and ``tokens`` are read.
        pruned: the same of the smaller model, on the same text.
        text: what the text was, as the user named it.
        excess_nats: ln of the ratio of the perplexities.
        excess_standard_error: of the paired difference over blocks, nats.
    """

    dense: Mapping[str, Any]
    pruned: Mapping[str, Any]
    text: str | None = None
    excess_nats: float | None = None
    excess_standard_error: float | None = None


@dataclass(frozen=True)
class Training:
    """What the cut model learned afterwards, for the card.

    Attributes:
        teacher: the dense model, as the user named it; the plan was made for it.
        tokens: read while training.
        text: what was read, as the user named it.
        before: KL(teacher || model) on held-out blocks of that text, nats per token.
        after: the same at the end.
    """

    teacher: str
    tokens: int
    text: str
    before: float
    after: float


def write_card(
    folder: Path,
    name: str,
    source: str,
    plan: Plan,
    report: CutReport,
    quality: Quality | None = None,
    source_folder: Path | None = None,
    training: Training | None = None,
) -> None:
    """Write ``README.md`` into ``folder``.

    Args:
        folder: the output, where it grows.
        name: what the output is called.
        source: the model as the user named it: a folder, a hub id or a file.
        plan: what was cut.
        report: the numbers of the cut.
        quality: perplexities, where they were measured.
        source_folder: where the source lies on this machine, with its own card.
        training: what came after the cut, if anything did.
    """
    folder.joinpath(CARD).write_text(
        render(name, source, plan, report, quality, source_folder, training), encoding="utf-8"
    )


def render(
    name: str,
    source: str,
    plan: Plan,
    report: CutReport,
    quality: Quality | None = None,
    source_folder: Path | None = None,
    training: Training | None = None,
) -> str:
    """The text of the card; arguments as in ``write_card``."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
    )
    path = _path_of(source) if source_folder is None else source_folder
    return environment.get_template("card.md").render(
        front=yaml.safe_dump(front_matter(source, path), sort_keys=False, allow_unicode=True),
        name=name,
        source=_hub_id(source, path) or Path(source).name,
        source_word=shlex.quote(source),
        plan=plan,
        plan_file=PLAN,
        report=report,
        removed=f"{report.achieved_sparsity:.1%}",
        sites=len(plan.sites),
        widths_before=_spread(site.width for site in plan.sites),
        widths_after=_spread(report.widths.values()),
        widths_kept=_spread(plan.widths.values()),
        texts=list(_texts(plan)),
        command=command(),
        version=versions()["scarprune"],
        dense=quality and quality.dense,
        pruned=quality and quality.pruned,
        evaluation=quality and quality.text,
        excess_nats=quality and quality.excess_nats,
        excess_standard_error=quality and quality.excess_standard_error,
        training=training,
    )


def front_matter(source: str, path: Path | None) -> dict[str, Any]:
    """The YAML header of the output's card: licence, language and tags from the source's, and the base model.

    The base model is the source's hub id; of a local folder, the id it was downloaded as, else the base
    model that its own card (or GGUF header) names.
    """
    carried = {} if path is None else gguf_front_matter(path) if path.is_file() else _source_card(path / CARD)
    front = {key: carried[key] for key in _CARRIED if _is_words(carried.get(key))}
    base = _hub_id(source, path) or carried.get("base_model")
    if _is_words(base):
        front["base_model"] = base
    tags = carried.get("tags")
    tags = [tags] if isinstance(tags, str) else tags if _is_words(tags) else []
    return {**front, "tags": list(dict.fromkeys([*(tags or []), *_TAGS]))}


def _path_of(source: str) -> Path | None:
    try:
        return locate(source).path
    except ArtifactError:
        return None


def _source_card(path: Path) -> dict[str, Any]:
    """The YAML header of a card; empty where there is none that can be read."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LARGEST_CARD_BYTES)
        match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
        header = yaml.safe_load(match[1]) if match else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return header if isinstance(header, dict) else {}


def _is_words(value: Any) -> bool:
    """Whether a value of a header is text or a list of texts: nothing else is carried over."""
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(word, str) for word in value)
    )


def _hub_id(source: str, path: Path | None) -> str | None:
    if _HUB_ID.fullmatch(source) and not Path(source).exists():
        return source
    cached = re.search(r"models--([^/]+?)--([^/]+)/snapshots/", f"{path and path.absolute().as_posix()}/")
    return f"{cached[1]}/{cached[2]}" if cached else None


def _spread(values: Iterable[int]) -> str:
    """``1,536``, or ``1,200 to 1,536`` where they differ."""
    ordered = sorted(set(values))
    return " to ".join(f"{value:,}" for value in dict.fromkeys((ordered[0], ordered[-1])))


def _texts(plan: Plan) -> Iterator[str]:
    """What the plan's profile was measured on, as far as its provenance says."""
    texts = plan.provenance.get("text")
    for text in texts if isinstance(texts, list) else []:
        if isinstance(text, Mapping) and "source" in text:
            size = f"{text.get('blocks')} blocks of {text.get('length')} tokens" if "blocks" in text else ""
            yield f"`{text['source']}`" + (f", {size}, seed {text.get('seed')}" if size else "")
