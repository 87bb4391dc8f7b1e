"""Sentences are made from the numbers, and not where there are none."""

from scarprune.findings.statements import statements

NONE = {"median": None, "min": None, "max": None}


def _findings(**changes):
    summary = {
        "core_share": {"median": 0.5873, "min": 0.33, "max": 0.861, "interval": {"low": 0.5, "high": 0.66}},
        "core_share_cross_fitted": {"median": 0.41},
        "jaccard_activation": {"median": 0.054, "chance": 0.005},
        "spearman_activation": {"median": 0.26},
        "split_half_jaccard": {"median": 0.43, "chance": 0.005},
    }
    return {"sites": [{"core": [1, 2], "width": 200}] * 2, "summary": summary | changes}


def _text(findings, about):
    return " ".join(s["text"] for s in statements(findings) if s["about"] == about)


def test_the_share_is_told_with_its_interval_and_its_cross_fit():
    text = _text(_findings(), "concentration")
    assert "4 of 400 channels" in text
    assert "58.7% of the loss proxy" in text
    assert "(95% interval 50.0% to 66.0%)" in text
    assert "33.0% to 86.1%" in text
    assert "the core holds 41.0%" in text


def test_overlap_and_halves_stand_beside_chance():
    assert "0.05 in a median site (two random sets: 0.005); the rank correlation" in _text(
        _findings(), "activation"
    )
    assert "0.43 in a median site (chance: 0.005)" in _text(_findings(), "stability")


def test_nothing_is_said_of_what_is_missing():
    silent = _findings(
        core_share=NONE,
        jaccard_activation=NONE | {"chance": None},
        split_half_jaccard=NONE | {"chance": None},
    )
    assert [s["about"] for s in statements(silent)] == ["concentration"]
    assert "No site has a loss proxy" in statements(silent)[0]["text"]


def test_the_halo_speaks_by_its_controls_alone():
    controls = {
        "variants": {"plain": {"matched": {"statement": "no difference found beside matched channels"}}}
    }
    found = _findings() | {"halo": {"controls": controls}}
    assert _text(found, "halo") == "No difference found beside matched channels."
    assert _text(_findings() | {"halo": {"controls": None}}, "halo") == ""


def test_channels_on_few_tokens_are_counted():
    odd = {"flagged": 12, "of": 90, "threshold": 30}
    assert "12 of 90 core channels" in _text(_findings() | {"odd_tokens": odd}, "tokens")
    assert _text(_findings() | {"odd_tokens": odd | {"flagged": 0}}, "tokens") == ""


def test_pairs_of_profiles_are_told_with_what_differs():
    pair = {"a": 0, "b": 2, "differ": ["source", "seed"], "jaccard": {"median": 0.2, "chance": 0.005}}
    text = _text(_findings() | {"agreement": {"pairs": [pair]}}, "agreement")
    assert "Profiles 1 and 3, which differ in source and seed" in text
    assert "0.20 (chance: 0.005)" in text
