"""Six runs killed with SIGKILL at random moments and taken up again; `kill_and_resume.py` does
more of them.
"""

import kill_and_resume as kills
import pytest

PAIRS = [
    ("automix", "resident"),
    ("recursivemix", "stream"),
    ("catchup", "stream"),
    ("catchup-layer0", "resident"),
    ("catchup-regularised", "resident"),
    ("catchup-dropout", "resident"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("kills")
    kills.SMALL = kills.replace(kills.SMALL, epochs=2, width=1)
    kills.pictures(place / "pictures")
    kills.warm(place)
    return place


@pytest.mark.slow
@pytest.mark.parametrize(("case", "loader"), PAIRS)
def test_a_run_killed_at_random_moments_ends_as_the_whole_one_does(
    folder, monkeypatch, case, loader
):
    monkeypatch.setattr(kills, "MOST_KILLS", 2)
    monkeypatch.setattr(kills, "SAVES", (0.0,))
    row = kills.measured(case, loader, trials=1, controls=0, folder=folder)
    assert row["identical"] == 1 and row["kills"] > 0 and row["resumed"] > 0
    assert row["unloadable"] == row["lost"] == row["left_over"] == 0 and row["most_strays"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "forgotten", "differs"),
    [
        ("catchup", "generators", "weights"),
        ("catchup-dropout", "torch_rng", "weights"),
        ("catchup", "totals", "metrics"),
    ],
)
def test_what_is_forgotten_on_resuming_shows(folder, monkeypatch, case, forgotten, differs):
    """The comparison can fail. A kill between two epochs has no sums to lose, so there are
    tries.
    """
    monkeypatch.setattr(kills, "SAVES", (0.0,))
    monkeypatch.setattr(kills, "MOST_KILLS", 1)
    settings = kills.settings_of(case, "resident", folder)
    reference, whole_s = kills.whole(settings, folder / f"reference-{forgotten}")
    for seed in range(5):
        out = folder / f"control-{forgotten}-{seed}"
        found = kills.trial(settings, out, seed, whole_s, forgotten)
        if getattr(found["ending"], differs) != getattr(reference, differs):
            break
    else:
        pytest.fail(f"nothing shows that {forgotten} are forgotten")
    assert found["resumed"] == 1
    assert (found["ending"].weights != reference.weights) is (differs == "weights")


@pytest.mark.slow
def test_killed_while_it_does_nothing_but_save_a_whole_checkpoint_is_there(folder):
    found = kills.writes(8, folder / "writes")
    assert found.pop("most_strays") <= 1 and found == {
        "kills": 8,
        "unloadable": 0,
        "torn": 0,
        "strays_after_clean": 0,
    }
