"""A cut network computes what the whole one computes with the removed channels at zero."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarprune.cut.slice import Selection, selections
from scarprune.errors import PlanError
from scarprune.models.site import Projection, Site

HIDDEN = 3


@st.composite
def keeps(draw: st.DrawFn) -> tuple[int, np.ndarray]:
    width = draw(st.integers(1, 12))
    kept = draw(st.sets(st.integers(0, width - 1)))
    return width, np.array(sorted(kept), dtype=np.int64)


def site_of(width: int, *projections: Projection) -> Site:
    return Site("mlp.down", 0, width, HIDDEN, len(projections) == 3, projections)


def cut(
    weights: dict[str, np.ndarray], site: Site, keep: np.ndarray, width: int | None = None
) -> dict[str, np.ndarray]:
    small = dict(weights)
    for module, parameter, selection in selections(site, keep, width):
        name = f"{module}.{parameter}"
        if name in weights:
            small[name] = selection.take(weights[name])
            assert small[name].shape == selection.shape(weights[name].shape)
    return small


def mask(width: int, keep: np.ndarray) -> np.ndarray:
    return np.isin(np.arange(width), keep).astype(np.float64)


@given(keeps(), st.integers(0, 3))
def test_a_gated_network_cut_equals_masked_also_when_padded(
    case: tuple[int, np.ndarray], padding: int
) -> None:
    width, keep = case
    rng = np.random.default_rng(width)
    site = site_of(width, Projection("gate", "g"), Projection("up", "u"), Projection("down", "d"))
    shapes = {
        "g.weight": (width, HIDDEN),
        "g.bias": width,
        "u.weight": (width, HIDDEN),
        "d.weight": (HIDDEN, width),
    }
    weights = {name: rng.normal(size=shape) for name, shape in shapes.items()} | {
        "d.bias": rng.normal(size=HIDDEN)
    }
    x = rng.normal(size=(5, HIDDEN))

    def run(w: dict[str, np.ndarray], m: float | np.ndarray = 1.0) -> np.ndarray:
        u = np.tanh(x @ w["g.weight"].T + w["g.bias"]) * (x @ w["u.weight"].T)
        return np.asarray((u * m) @ w["d.weight"].T + w["d.bias"])

    small = cut(weights, site, keep, len(keep) + padding)
    np.testing.assert_allclose(run(small), run(weights, mask(width, keep)), atol=1e-12)
    np.testing.assert_array_equal(small["d.bias"], weights["d.bias"])


@given(keeps())
def test_both_halves_of_a_fused_network_are_cut(case: tuple[int, np.ndarray]) -> None:
    width, keep = case
    rng = np.random.default_rng(width)
    fused = (Projection("gate", "gu", part=0, parts=2), Projection("up", "gu", part=1, parts=2))
    site = site_of(width, *fused, Projection("down", "d"))
    gate, up, down = (rng.normal(size=(width, HIDDEN)) for _ in range(3))
    small = cut({"gu.weight": np.concatenate([gate, up]), "d.weight": down.T}, site, keep)
    np.testing.assert_array_equal(small["gu.weight"], np.concatenate([gate[keep], up[keep]]))
    np.testing.assert_array_equal(small["d.weight"], down[keep].T)


def test_conv1d_loses_columns_of_up_and_rows_of_down() -> None:
    site = site_of(3, Projection("up", "fc", transposed=True), Projection("down", "proj", transposed=True))
    weights = {"fc.weight": np.array([[1, 2, 3], [4, 5, 6]]), "fc.bias": np.array([7, 8, 9])}
    weights["proj.weight"] = np.array([[1, 2], [3, 4], [5, 6]])
    small = cut(weights, site, np.array([0, 2]))
    assert small["fc.weight"].tolist() == [[1, 3], [4, 6]]
    assert small["fc.bias"].tolist() == [7, 9]
    assert small["proj.weight"].tolist() == [[1, 2], [5, 6]]


def test_padding_is_zero_rows_zero_biases_and_zero_columns() -> None:
    site = site_of(3, Projection("up", "fc"), Projection("down", "proj"))
    weights = {"fc.weight": np.ones((3, 2)), "fc.bias": np.ones(3), "proj.weight": np.ones((2, 3))}
    small = cut(weights, site, np.array([1]), 2)
    assert small["fc.weight"].tolist() == [[1, 1], [0, 0]]
    assert small["fc.bias"].tolist() == [1, 0]
    assert small["proj.weight"].tolist() == [[1, 0], [1, 0]]


def test_a_selection_of_everything_is_whole() -> None:
    assert Selection(0, 3, np.array([0, 1, 2])).whole
    assert not Selection(0, 3, np.array([0, 2])).whole
    assert not Selection(0, 2, np.array([0, -1])).whole


def test_kept_channels_that_exceed_the_width_are_refused() -> None:
    site = site_of(3, Projection("up", "fc"), Projection("down", "proj"))
    with pytest.raises(PlanError, match=r"mlp\.down keeps 2 channels, which do not fit a width of 1"):
        cut({}, site, np.array([0, 1]), 1)
