"""The findings as one HTML file that needs nothing else: words first, then figures, tables, provenance."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from scarprune.artifacts import atomic_file, refuse_existing
from scarprune.errors import ScarpruneError
from scarprune.report.figure import AbsentError, all_figures
from scarprune.report.sources import read_folder
from scarprune.report.theme import DARK

_TEMPLATES = Path(__file__).with_name("templates")


def write_page(folder: Path, out: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write the report on the artifacts in ``folder`` to ``out``.

    Returns ``{"page": path, "bytes": size, "figures": [names], "absent": {name: reason}}``.

    Raises:
        ArtifactError: ``out`` is already there and ``overwrite`` is false, or ``folder`` holds no artifact.
        ScarpruneError: the drawing library is not installed.
    """
    refuse_existing(out, overwrite)
    documents = read_folder(folder)
    specs, absent = _draw(documents)
    text = _render(documents, specs, absent)
    with atomic_file(out, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return {"page": str(out), "bytes": len(text.encode()), "figures": list(specs), "absent": absent}


def _draw(documents: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    specs: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for figure in all_figures():
        if figure.artifact not in documents:
            command = {"findings": "analyze", "validation": "validate", "reproduction": "reproduce"}
            how = command.get(figure.artifact, figure.artifact)
            absent[figure.name] = (
                f"Not drawn: there is no {figure.artifact}.json; `scarprune {how}` writes it."
            )
            continue
        try:
            specs[figure.name] = figure.spec(documents[figure.artifact])
        except AbsentError as reason:
            absent[figure.name] = reason.message
    return specs, absent


def _render(documents: Mapping[str, Any], specs: Mapping[str, Any], absent: Mapping[str, str]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.ChainableUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "number": _number, "script": script_json}
    findings = documents.get("findings", {})
    model = next((d["model"] for d in documents.values() if d.get("model")), "a model")
    return environment.get_template("page.html").render(
        model=_model_name(model),
        documents=documents,
        findings=findings,
        figures=[figure for figure in all_figures() if figure.name in specs],
        left_out=[(figure, absent[figure.name]) for figure in all_figures() if figure.name in absent],
        sites=_sites(findings),
        specs=specs,
        dark=DARK,
        style=Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8")),
        behaviour=Markup((_TEMPLATES / "page.js").read_text(encoding="utf-8")),
        library=Markup(_library().replace("</script", "<\\/script")),
    )


def _model_name(model: str) -> str:
    """A hub id as it is; of a folder its name alone, since where it lay on one machine says nothing."""
    path = Path(model)
    if path.parts[-3:] == ("demo", "data", "model"):
        return "the built-in model"
    return path.name if path.is_absolute() else model


def script_json(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in, whatever strings it holds."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _sites(findings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table of the core."""
    kinds = (findings.get("concentration") or {}).get("labels") or {}
    shares = {s["name"]: s["core_share"] for s in next(iter(kinds.values()))["sites"]} if kinds else {}
    scores = (findings.get("explanations") or {}).get("scores") or {}
    overlaps = {s["name"]: s["jaccard"] for s in (scores.get("activation_power") or {}).get("sites", [])}
    return [
        {
            "site": site["name"],
            "layer": site["layer"],
            "width": site["width"],
            "share": shares.get(site["name"], {}),
            "jaccard": overlaps.get(site["name"]),
            "core": site["core"],
        }
        for site in findings.get("sites", [])
    ]


def _library() -> str:
    try:
        import altair
        import vl_convert
    except ImportError as error:
        raise ScarpruneError(
            "A report needs Altair and vl-convert, which are not installed.",
            hint='pip install "scarprune[report]"',
        ) from error
    version = altair.SCHEMA_VERSION.rsplit(".", 1)[0]
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    return bundle


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _number(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
