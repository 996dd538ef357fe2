"""Small doses of `endurance.py`, which does more of each; interrupts are in
`test_interrupts.py`.
"""

from dataclasses import replace

import endurance
import kill_and_resume as kills
import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("endurance")
    patch = pytest.MonkeyPatch()
    patch.setattr(kills, "SMALL", replace(kills.SMALL, epochs=1, width=1))
    kills.pictures(place / "pictures")
    kills.warm(place)
    yield place
    patch.undo()


@pytest.mark.slow
def test_sigterm_saves_and_the_run_goes_on_to_the_same_weights(folder):
    found = endurance.terminations(2, folder)
    assert found["trials"] == found["code_143"] == found["kept"] == found["identical"] == 2


@pytest.mark.slow
def test_the_same_run_ends_the_same_whoever_reads_its_images(folder, monkeypatch):
    found = endurance.repeats(["catchup"], folder, times=2)
    assert found == {"times": 2, "methods": {"catchup": 1}, "workers": {"catchup": 1}}
    kills.pictures(folder / "others" / "pictures")
    drawn = iter(range(100))
    monkeypatch.setattr(
        endurance,
        "train",
        lambda settings, out, **_: kills.train(
            replace(settings, seed=next(drawn)), out, progress=False
        ),
    )
    # it can be seen
    assert endurance.repeats(["catchup"], folder / "others", times=2)["methods"] == {"catchup": 2}


@pytest.mark.slow
def test_many_small_runs_leave_memory_and_open_files_as_they_were(folder, monkeypatch):
    monkeypatch.setattr(
        kills, "CASES", {name: kills.CASES[name] for name in ("recursivemix", "catchup")}
    )
    found = endurance.soak(0.0, folder)
    assert found["open_files_late"] <= found["open_files_early"]
    assert found["growth_percent"] < 10 and found["runs"] == 8


@pytest.mark.slow
def test_a_slider_that_is_moved_on_and_on_keeps_no_pictures():
    assert endurance.moves(20)["kept"] == 0
