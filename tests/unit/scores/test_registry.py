import numpy as np
import pytest

from scarprune.errors import ArgumentError, NumericsError
from scarprune.scores import score as registry
from scarprune.scores.score import Score, find_score, register_score, score, scores
from support.profiles import synthetic_profile


@pytest.fixture
def _own_registry(monkeypatch):
    known = dict(registry._registry())
    monkeypatch.setattr(registry, "_registry", lambda: known)


def _score(name="index", compute=None, **fields):
    def by_index(profile, bands):
        return {site.name: np.arange(site.width) for site in profile.sites}

    return Score(name, "i", "", "a test", (), compute or by_index, **fields)


def test_names_and_aliases_are_unique():
    names = [name for s in scores() for name in (s.name, *s.aliases)]
    assert len(names) == len(set(names))


def test_every_score_says_what_it_is():
    for s in scores():
        assert s.formula
        assert s.source
        assert "\n" not in s.formula
        assert s.labels in (None, "data", "model")


def test_the_alias_is_the_score():
    assert find_score("scar_lp") is find_score("loss_proxy")
    assert find_score("magnitude") is find_score("weight_norm")


def test_a_typo_gives_the_nearest_names():
    with pytest.raises(ArgumentError) as caught:
        find_score("scar_port")
    assert "There is no score called 'scar_port'. Did you mean scar_prot" in str(caught.value)


def test_nonsense_gives_the_list():
    with pytest.raises(ArgumentError, match="`scarprune scores` lists all of them"):
        find_score("%%%%")


@pytest.mark.usefixtures("_own_registry")
def test_a_registered_score_is_found_and_computed():
    register_score(_score(aliases=("idx",)))
    profile = synthetic_profile()
    values = score(profile, "idx")
    assert [*values] == [site.name for site in profile.sites]
    assert values[profile.sites[0].name].tolist() == list(range(40))
    assert values[profile.sites[0].name].dtype == np.float64
    assert scores()[-1].name == "index"


@pytest.mark.usefixtures("_own_registry")
@pytest.mark.parametrize("fields", [{"name": "taylor"}, {"aliases": ("scar_lp",)}])
def test_a_taken_name_is_refused(fields):
    with pytest.raises(ArgumentError, match=r"A score called '(taylor|scar_lp)' is already registered\."):
        register_score(_score(**fields))
    assert "index" not in [s.name for s in scores()]


@pytest.mark.usefixtures("_own_registry")
@pytest.mark.parametrize(
    "compute",
    [
        lambda profile, bands: {},
        lambda profile, bands: {site.name: np.ones(site.width + 1) for site in profile.sites},
    ],
)
def test_a_score_of_another_shape_is_refused(compute):
    register_score(_score(compute=compute))
    with pytest.raises(ArgumentError, match=r"Score index gave no \[40\] array for model\.layers\.0"):
        score(synthetic_profile(), "index")


@pytest.mark.usefixtures("_own_registry")
def test_a_score_that_is_not_finite_is_refused():
    register_score(_score(compute=lambda p, bands: {s.name: np.full(s.width, np.nan) for s in p.sites}))
    with pytest.raises(NumericsError, match="Score index is not finite at"):
        score(synthetic_profile(), "index")


def test_random_is_the_same_everywhere():
    """First words of Philox4x64-10 with key (7, 0), counter 1 on, from Random123's definition."""
    profile = synthetic_profile()
    first, second = score(profile, "random", seed=7).values()
    expected = [(word >> 11) * 2.0**-53 for word in _philox((7, 0), 10)]
    assert first[:40].tolist() == expected
    assert second[:4].tolist() == [(word >> 11) * 2.0**-53 for word in _philox((7, 1), 1)]


def _philox(key, count):
    """Philox4x64-10 (Salmon et al. 2011) in Python integers; numpy counts from 1."""
    mask, words = 2**64 - 1, []
    for counter in range(1, count + 1):
        c, k = [counter, 0, 0, 0], list(key)
        for _ in range(10):
            a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
            c = [(b >> 64) ^ c[1] ^ k[0], b & mask, (a >> 64) ^ c[3] ^ k[1], a & mask]
            k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
        words += c
    return words


def test_random_depends_on_the_seed():
    profile = synthetic_profile()
    a, b = (next(iter(score(profile, "random", seed=seed).values())) for seed in (0, 1))
    assert not np.array_equal(a, b)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, True, "0"])
def test_a_seed_must_be_a_counter(seed):
    with pytest.raises(ArgumentError, match="seed must be an integer"):
        score(synthetic_profile(), "random", seed=seed)
