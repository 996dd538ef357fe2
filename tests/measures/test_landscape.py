"""Lines, planes and directions against naive loops; figures against their rows; the model is left
as it was.
"""

import copy
import json
import math

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib import pyplot
from matplotlib.axes import Axes
from mpl_toolkits.mplot3d import Axes3D
from torch import nn

from catchup.data import Images, subset
from catchup.hooks.layers import count_hooks
from catchup.measures import landscape as module
from catchup.measures.hessian import hessian_vector_product, split_vector, weight_gradient
from catchup.measures.landscape import (
    balanced_sample,
    loss_line,
    loss_surface,
    measure_landscape,
    random_direction,
    symmetric_radii,
)
from catchup.models.inference import PixelModel, predict, top_k_error
from catchup.plots.landscape import landscape_caption, plot_lines, plot_surface

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def images():
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (31, 2, 4, 4), dtype=torch.uint8, generator=rng)
    return Images(pixels, torch.randint(0, 3, (31,), generator=rng), tuple("abc"))


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(2, 3, 2),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(27, 3),
        )
    net[1].running_mean += torch.tensor([0.3, -0.2, 0.1])
    return PixelModel(net, (0.5, 0.4), (0.2, 0.3))


def random(model, seed=0):
    return random_direction(model, torch.Generator().manual_seed(seed))


def test_every_filter_of_a_direction_is_as_long_as_that_of_the_weights_and_biases_stay(model):
    pieces = split_vector(model, random(model))
    for name, weight in model.named_parameters():
        for filter_, drawn in zip(weight, pieces[name]):
            if weight.ndim > 1:
                assert drawn.norm().item() == pytest.approx(filter_.norm().item(), rel=1e-5)
                assert abs(F.cosine_similarity(drawn.flatten(), filter_.flatten(), dim=0)) < 0.9
            else:
                assert drawn == 0
    drawn = split_vector(model, random_direction(model, torch.Generator().manual_seed(0), "norm"))
    for name, weight in model.named_parameters():
        assert drawn[name].norm().item() == pytest.approx(weight.norm().item(), rel=1e-5)


def test_a_filter_of_zeros_gets_a_direction_of_zeros_and_scaled_weights_a_scaled_one(model):
    before = split_vector(model, random(model))
    with torch.no_grad():
        model.model[0].weight[1] = 0
        model.model[5].weight *= 4
    after = split_vector(model, random(model))
    assert not after["model.0.weight"][1].any() and torch.equal(
        after["model.0.weight"][0], before["model.0.weight"][0]
    )
    assert torch.equal(after["model.5.weight"], 4 * before["model.5.weight"])


def test_a_line_of_random_directions_is_blind_to_the_scale_that_batchnorm_takes_out(model, images):
    """Weights in front of BatchNorm three times as large, with statistics to match, compute the
    same network.
    """
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled.model[0].weight *= 3
        scaled.model[0].bias *= 3
        scaled.model[1].running_mean *= 3
        scaled.model[1].running_var.mul_(9).add_(8 * model.model[1].eps)
    radii = symmetric_radii(0.5, 5)
    first, second = (loss_line(net, images, random(net), radii) for net in (model, scaled))
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)


def naive(model, images, offset):
    """Loss and error of a copy whose weights are moved in place."""
    moved, start = copy.deepcopy(model).eval(), 0
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter += offset[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()
        logits = moved(images.pixels.float() / 255)
    return F.cross_entropy(logits, images.labels).item(), top_k_error(logits, images.labels)


@pytest.mark.parametrize("batch_size", [7, 500])
def test_a_line_is_that_of_a_moved_copy(model, images, batch_size):
    direction, radii = random(model), [-1.5, -0.2, 0.0, 0.7]
    found = loss_line(model, images, direction, radii, batch_size=batch_size)
    for place, radius in enumerate(radii):
        loss, error = naive(model, images, radius * direction)
        assert found["loss"][place] == pytest.approx(loss, rel=1e-5)
        assert found["error"][place] == pytest.approx(error)
    logits = predict(model, images)
    assert found["loss"][2] == pytest.approx(
        F.cross_entropy(logits.double(), images.labels).item(), rel=1e-7
    )


def test_a_plane_is_that_of_moved_copies_rows_along_the_first_direction(model, images):
    first, second, radii = random(model, 1), random(model, 2), [-0.5, 0.0, 1.0]
    found = loss_surface(model, images, first, second, radii)
    for row, s in enumerate(radii):
        for column, t in enumerate(radii):
            loss, error = naive(model, images, s * first + t * second)
            assert found["loss"][row][column] == pytest.approx(loss, rel=1e-5)
            assert found["error"][row][column] == pytest.approx(error)
    assert found["loss"][1] == pytest.approx(loss_line(model, images, second, radii)["loss"])


def test_curvature_and_slope_of_a_line_are_those_of_hessian_and_gradient(images, model):
    model = model.double()
    model.model[2] = nn.Softplus()
    direction = random(model)
    below, middle, above = loss_line(model, images, direction, [-1e-3, 0.0, 1e-3])["loss"]
    product = hessian_vector_product(model, images, direction)
    assert (above - 2 * middle + below) / 1e-6 == pytest.approx(
        (direction @ product).item(), rel=1e-3
    )
    assert (above - below) / 2e-3 == pytest.approx(
        (direction @ weight_gradient(model, images)).item(), rel=1e-3
    )


@pytest.mark.parametrize("fail", [None, ValueError, KeyboardInterrupt])
def test_the_model_is_bit_for_bit_as_it_was_also_after_an_error(model, images, fail, monkeypatch):
    model.train()
    model.model[1].eval()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    before, kept = copy.deepcopy(model.state_dict()), dict(model.named_parameters())
    modes = [part.training for part in model.modules()]
    if fail is None:
        measure_landscape(model, images, points=3, n_probes=2, grid_points=3)
    else:
        calls, ordinary = [], nn.Linear.forward

        def third(self, maps):  # in the middle of a forward pass, other weights in place
            calls.append(0)
            if len(calls) == 3:
                raise fail("stop")
            return ordinary(self, maps)

        with monkeypatch.context() as patch, pytest.raises(fail, match="stop"):
            patch.setattr(nn.Linear, "forward", third)
            loss_line(model, images, random(model), [-1.0, 0.5, 1.0, 2.0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter is kept[name] for name, parameter in model.named_parameters())
    assert all(
        (parameter.grad == 7).all() and parameter.requires_grad for parameter in model.parameters()
    )
    assert [part.training for part in model.modules()] == modes and count_hooks(model) == 0


def test_a_loss_that_overflows_is_inf_for_the_caller_and_none_in_json(model, images):
    far = loss_line(model, images, random(model), [0.0, 1e38])
    assert math.isfinite(far["loss"][0]) and far["loss"][1] == math.inf
    assert 0 <= far["error"][1] <= 100
    result = measure_landscape(model, images, points=3, n_probes=2, radius=1e38, grid_points=3)
    assert result["line"]["random"]["loss"][0] is None and result["surface"]["loss"][0][0] is None
    assert result["sharpness"] is None and math.isfinite(result["loss"])
    json.dumps(result, allow_nan=False)


def test_an_image_without_finite_logits_counts_as_an_error(images):
    model = PixelModel(nn.Sequential(nn.Flatten(), nn.Linear(32, 3)), (0.5, 0.4), (0.2, 0.3))
    direction = torch.ones(99)
    direction[32:] = 0  # class 0 alone overflows: infinite logits, which argmax would call right
    found = loss_line(model, images, direction, [3e38])
    assert found["loss"] == [math.inf]
    assert found["error"] == [100.0]


@pytest.mark.slow
def test_the_measurement_says_what_its_parts_say(model, images):
    result = measure_landscape(
        model,
        images,
        n_images=12,
        hessian_images=6,
        n_eigen=2,
        n_probes=3,
        radius=0.5,
        points=5,
        grid_points=3,
        seed=4,
    )
    seen, curved = balanced_sample(images, 12, 4), balanced_sample(images, 6, 4)
    pairs = module.top_eigenpairs(model, curved, 2, seed=4)
    radii = [-0.5, -0.25, 0.0, 0.25, 0.5]
    assert result["line"]["radii"] == radii and result["surface"]["radii"] == [-0.5, 0.0, 0.5]
    assert result["eigenvalues"] == list(pairs.values) and result["residuals"] == list(
        pairs.residuals
    )
    assert result["top_eigenvalue"] == result["eigenvalues"][0] >= result["eigenvalues"][1]
    assert (result["trace"], result["trace_se"]) == module.hessian_trace(model, curved, 3, 4)
    assert result["line"]["eigen"] == loss_line(model, seen, pairs.vectors[0], radii)
    assert result["line"]["random"] == loss_line(model, seen, random(model, 4), radii)
    assert result["surface"] == {
        "radii": [-0.5, 0.0, 0.5],
        "directions": "eigen",
        **loss_surface(model, seen, *pairs.vectors, [-0.5, 0.0, 0.5]),
    }
    heights = result["line"]["eigen"]["loss"]
    assert result["sharpness"] == max(heights) - heights[2] > 0 and result["loss"] == heights[2]
    assert result["weight_norm"] == pytest.approx(
        math.sqrt(sum((p**2).sum().item() for p in model.parameters()))
    )
    assert (result["settings"]["n_images"], result["settings"]["hessian_images"]) == (12, 6)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    again = measure_landscape(
        model,
        images,
        n_images=12,
        hessian_images=6,
        n_eigen=2,
        n_probes=3,
        radius=0.5,
        points=5,
        grid_points=3,
        seed=4,
    )
    assert again == result


def test_a_random_plane_has_two_directions_and_needs_one_eigenvector_only(model, images):
    result = measure_landscape(
        model, images, n_eigen=1, n_probes=2, points=3, grid_points=3, plane="random", radius=0.5
    )
    assert result["surface"]["directions"] == "random" and len(result["eigenvalues"]) == 1
    middle = [row[1] for row in result["surface"]["loss"]]  # the second step is 0
    assert middle == result["line"]["random"]["loss"] != result["surface"]["loss"][1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": 4}, "odd.*got 4"),
        ({"points": 1}, "points must be.*at least 3"),
        ({"grid_points": 2}, "odd.*and 2"),
        ({"grid_points": 1}, "odd.*and 1"),
        ({"grid_points": -1}, "grid_points.*-1"),
        ({"radius": 0}, "radius.*got 0"),
        ({"radius": math.inf}, "radius.*inf"),
        ({"n_images": 0}, "n_images.*0"),
        ({"n_images": 2.5}, "n_images.*2.5"),
        ({"n_probes": 1}, "n_probes.*1"),
        ({"n_eigen": 0}, "n_eigen.*0"),
        ({"n_eigen": True}, "n_eigen.*True"),
        ({"plane": "eigne"}, "Did you mean 'eigen'"),
        ({"n_eigen": 1, "grid_points": 3}, "needs two.*plane='random'"),
        ({"which": "smallest"}, "unknown end of the spectrum"),
    ],
)
def test_bad_settings_are_named_before_anything_is_computed(images, settings, message):
    class Refusing(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3))

        def forward(self, _images):
            raise AssertionError("something was computed")

    with pytest.raises(ValueError, match=message):
        measure_landscape(PixelModel(Refusing(), (0.5, 0.4), (0.2, 0.3)), images, **settings)


def test_bad_directions_and_radii_are_named(model, images):
    with pytest.raises(ValueError, match=r"must be \(\d+,\).*got \(3,\)"):
        loss_line(model, images, torch.zeros(3), [0.0])
    with pytest.raises(ValueError, match="direction must be finite"):
        loss_line(model, images, random(model) * math.nan, [0.0])
    for radii in ([], [0.0, math.nan]):
        with pytest.raises(ValueError, match="radii must be finite numbers, at least one"):
            loss_surface(model, images, random(model), random(model), radii)
    with pytest.raises(ValueError, match="Did you mean 'norm'"):
        random_direction(model, torch.Generator(), "norms")


def test_a_sample_is_balanced_nested_and_that_of_subset(images):
    rng = torch.Generator().manual_seed(1)
    labels = torch.tensor([0] * 20 + [1] * 12 + [2] * 3)[torch.randperm(35, generator=rng)]
    pixels = torch.arange(35, dtype=torch.uint8).view(35, 1, 1, 1)
    uneven, before = Images(pixels, labels, tuple("abc")), set()
    for n in range(1, 36):
        taken = balanced_sample(uneven, n, 5)
        places = taken.pixels.flatten().tolist()
        assert places == sorted(places) and len(set(places)) == n and before <= set(places)
        counts = taken.labels.bincount(minlength=3).tolist()
        assert all(count >= min(size, max(counts) - 1) for count, size in zip(counts, (20, 12, 3)))
        if n in (3, 6, 9):
            assert places == subset(uneven, n // 3, 5).pixels.flatten().tolist()
        before = set(places)
    assert len(balanced_sample(uneven, 99, 5)) == 35
    assert not torch.equal(
        balanced_sample(uneven, 6, 5).pixels, balanced_sample(uneven, 6, 6).pixels
    )


def test_steps_are_symmetric_with_an_exact_zero():
    for points in (3, 11, 21, 41):
        found = symmetric_radii(0.3, points)
        assert (
            found[points // 2] == 0
            and found == [-step for step in reversed(found)]
            and len(found) == points
        )
        assert found == pytest.approx(list(np.linspace(-0.3, 0.3, points)), abs=1e-15)


def row(method, seed, random_loss, eigen_loss, n_images=500):
    lines = {
        "radii": [-1.0, 0.0, 1.0],
        "random": {"loss": random_loss, "error": [90.0, 10.0, 80.0]},
        "eigen": {"loss": eigen_loss, "error": [95.0, 10.0, 99.0]},
    }
    return {
        "method": method,
        "seed": seed,
        "data": "digits",
        "model": "resnet18",
        "landscape": {
            "line": lines,
            "surface": None,
            "settings": {"n_images": n_images, "hessian_images": 100},
        },
    }


@pytest.fixture
def rows():
    return [
        row("catchup", 0, [3.0, 1.0, 5.0], [4.0, 1.0, 4.0]),
        row("catchup", 1, [5.0, 2.0, 7.0], [8.0, 2.0, None]),
        row("baseline", 0, [6.0, 0.5, 8.0], [9.0, 0.5, 9.0]),
    ]


def drawn(ax):
    return {
        text.get_text(): list(handle.get_ydata())
        for text, handle in zip(ax.get_legend().get_texts(), ax.get_legend_handles_labels()[0])
    }


def test_lines_show_means_and_bands_worked_out_by_hand(rows):
    ax = plot_lines(rows, direction="random")
    assert drawn(ax) == {"Catch-up Mix": [4.0, 1.5, 6.0], "baseline": [6.0, 0.5, 8.0]}
    band = ax.collections[0].get_paths()[0].vertices
    assert len(ax.collections) == 1
    assert sorted({round(float(y), 6) for x, y in band if x == 0}) == pytest.approx(
        [1.5 - 0.5**0.5, 1.5 + 0.5**0.5]
    )
    assert drawn(plot_lines(rows, height="rise", direction="random"))["Catch-up Mix"] == [
        2.5,
        0.0,
        4.5,
    ]
    assert drawn(plot_lines(rows, height="error"))["baseline"] == [95.0, 10.0, 99.0]
    assert "nats" in ax.get_ylabel() and "filters" in ax.get_xlabel()
    assert plot_lines(rows, log=True).get_yscale() == "log"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_a_gap_in_line_and_band(rows):
    ax = plot_lines(rows)
    assert drawn(ax)["Catch-up Mix"][:2] == [6.0, 1.5] and math.isnan(drawn(ax)["Catch-up Mix"][2])
    ax.figure.canvas.draw()


def test_the_caption_says_what_was_measured(rows):
    words = landscape_caption(rows)
    assert "500 images of digits (100 for the Hessian)" in words and "BatchNorm frozen" in words
    assert "1 or 2 seeds per method" in words and "one sample standard deviation" in words
    assert "1 seed per method; no spread can be shown" in landscape_caption(rows[2:])


def test_lines_that_do_not_compare_are_refused(rows):
    with pytest.raises(ValueError, match="no landscape"):
        plot_lines([{**rows[0], "landscape": None}])
    with pytest.raises(ValueError, match="on 500 and on 200 images"):
        plot_lines([*rows[:2], row("baseline", 0, [1.0] * 3, [1.0] * 3, n_images=200)])
    rows[2]["landscape"]["line"]["radii"] = [-2.0, 0.0, 2.0]
    with pytest.raises(ValueError, match="different radii.*baseline"):
        plot_lines(rows)
    with pytest.raises(ValueError, match="Did you mean 'eigen'"):
        plot_lines(rows[:2], direction="eigne")
    with pytest.raises(ValueError, match="logarithmic"):
        plot_lines(rows[:2], height="rise", log=True)


def plane(values):
    return {
        "surface": {
            "radii": [-1.0, 0.0, 1.0],
            "directions": "eigen",
            "loss": values,
            "error": values,
        }
    }


@pytest.mark.slow
def test_a_surface_has_the_first_direction_across_and_is_cut_at_the_top(monkeypatch):
    seen = {}

    def keep(kind, name):
        ordinary = getattr(kind, name)
        monkeypatch.setattr(
            kind,
            name,
            lambda ax, x, y, z, *more, **settings: (
                seen.update({name: (x, y, z)}) or ordinary(ax, x, y, z, *more, **settings)
            ),
        )

    keep(Axes, "contourf"), keep(Axes3D, "plot_surface")
    result = plane([[9.0, 5.0, 9.0], [4.0, 1.0, 4.0], [8.0, 3.0, None]])
    flat_, relief = plot_surface(result, top=6.0, name="catchup")
    flat_.figure.canvas.draw()
    assert "Catch-up Mix" in flat_.get_title() and "eigenvector 1" in flat_.get_xlabel()
    assert relief.get_zlim() == pytest.approx((1.0, 6.0)) and relief.name == "3d"
    x, y, z = seen["plot_surface"]
    relief_points = {(a, b): c for a, b, c in zip(x.ravel(), y.ravel(), z.ravel())}
    x, y, z = seen["contourf"]
    # matplotlib's order
    map_points = {(x[column], y[row]): z[row, column] for row in range(3) for column in range(3)}
    for found in (relief_points, map_points):
        assert (
            found[(-1, 0)] == 5
            and found[(0, -1)] == 4
            and found[(1, 0)] == 3
            and found[(-1, -1)] == 6
        )
        assert math.isnan(found[(1, 1)])


@pytest.mark.slow
def test_a_surface_that_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="no surface.*grid_points"):
        plot_surface({"surface": None})
    with pytest.raises(ValueError, match="smaller radius"):
        plot_surface(plane([[None] * 3] * 3))
    for top in (1.0, math.nan):
        with pytest.raises(ValueError, match="top must be finite and above"):
            plot_surface(plane([[1.0, 2.0, 3.0]] * 3), top=top)
    with pytest.raises(ValueError, match="two Axes"):
        plot_surface(plane([[1.0, 2.0, 3.0]] * 3), axes=pyplot.subplots(1, 2)[1])
    plot_surface(plane([[2.0] * 3] * 3))[0].figure.canvas.draw()


def test_bars_go_to_standard_error_only_if_asked(model, images, capfd):
    loss_line(model, images, random(model), [0.0, 1.0])
    assert capfd.readouterr() == ("", "")
    loss_line(model, images, random(model), [0.0, 1.0], progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "landscape" in err and "/2" in err
