import numpy as np
import pytest
from tests.support.profiles import synthetic_profile

from scarprune.findings.sensitivity import sensitivity
from scarprune.profile.sums import Profile


def test_each_choice_by_a_full_sort():
    profile = synthetic_profile(widths=(40, 50, 60))
    entries = {(e["eta"], e["statistic"]): e for e in sensitivity(profile)}
    assert len(entries) == 9
    logs = []
    for site in profile.sites:
        core = profile.tensors[f"{site.name}/red/core"]
        conn, red = profile.get(site.name, "conn"), profile.get(site.name, "red/mean")
        rest = sorted(set(range(site.width)) - set(core.tolist()), key=lambda i: (-conn[i], i))
        size = max(1, int(0.2 * len(rest) + 1e-9))
        logs.append(np.log(np.median(red[rest[:size]]) / np.median(red[rest[size:]])))
    assert entries[0.2, "mean"]["ratio"]["value"] == pytest.approx(np.exp(np.mean(logs)))
    assert entries[0.1, "top5"]["halo_jaccard_with_default"] == 1
    assert entries[0.05, "top5"]["halo_jaccard_with_default"] < 1


def test_nothing_without_the_second_pass():
    profile: Profile = synthetic_profile(pass2=False)
    assert sensitivity(profile) == []
