"""The radius card: rises against loops over both sides, lines and parabolas as drawn, what is not
finite left out.
"""

import math

import numpy as np
import pytest

from catchup.plots.cards.radius import mean_rise, radius_card, row_name, sharpness_within

RADII = [-1.0, -0.5, 0.0, 0.5, 1.0]


def row(method="baseline", losses=(9.0, 2.0, 1.0, 2.5, 4.0), eigenvalue=6.0, seed=0, radii=RADII):
    line = {"radii": list(radii), "eigen": {"loss": list(losses)}, "random": {"loss": list(losses)}}
    return {
        "method": method,
        "seed": seed,
        "data": "digits",
        "landscape": {
            "line": line,
            "top_eigenvalue": eigenvalue,
            "settings": {"n_images": 10, "hessian_images": 5},
        },
    }


def test_the_mean_rise_is_that_of_both_sides_and_a_slope_drops_out():
    radii, rise = mean_rise(row()["landscape"])
    assert radii.tolist() == [0, 0.5, 1] and rise.tolist() == pytest.approx([0, 1.25, 5.5])
    sloped = [loss + 3 * radius for loss, radius in zip((9.0, 2.0, 1.0, 2.5, 4.0), RADII)]
    assert mean_rise(row(losses=sloped)["landscape"])[1] == pytest.approx(rise)


def test_a_parabola_has_the_rise_of_its_curvature():
    radii = np.linspace(-2, 2, 41)
    steps, rise = mean_rise(
        row(losses=1 + 0.7 * radii + 0.5 * 6 * radii**2, radii=radii)["landscape"]
    )
    assert rise == pytest.approx(0.5 * 6 * steps**2)


def test_sharpness_never_falls_with_the_radius_and_is_the_largest_rise():
    losses = [1.5, 3.0, 1.0, 2.0, 1.2]  # higher near the middle than at the ends
    radii, rise = sharpness_within(row(losses=losses)["landscape"])
    for radius, found in zip(radii, rise):
        assert found == max(loss for loss, step in zip(losses, RADII) if abs(step) <= radius) - 1.0
    assert (np.diff(rise) >= 0).all()
    assert math.isnan(sharpness_within(row(losses=[3.0, 1.0, 1.0, 2.0, None])["landscape"])[1][-1])


def test_the_card_draws_what_lies_within_the_radius():
    rows = [row(), row("catchup", (3.0, 1.5, 1.0, 1.6, 3.0), 2.0)]
    left, right = radius_card(rows, 0.7).axes
    parabola, measured, *_ = [line for line in left.lines]
    assert parabola.get_xdata().tolist() == [0, 0.5] and parabola.get_ydata() == pytest.approx(
        [0, 0.75]
    )
    assert measured.get_ydata() == pytest.approx([0, 1.25])
    assert len(left.lines) == 4 and left.get_xlim() == (0, 0.5)
    assert right.lines[1].get_ydata() == pytest.approx(np.log10([1.5, 8.0])), (
        "all radii, whatever was chosen"
    )
    words = [text.get_text() for text in left.figure.texts]
    assert "within a radius of 0.50" in words and any(
        "Catch-up Mix, seed 0: λ 2" in word for word in words
    )
    assert len(radius_card(rows, 1.0).axes[0].lines[1].get_xdata()) == 3
    assert radius_card(rows, 0.01).axes[0].get_xlim() == (0, 0.5), "never less than one step"


def test_two_rows_of_a_method_can_be_told_apart():
    figure = radius_card([row(seed=0), row(seed=1), row("catchup")], 1.0)
    faces = [
        line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() != "None"
    ]
    assert faces == [line.get_markerfacecolor() for line in figure.artists] and len(set(faces)) == 3
    assert faces[1] == "white"


def test_losses_that_are_not_finite_leave_gaps():
    figure = radius_card([row(losses=(None, 2.0, 1.0, 2.5, 4.0)), row("catchup")], 1.0)
    assert math.isnan(figure.axes[0].lines[1].get_ydata()[-1])
    nothing = radius_card([row(losses=(1.0,) * 5)], 1.0)
    assert any("rises nowhere" in text.get_text() for text in nothing.axes[1].texts)


@pytest.mark.parametrize("radius", [0.0, -1.0, 1.2, math.nan])
def test_a_radius_that_was_not_measured_is_refused(radius):
    with pytest.raises(ValueError, match="radius must be greater than 0 and at most 1"):
        radius_card([row()], radius)


def test_rows_have_to_be_there_and_measured_alike():
    with pytest.raises(ValueError, match="no rows"):
        radius_card([], 1.0)
    with pytest.raises(ValueError, match="different radii"):
        radius_card([row(), row(radii=[2 * radius for radius in RADII])], 1.0)


def test_a_row_is_named_by_method_and_seed():
    assert row_name(row("catchup", seed=3)) == "Catch-up Mix, seed 3"
    assert row_name({"method": "baseline:epochs=1"}).endswith("(epochs=1)")
