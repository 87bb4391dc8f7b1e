"""How figures look: one accent for the core, grey for the rest, colours that colour-blind eyes tell apart."""

from typing import Any

INK, MUTED, GRID, PAPER = "#2b2f36", "#68717d", "#e7eaee", "#ffffff"
CORE, HALO, REST = "#b5342a", "#2f6fa3", "#8a97a6"
SCORES = (CORE, HALO, "#c28a1c", "#3c8d80", "#7b61a8", REST, "#a05a7c", "#5b6b2e")

# What each colour becomes on a dark page; figures are written in the light ones.
DARK = {
    INK: "#e6e8eb",
    MUTED: "#9aa4b0",
    GRID: "#2c333b",
    PAPER: "#15181c",
    CORE: "#f0786b",
    HALO: "#6db1e8",
    REST: "#7f8b98",
    "#c28a1c": "#e6b450",
    "#3c8d80": "#63c0b0",
    "#7b61a8": "#b39ae0",
    "#a05a7c": "#d68cb0",
    "#5b6b2e": "#a9bd6e",
}

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def config() -> dict[str, Any]:
    """The Vega-Lite configuration that all figures share."""
    return {
        "background": "transparent",
        "font": _FONT,
        "padding": 4,
        "view": {"stroke": None},
        "axis": {
            "domainColor": MUTED,
            "gridColor": GRID,
            "tickColor": MUTED,
            "labelColor": MUTED,
            "titleColor": INK,
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "tickSize": 4,
            "labelOverlap": True,
        },
        "axisX": {"grid": False},
        "axisY": {"domain": False, "ticks": False},
        "legend": {
            "orient": "top",
            "direction": "horizontal",
            "columns": 4,
            "title": None,
            "titleColor": INK,
            "titleFontWeight": "normal",
            "symbolOpacity": 1,
            "labelColor": INK,
            "labelFontSize": 12,
            "labelLimit": 0,
            "symbolType": "circle",
            "symbolSize": 70,
            "offset": 6,
        },
        "text": {"color": INK, "fontSize": 11},
        "range": {"category": list(SCORES)},
    }
