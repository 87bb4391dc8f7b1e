"""Every figure as a file, drawn without a browser."""

from pathlib import Path
from typing import Any, Literal

from scarprune.artifacts import atomic_file
from scarprune.errors import ScarpruneError
from scarprune.report.figure import WIDTH, AbsentError, all_figures
from scarprune.report.sources import read_folder
from scarprune.report.theme import PAPER


def write_figures(
    folder: Path, form: Literal["svg", "png"], *, overwrite: bool = False
) -> dict[str, dict[str, Any]]:
    """Draw all figures of the artifacts in ``folder`` into ``folder/figures``.

    Returns ``{"written": {name: path}, "absent": {name: reason}}``; png has two pixels a point.

    Raises:
        ArtifactError: a figure is already there and ``overwrite`` is false, or nothing is to be drawn.
        ScarpruneError: the drawing library is not installed.
    """
    convert, documents = _converter(), read_folder(folder)
    written, absent = {}, {}
    for figure in all_figures():
        try:
            if figure.artifact not in documents:
                raise AbsentError(f"Not drawn: there is no {figure.artifact}.json.")
            spec = figure.spec(documents[figure.artifact], width=WIDTH)
        except AbsentError as reason:
            absent[figure.name] = reason.message
            continue
        spec["config"]["background"] = PAPER
        out = folder / "figures" / f"{figure.name}.{form}"
        with atomic_file(out, overwrite=overwrite) as temporary:
            if form == "svg":
                temporary.write_text(convert.vegalite_to_svg(spec), encoding="utf-8")
            else:
                temporary.write_bytes(convert.vegalite_to_png(spec, scale=2))
        written[figure.name] = str(out)
    return {"written": written, "absent": absent}


def _converter() -> Any:
    try:
        import vl_convert
    except ImportError as error:
        raise ScarpruneError(
            "Drawing figures needs vl-convert, which is not installed.",
            hint='pip install "scarprune[report]"',
        ) from error
    return vl_convert
