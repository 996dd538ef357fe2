"""Figures of covered patches and added waves: what is drawn is what the rows hold."""

import numpy as np
import pytest

from catchup import plots


def row(method, seed, shift=0.0):
    shares = (0.0, 0.5, 1.0)
    curves = {
        "random": [[share, 90 - 80 * share + shift] for share in shares],
        "salient": [[share, 90 - 85 * share + shift] for share in shares],
    }
    waves = (np.arange(9).reshape(3, 3) * 3.0 + shift).tolist()
    common = {"method": method, "seed": seed, "method_settings": {}, "occlusion": curves}
    return {**common, "frequencies": {"norm": 4.0, "errors": waves}}


ROWS = [row("baseline", 0), row("baseline", 1, 2.0), row("catchup", 0, 10.0)]


def test_curves_are_means_over_seeds():
    ax = plots.occlusion_curves(ROWS)
    drawn = [line.get_ydata().tolist() for line in ax.lines if len(line.get_ydata())]
    assert [91.0, 51.0, 11.0] in drawn and [91.0, 48.5, 6.0] in drawn
    assert [100.0, 57.5, 15.0] in drawn and len(drawn) == 4
    assert ax.lines[0].get_xdata().tolist() == [0.0, 50.0, 100.0]


def test_maps_share_one_scale_and_name_their_mean():
    first, second = plots.frequency_maps(ROWS)
    assert np.asarray(first.images[0].get_array()).ravel().tolist() == pytest.approx(
        [1 + 3 * place for place in range(9)]
    )
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0, 34)
    assert "13 % on average" in first.get_title() and "22 %" in second.get_title()


def test_rows_without_them_and_maps_of_other_sides_are_refused():
    bare = {key: value for key, value in ROWS[0].items() if key != "occlusion"}
    with pytest.raises(ValueError, match="occlusion"):
        plots.occlusion_curves([bare])
    other = {**row("catchup", 1), "frequencies": {"norm": 4.0, "errors": [[1.0]]}}
    with pytest.raises(ValueError, match=r"different sides, \[1, 3\]"):
        plots.frequency_maps([*ROWS, other])
