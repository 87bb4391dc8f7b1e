"""Plans on disk and plans made by hand: whole, checked, and refused with the reason."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scarprune.errors import ArtifactError, PlanError
from scarprune.models.site import Site
from scarprune.plan.plan import Plan, PlannedSite, load_plan, make_plan
from support.profiles import synthetic_profile

SITE = "model.layers.0.mlp.down_proj"


def planned(keep, core=(), name=SITE, width=8, layer=0):
    return PlannedSite(name, layer, width, np.array(keep, np.int64), np.array(core, np.int64))


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "plan.json"
    make_plan(synthetic_profile(), "scar_prot", 0.5).save(path)
    return json.loads(path.read_text())


def write(tmp_path, document):
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_what_is_saved_is_what_is_loaded(tmp_path, allocation):
    plan = make_plan(synthetic_profile(), "wanda", 0.5, "core", allocation=allocation, seed=3)
    plan.save(tmp_path / "p.json")
    loaded = load_plan(tmp_path / "p.json")
    assert loaded.as_json() == plan.as_json()
    assert all(keep.dtype == np.int64 for keep in loaded.keep.values())


def test_the_keys_that_others_read(document):
    assert document["format"] == "scarprune.plan"
    assert document["version"] == 1
    assert document["score"] == "scar_prot"
    assert document["sparsity"] == document["achieved_sparsity"] == 0.5
    assert document["width"] == 20
    assert document["protect"] == "core"
    assert document["multiple_of"] == 4
    assert document["allocation"] == "uniform"
    assert document["cap"] is None
    assert document["seed"] == 0
    assert document["fingerprint"] == "f" * 64
    assert {"command", "versions", "date", "seed", "text", "profile"} <= set(document["provenance"])
    site = document["sites"][0]
    assert site["name"] == SITE
    assert site["layer"] == 0
    assert site["width_before"] == 40
    assert len(site["keep"]) == 20
    assert set(site["core"]) <= set(site["keep"])


def test_an_alias_is_written_as_the_score_it_is():
    assert make_plan(synthetic_profile(), "scar_lp").score == "loss_proxy"


def test_width_is_null_where_sites_differ(tmp_path):
    plan = make_plan(synthetic_profile(), "loss_proxy", 0.5, allocation="global")
    assert len(set(plan.widths.values())) == 2
    assert plan.as_json()["width"] is None
    assert plan.as_json()["cap"] == 0.7


def test_an_existing_plan_is_refused(tmp_path):
    path = tmp_path / "p.json"
    path.write_text("mine")
    plan = make_plan(synthetic_profile())
    with pytest.raises(ArtifactError, match="already there"):
        plan.save(path)
    assert path.read_text() == "mine"
    plan.save(path, overwrite=True)
    assert load_plan(path).keep.keys() == plan.keep.keys()


# -- hostile files ---------------------------------------------------------------------------------


def test_no_plan_is_an_artifact_error(tmp_path):
    with pytest.raises(ArtifactError, match="There is no file"):
        load_plan(tmp_path / "none.json")


def test_a_profile_is_no_plan(tmp_path):
    synthetic_profile().save(tmp_path / "p.safetensors")
    with pytest.raises(ArtifactError, match="is not a readable JSON file"):
        load_plan(tmp_path / "p.safetensors")


def test_a_newer_plan_says_update(tmp_path, document):
    document["version"] = 2
    with pytest.raises(ArtifactError, match=r"has format version 2; this scarprune reads up to 1\. Update"):
        load_plan(write(tmp_path, document))


KEYS = [
    "provenance",
    "fingerprint",
    "score",
    "sparsity",
    "protect",
    "multiple_of",
    "allocation",
    "cap",
    "seed",
]


@pytest.mark.parametrize("key", [*KEYS, "sites"])
def test_a_missing_key_is_named(tmp_path, document, key):
    del document[key]
    with pytest.raises(ArtifactError, match=f"is damaged: it has no '{key}'"):
        load_plan(write(tmp_path, document))


@pytest.mark.parametrize("key", ["name", "layer", "width_before", "keep", "core"])
def test_a_missing_key_of_a_site_is_named(tmp_path, document, key):
    del document["sites"][1][key]
    with pytest.raises(ArtifactError, match=f"is damaged: it has no '{key}'"):
        load_plan(write(tmp_path, document))


@pytest.mark.parametrize("key", [*KEYS, "sites"])
@pytest.mark.parametrize("value", [True, [[]], {"a": 1}])
def test_a_value_of_another_type_is_refused(tmp_path, document, key, value):
    if key == "provenance" and isinstance(value, dict):
        return
    document[key] = value
    with pytest.raises((ArtifactError, PlanError)):
        load_plan(write(tmp_path, document))


@pytest.mark.parametrize(
    ("keep", "error", "message"),
    [
        ([], PlanError, "keeps no channel of"),
        ([1, 1, 2], PlanError, "must ascend without repeats, but 1 follows 1"),
        ([3, 2], PlanError, "must ascend without repeats, but 2 follows 3"),
        ([0, 40], PlanError, "holds channel 40; its channels are 0 to 39"),
        ([-1, 0], PlanError, "holds channel -1; its channels are 0 to 39"),
        ([2**62], PlanError, f"holds channel {2**62}; its"),
        ([2**70], ArtifactError, "is damaged"),
        ([0.0, 1.0], ArtifactError, "holds something that is no integer"),
        ([0, True], ArtifactError, "holds something that is no integer"),
        ([0, "1"], ArtifactError, "holds something that is no integer"),
        ([[0, 1]], ArtifactError, "holds something that is no integer"),
        ("01", ArtifactError, "keep is '01'"),
        (None, ArtifactError, "keep is None"),
        ({"0": 1}, ArtifactError, "keep is "),
    ],
)
def test_indices_that_cannot_be_are_refused(tmp_path, document, keep, error, message):
    document["protect"] = None
    document["sites"][0]["keep"] = keep
    with pytest.raises(error, match=message) as caught:
        load_plan(write(tmp_path, document))
    assert "changed.json" in str(caught.value)


def test_core_indices_are_checked_as_well(tmp_path, document):
    document["protect"] = None
    document["sites"][0]["core"] = [5, 40]
    with pytest.raises(PlanError, match=r"core of .* holds channel 40"):
        load_plan(write(tmp_path, document))


def test_a_protected_core_must_be_kept(tmp_path, document):
    site = document["sites"][0]
    lost = site["core"][1]
    site["keep"].remove(lost)
    with pytest.raises(PlanError, match=f"protects the core, but removes channel {lost} of {SITE}"):
        load_plan(write(tmp_path, document))


@pytest.mark.parametrize("width", [0, -5, 3])
def test_a_width_below_the_indices_is_refused(tmp_path, document, width):
    document["sites"][0]["width_before"] = width
    with pytest.raises(PlanError, match="holds channel"):
        load_plan(write(tmp_path, document))


def test_a_site_named_twice_is_refused(tmp_path, document):
    document["sites"][1]["name"] = document["sites"][0]["name"]
    with pytest.raises(PlanError, match="names a site twice"):
        load_plan(write(tmp_path, document))


def test_a_plan_without_sites_is_refused(tmp_path, document):
    document["sites"] = []
    with pytest.raises(PlanError, match="has no sites"):
        load_plan(write(tmp_path, document))


@pytest.mark.parametrize(
    ("key", "value"), [("sparsity", 1), ("sparsity", -1), ("cap", 0), ("multiple_of", 0), ("protect", "halo")]
)
def test_options_that_cannot_be_are_refused(tmp_path, document, key, value):
    document[key] = value
    with pytest.raises(PlanError, match=key if key != "sparsity" else "Sparsity"):
        load_plan(write(tmp_path, document))


@pytest.mark.parametrize("text", ["", "[]", "null", '"plan"', '{"format":', "[" * 100_000, "\x00\xff"])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    path = tmp_path / "p.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ArtifactError):
        load_plan(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(key=st.sampled_from([*KEYS, "sites", "name", "layer", "width_before", "keep", "core"]), value=JSON)
def test_no_file_gives_another_error(tmp_path_factory, key, value):
    document = {
        "format": "scarprune.plan",
        "version": 1,
        **Plan((planned([0, 2], [2]),), "x", 0.5, "f").as_json(),
    }
    (document if key in document else document["sites"][0])[key] = value
    path = write(tmp_path_factory.mktemp("plan"), document)
    try:
        plan = load_plan(path)
    except (ArtifactError, PlanError):
        return
    for site in plan.sites:  # what is loaded is a plan
        assert list(site.keep) == sorted(set(site.keep.tolist()))
        assert len(site.keep)
        assert site.keep[0] >= 0
        assert site.keep[-1] < site.width


# -- by hand, and against a model ------------------------------------------------------------------


def test_a_plan_by_hand():
    plan = Plan(
        (planned([0, 2, 5], [2]), planned([1], [1], "b", 4, 1)), score="mine", sparsity=2 / 3, fingerprint="f"
    )
    assert plan.widths == {SITE: 3, "b": 1}
    assert plan.width is None
    assert plan.achieved_sparsity == 2 / 3  # 4 of 12 channels stay


@pytest.mark.parametrize("keep", [np.array([0.0, 1.0]), np.array([[0, 1]]), np.array([True, False])])
def test_a_plan_by_hand_takes_int64_alone(keep):
    with pytest.raises(PlanError, match=r"keep of a must be int64 \[n\], not "):
        PlannedSite("a", 0, 8, keep, np.array([0]))


def test_a_plan_for_these_sites_passes():
    plan = Plan((planned([0]),), "mine", 0.5, "f" * 64)
    plan.check([Site(SITE, 0, 8, 4, True)])
    plan.check([Site(SITE, 0, 8, 4, True)], "f" * 64)


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ([], f"there is a site the model does not have, {SITE}"),
        ([Site("b", 0, 8, 4, True)], "The plan belongs to another model: there is a site"),
        ([Site(SITE, 0, 8, 4, True), Site("b", 1, 8, 4, True)], "there is a site it does not cover, b"),
        ([Site(SITE, 0, 9, 4, True)], f"{SITE} has 9 channels, not 8"),
    ],
)
def test_a_plan_for_other_sites_is_refused(sites, message):
    with pytest.raises(PlanError, match=message):
        Plan((planned([0]),), "mine", 0.5, "f").check(sites)


def test_a_plan_for_other_weights_is_refused():
    with pytest.raises(PlanError) as caught:
        Plan((planned([0]),), "mine", 0.5, "a" * 64).check([Site(SITE, 0, 8, 4, True)], "b" * 64)
    assert str(caught.value) == (
        f"The plan was made for other weights: {'a' * 16}, not {'b' * 16}. "
        "Profile these weights and plan again."
    )
