"""The profile as a value: what is saved is loaded, halves add up, and damaged files are refused."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from scarprune.errors import ArgumentError, ArtifactError
from scarprune.profile.sums import WEIGHT_NORMS, load_profile
from scarprune.scores.score import score
from support.profiles import make_raw, profile_of, synthetic_profile

SITE = "model.layers.0.mlp.down_proj"


def part(raw, blocks):
    cut = {name: getattr(raw, name)[blocks] for name in ("u", "s", "s_model", "x")}
    return dataclasses.replace(raw, **cut)


def header_of(path):
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["scarprune"])


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "p.safetensors"
    synthetic_profile().save(path)
    return path


def rewrite(path, change):
    """Write the profile at ``path`` again with its header and tensors changed; no check is in the way."""
    header = header_of(path)
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, path, metadata={"scarprune": json.dumps(header)})
    return path


# -- saving and loading ----------------------------------------------------------------------------


def test_what_is_saved_is_what_is_loaded(saved):
    profile, loaded = synthetic_profile(), load_profile(saved)
    assert loaded.sites == profile.sites
    assert {k: v for k, v in loaded.header.items() if k not in ("format", "version")} == profile.header
    assert loaded.tensors.keys() == profile.tensors.keys()
    for key, array in profile.tensors.items():
        assert loaded.tensors[key].dtype == array.dtype
        assert np.array_equal(loaded.tensors[key], array)
    for name in ("scar_prot", "wanda", "block_fisher"):
        for site, values in score(profile, name).items():
            assert np.array_equal(score(loaded, name)[site], values)


def test_a_loaded_profile_saves_the_same_bytes(saved, tmp_path):
    again = tmp_path / "again.safetensors"
    load_profile(saved).save(again)
    assert again.read_bytes() == saved.read_bytes()


def test_an_existing_profile_is_refused(saved):
    before = saved.read_bytes()
    with pytest.raises(ArtifactError, match="already there"):
        synthetic_profile(seed=1).save(saved)
    assert saved.read_bytes() == before
    synthetic_profile(seed=1).save(saved, overwrite=True)
    assert saved.read_bytes() != before


# -- reading ---------------------------------------------------------------------------------------


def test_counts_by_bands():
    profile = profile_of(make_raw(blocks=10, tokens=9))
    assert profile.targets() == 10 * 8
    assert profile.positions() == 10 * 9
    assert profile.targets([0]) == profile.positions([0]) == 10
    assert profile.targets((1, 0, 1)) == 40
    assert profile.targets([2]) == 40
    assert profile.positions([2]) == 50
    assert profile.blocks == 10


def test_totals_add_the_chosen_bands():
    raws = make_raw()
    totals = profile_of(raws).total("sum_q2", bands=(0, 2))
    for raw in raws:
        expected = (raw.q[:, [0, *range(4, 9)]] ** 2).sum((0, 1))
        np.testing.assert_allclose(totals[raw.site.name], expected, rtol=1e-12)


@pytest.mark.parametrize("bands", [(), (3,), (0, -1)])
def test_bands_that_are_none_are_refused(bands):
    with pytest.raises(ArgumentError, match="bands must be some of 0, 1 and 2"):
        synthetic_profile().total("sum_q2", bands)


def test_what_is_missing_is_named_with_the_way_to_get_it():
    profile = synthetic_profile(labels=("data",), pass2=False)
    with pytest.raises(ArtifactError, match=r"/red/top5\. Profile again with redundancy=True"):
        profile.get(SITE, "red/top5")
    with pytest.raises(ArtifactError, match=r"/model/sum_q2\. Profile again with labels"):
        profile.get(SITE, "sum_q2", labels="model")
    assert profile.has("sum_q2")
    assert not profile.has("sum_q2", labels="model")


def test_indices_stay_integers():
    assert synthetic_profile().get(SITE, "red/core").dtype == np.int64
    assert synthetic_profile().get(SITE, "conn").dtype == np.float64


# -- adding ----------------------------------------------------------------------------------------


def test_two_halves_add_up_to_the_whole():
    raws = make_raw(blocks=16)
    whole = profile_of(raws)
    halves = [profile_of([part(raw, blocks) for raw in raws]) for blocks in (slice(0, 8), slice(8, 16))]
    total = halves[0] + halves[1]
    assert total.targets() == whole.targets()
    assert total.positions() == whole.positions()
    assert total.blocks == 16
    assert total.group_targets.sum() == whole.targets()
    assert len(total.header["text"]) == 2
    for key, array in total.tensors.items():
        name = key.rsplit("/", 1)[1]
        if name.startswith("groups_"):
            np.testing.assert_allclose(array.sum(0), whole.tensors[key].sum(0), rtol=1e-4, atol=1e-7)
        elif name in WEIGHT_NORMS:
            assert np.array_equal(array, whole.tensors[key])
        elif name != "sum_x2":
            scale = np.abs(whole.tensors[key]).max()
            np.testing.assert_allclose(array, whole.tensors[key], rtol=1e-5, atol=1e-6 * scale)


def test_adding_keeps_dtypes_and_order_does_not_matter():
    a, b = synthetic_profile(seed=0), synthetic_profile(seed=0)
    b.tensors = {key: array * 2 if "sum_" in key else array for key, array in b.tensors.items()}
    ab, ba = a + b, b + a
    for key, array in ab.tensors.items():
        assert array.dtype == a.tensors[key].dtype
        assert np.array_equal(array, ba.tensors[key])


def test_what_depends_on_all_the_text_is_dropped():
    profile = synthetic_profile() + synthetic_profile()
    for name in ("conn", "support", "red/top5", "red/core", "wanda_up", "wanda_gate"):
        assert not profile.has(name), name
    for name in ("sum_q2", "down_norm2", "block_norm_u", "groups_q2"):
        assert profile.has(name), name


def test_an_added_profile_can_be_saved_loaded_and_added_again(tmp_path):
    profile = synthetic_profile() + synthetic_profile()
    profile.save(tmp_path / "sum.safetensors")
    loaded = load_profile(tmp_path / "sum.safetensors") + synthetic_profile()
    assert loaded.blocks == 36
    assert loaded.header["merged"] is True


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"fingerprint": "0" * 64}, "Profiles of different weights cannot be added"),
        ({"widths": (40, 48)}, "Profiles of different weights cannot be added"),
        ({"labels": ("data",)}, "Profiles with different labels cannot be added"),
    ],
)
def test_profiles_that_do_not_belong_together_are_refused(other, message):
    with pytest.raises(ArtifactError, match=message):
        synthetic_profile() + synthetic_profile(**other)


def test_adding_something_else_is_a_type_error():
    with pytest.raises(TypeError):
        synthetic_profile() + 1


# -- hostile files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda h, t: h.pop("sites"),
        lambda h, t: h.pop("counts"),
        lambda h, t: h.pop("groups"),
        lambda h, t: h.pop("labels"),
        lambda h, t: h.pop("fingerprint"),
        lambda h, t: h.update(sites=[]),
        lambda h, t: h.update(sites={}),
        lambda h, t: h.update(sites=[1]),
        lambda h, t: h["sites"].append(h["sites"][0]),
        lambda h, t: h["sites"][0].update(extra=1),
        lambda h, t: h["sites"][0].update(width=41),
        lambda h, t: h["sites"][0].update(width=40.0),
        lambda h, t: h["sites"][0].update(width="40"),
        lambda h, t: h["sites"][0].update(hidden=0),
        lambda h, t: h["sites"][0].update(layer="0"),
        lambda h, t: h["sites"][0].update(name=None),
        lambda h, t: h["sites"][0].update(gated=None),
        lambda h, t: h["sites"][0].pop("hidden"),
        lambda h, t: h.update(labels=[]),
        lambda h, t: h.update(labels="data"),
        lambda h, t: h.update(labels=["data", "other"]),
        lambda h, t: h.update(labels=7),
        lambda h, t: h.update(rho="x"),
        lambda h, t: h.update(rho=0),
        lambda h, t: h.update(counts=[]),
        lambda h, t: h["counts"].update(targets=[1, 2]),
        lambda h, t: h["counts"].update(targets=[-1, 5, 5]),
        lambda h, t: h["counts"].update(targets=[0, 0, 0]),
        lambda h, t: h["counts"].update(targets=[float("inf"), 0, 0]),
        lambda h, t: h["counts"].update(targets=[float("nan"), 0, 0]),
        lambda h, t: h["counts"].update(targets=["1", "2", "3"]),
        lambda h, t: h["counts"].update(blocks=0),
        lambda h, t: h["counts"].update(blocks=None),
        lambda h, t: h["counts"].pop("blocks"),
        lambda h, t: h.update(groups=[1] * 7),
        lambda h, t: h.update(groups=[1] * 7 + [-1]),
        lambda h, t: h.update(groups=[0] * 8),
        lambda h, t: h.update(groups=[2**70] * 8),
        lambda h, t: h.update(groups="12345678"),
        lambda h, t: h.update(text=None),
        lambda h, t: t.pop(f"{SITE}/sum_q2"),
        lambda h, t: t.update({f"{SITE}/sum_q2": np.ones((3, 39))}),
        lambda h, t: t.update({f"{SITE}/sum_q2": np.ones(40)}),
        lambda h, t: t.update({f"{SITE}/sum_q2": np.ones((3, 40), np.int64)}),
        lambda h, t: t.update({f"{SITE}/model/groups_q2": np.ones((4, 40))}),
        lambda h, t: t.update({f"{SITE}/conn": np.ones(39)}),
        lambda h, t: t.update({f"{SITE}/conn": np.ones((2, 40))}),
        lambda h, t: t.update({f"{SITE}/wanda_up": np.ones(4)}),
        lambda h, t: t.update({f"{SITE}/red/top5": np.ones(4)}),
        lambda h, t: t.update({f"{SITE}/red/core": np.array([0, 40])}),
        lambda h, t: t.update({f"{SITE}/red/core": np.array([-1, 4])}),
        lambda h, t: t.update({f"{SITE}/red/core": np.array([1.0, 4.0])}),
        lambda h, t: t.update({"other/sum_q2": np.ones((3, 40))}),
        lambda h, t: t.update({f"{SITE}/sum_q2": np.full((3, 40), np.nan)}),
    ],
)
def test_a_damaged_profile_is_refused(saved, change):
    with pytest.raises(ArtifactError) as caught:
        load_profile(rewrite(saved, change))
    assert str(caught.value).startswith(f"{saved} is damaged: ")


def test_sizes_that_cannot_be_negative_are_checked(saved):
    def change(header, tensors):
        tensors[f"{SITE}/sum_q2"] = -tensors[f"{SITE}/sum_q2"]

    with pytest.raises(ArtifactError, match="sum_q2"):
        load_profile(rewrite(saved, change))


def test_a_newer_profile_says_update(saved):
    with pytest.raises(ArtifactError, match="Update scarprune"):
        load_profile(rewrite(saved, lambda h, t: h.update(version=2)))


def test_a_missing_profile_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="There is no file"):
        load_profile(tmp_path / "none.safetensors")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    path=st.sampled_from(
        ["sites", "counts", "groups", "labels", "rho", "text", "fingerprint", "merged", "provenance"]
    ),
    value=JSON,
)
def test_no_header_gives_another_error(tmp_path_factory, path, value):
    file = tmp_path_factory.mktemp("profile") / "p.safetensors"
    synthetic_profile(widths=(12,)).save(file)
    try:
        loaded = load_profile(rewrite(file, lambda header, tensors: header.update({path: value})))
    except ArtifactError:
        return
    assert score(loaded, "loss_proxy")
    assert score(loaded, "scar_prot")
