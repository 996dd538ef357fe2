"""Generated shapes: what the dial promises, that a cause changes nothing but its effect, and
drawings checked by area and by symmetry.
"""

import math
import time
from dataclasses import fields, replace

import pytest
import torch

from catchup import data
from catchup.data.sets.shapes import (
    CONTRAST,
    CUES,
    KINDS,
    SHAPES,
    SIDE,
    TEXTURES,
    Scene,
    draw_scenes,
    render,
    test_sets,
)

LUMA = torch.tensor([0.299, 0.587, 0.114])


def same(a: Scene, b: Scene, but: tuple[str, ...] = ()) -> bool:
    return all(
        torch.equal(getattr(a, field.name), getattr(b, field.name))
        for field in fields(Scene)
        if field.name not in but
    )


def luma(pixels):
    return (pixels.double() / 255 * LUMA[:, None, None]).sum(1)


# The stream and the dial


@pytest.mark.parametrize(
    ("start", "n"), [(0, 1), (5, 30), (1000, 100), (1023, 2), (1024, 1024), (2000, 1500)]
)
def test_image_i_of_a_seed_is_the_same_whatever_is_asked_for(start, n):
    whole = draw_scenes(3500, seed=4, rho=0.7)
    assert same(draw_scenes(n, seed=4, rho=0.7, start=start), whole[start : start + n])
    assert len(draw_scenes(n, seed=4, start=start)) == n


def test_other_seeds_and_other_places_in_the_stream_are_other_images():
    first = draw_scenes(1024, 0)
    for other in (
        draw_scenes(1024, 1),
        draw_scenes(1024, 0, start=1024),
        draw_scenes(1024, 0, start=2**40),
    ):
        assert not torch.isclose(first.place, other.place).all(1).any()


def test_every_block_holds_every_shape_equally_often():
    assert draw_scenes(2048, 3).shape.bincount().tolist() == [256] * KINDS


@pytest.mark.parametrize("cue", CUES)
@pytest.mark.parametrize("rho", [0.0, 1 / 8, 0.6, 0.95, 1.0])
def test_rho_is_the_rate_of_agreement_and_the_rest_is_uniform(rho, cue):
    n = 16 * 1024
    scene = draw_scenes(n, 0, rho, cue)
    told, silent = (scene.texture, scene.tint) if cue == "texture" else (scene.tint, scene.texture)
    agrees = told == scene.shape
    assert abs(float(agrees.double().mean()) - rho) <= 4 * math.sqrt(rho * (1 - rho) / n)
    if rho < 1:
        off = (told - scene.shape)[~agrees] % KINDS
        counts = off.bincount(minlength=KINDS)[1:].double()
        assert (counts - counts.mean()).abs().max() < 5 * math.sqrt(counts.mean())
    independent = float((silent == scene.shape).double().mean())
    assert abs(independent - 1 / 8) < 4 * math.sqrt(7 / 64 / n)


@pytest.mark.parametrize("cue", CUES)
def test_over_rho_nothing_changes_but_the_cue_and_agreement_only_grows(cue):
    low, high = (draw_scenes(3000, 1, rho, cue) for rho in (0.3, 0.8))
    name = "texture" if cue == "texture" else "tint"
    assert same(low, high, but=(name,)) and not same(low, high)
    agreed = getattr(low, name) == low.shape
    assert torch.equal(getattr(high, name)[agreed], high.shape[agreed])


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    render(draw_scenes(10, 0))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: draw_scenes(0, 0), "n must be a whole number of at least 1, got 0"),
        (lambda: draw_scenes(3, -1), "seed must be a whole number of at least 0, got -1"),
        (lambda: draw_scenes(3, 0, start=-1), "start .* got -1"),
        (lambda: draw_scenes(3, 0, 1.01), r"rho must lie in \[0, 1\], got 1.01"),
        (lambda: draw_scenes(3, 0, math.nan), "got nan"),
        (lambda: draw_scenes(3, 0, cue="color"), "Did you mean 'colour'"),
        (lambda: test_sets(3, 0, "color"), "Did you mean 'colour'"),
        (lambda: draw_scenes(3, 0).with_shape(8), r"shape must be .* in \[0, 8\).* up to 8"),
        (
            lambda: draw_scenes(3, 0).with_texture(torch.tensor([0.0, 1.0, 2.0])),
            "texture must be .*float32",
        ),
        (lambda: draw_scenes(3, 0).with_tint(torch.tensor([0, 1])), "one length"),
        (lambda: draw_scenes(3, 0).with_cue("shape", 1), "unknown cue 'shape'"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# Interventions


def test_another_shape_changes_nothing_far_from_the_shape():
    scene = draw_scenes(500, 2)
    before, after = render(scene), render(scene.with_shape((scene.shape + 3) % KINDS))
    grid = torch.arange(SIDE) + 0.5
    # sharp tips
    far = (
        torch.hypot(
            grid[None, None, :] - scene.place[:, 0, None, None],
            grid[None, :, None] - scene.place[:, 1, None, None],
        )
        > scene.size[:, None, None] + 2
    )
    changed = (before != after).any(1)
    assert not (changed & far).any() and changed.any((1, 2)).all()


@pytest.mark.parametrize("name", ["texture", "tint"])
def test_another_background_leaves_the_shape_alone(name):
    scene = draw_scenes(500, 2)
    bare = replace(
        scene, tones=torch.full_like(scene.tones, 0.5), strength=torch.zeros_like(scene.strength)
    )
    inside = render(bare)[:, 0] == (255 * scene.luma[:, None, None]).round()  # covered altogether
    before, after = (
        render(scene),
        render(replace(scene, **{name: (getattr(scene, name) + 3) % KINDS})),
    )
    changed = ((before.int() - after.int()).abs() > 3).any(1)  # all but rounding
    assert inside.any((1, 2)).all() and not (changed & inside).any()
    assert (changed & ~inside).any((1, 2)).all()


def test_an_intervention_is_repeatable_and_leaves_the_scene_as_it_was():
    scene = draw_scenes(64, 0)
    kept = Scene(*(getattr(scene, field.name).clone() for field in fields(Scene)))
    images = render(scene)
    assert torch.equal(render(scene.with_shape(3).with_shape(scene.shape)), images)
    assert same(scene, kept) and torch.equal(render(scene), images)
    assert same(scene.with_cue("texture", 2), scene.with_texture(2))
    assert same(scene.with_cue("colour", 2), scene.with_tint(2))
    assert same(scene.with_texture(2), scene, but=("texture",))
    assert same(scene.with_tint(2), scene, but=("tint",))


@pytest.mark.slow
def test_the_test_sets_are_paired_and_hold_their_cue():
    n, cues = 2048, {"texture": "texture", "colour": "tint"}
    for cue, name in cues.items():
        sets = test_sets(n, 5, cue)
        broken = draw_scenes(n, 5, 1 / 8, cue, start=2**40)
        assert list(sets) == ["kept", "broken", "reversed"]
        told = {
            "kept": broken.shape,
            "broken": getattr(broken, name),
            "reversed": (broken.shape + 1) % 8,
        }
        for kind, ids in told.items():
            assert torch.equal(sets[kind].pixels, render(replace(broken, **{name: ids})))
            assert torch.equal(sets[kind].labels, broken.shape) and sets[kind].classes == SHAPES
        assert abs(float((getattr(broken, name) == broken.shape).double().mean()) - 1 / 8) < 0.03


# Pixels


def plain(shape, size=9.0, angle=0.0, n=1):
    """Light shapes on an even grey ground."""
    scene = draw_scenes(n, 0).with_shape(shape)
    return replace(
        scene,
        place=torch.full((n, 2), 16.0),
        size=torch.full((n,), size),
        angle=torch.full((n,), angle),
        tones=torch.full((n, 2), 0.4),
        luma=torch.full((n,), 0.9),
        strength=torch.zeros(n, 3),
    )


def areas(size):
    """Of every shape, in square pixels, from plane geometry."""
    crescent = _crescent_area(0.95, 0.75, 0.5)
    notch = 0.42 * math.sin(math.pi / 5)  # half the width of the star's pentagon between two tips
    star = 10 * (0.5 * 1 * notch)
    unit = {
        "disc": math.pi * 0.85**2,
        "square": 2.0,
        "triangle": 3 * math.sqrt(3) / 4,
        "star": star,
        "plus": 2 * (1.9 * 0.54) - 0.54**2,
        "bar": 1.9 * 0.6,
        "crescent": crescent,
        "ring": math.pi * (0.92**2 - 0.52**2),
    }
    return {name: area * size**2 for name, area in unit.items()}


def _crescent_area(r, q, d):
    """A disc of radius r less its overlap with one of radius q, d away (the lens of two
    circles).
    """
    a = r * r * math.acos((d * d + r * r - q * q) / (2 * d * r))
    a += q * q * math.acos((d * d + q * q - r * r) / (2 * d * q))
    b = 0.5 * math.sqrt((-d + r + q) * (d + r - q) * (d - r + q) * (d + r + q))
    return math.pi * r * r - (a - b)


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.1])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_cover_the_area_that_geometry_says(name, angle):
    inside = (luma(render(plain(SHAPES.index(name), angle=angle))) - 0.4) / 0.5
    assert float(inside.sum()) == pytest.approx(areas(9.0)[name], rel=0.04)


def test_shapes_turn_with_their_angle_and_move_with_their_place():
    turned = render(plain(4, angle=math.pi / 2)), render(plain(2, angle=math.pi / 2))
    assert torch.equal(turned[0], render(plain(4)))  # a plus has a quarter turn
    # to the right, y is down
    assert (turned[1][0].rot90(1, (1, 2)).int() - render(plain(2))[0].int()).abs().max() <= 1
    moved = replace(plain(6), place=torch.tensor([[18.0, 13.0]]))
    assert torch.equal(render(moved)[0], render(plain(6))[0].roll((-3, 2), (1, 2)))
    nearest = [
        (render(plain(a))[0].int() - render(plain(b))[0].int()).abs().float().mean()
        for a in range(KINDS)
        for b in range(a)
    ]
    assert min(nearest) > 3, "two shapes can hardly be told apart"


def test_stripes_run_as_their_name_says():
    scene = replace(
        draw_scenes(1, 0).with_shape(5), tilt=torch.zeros(1), place=torch.tensor([[-50.0, -50.0]])
    )
    level, upright, slanted = (
        luma(render(scene.with_texture(TEXTURES.index(f"{name} stripes"))))[0]
        for name in ("level", "upright", "slanted")
    )
    assert (
        level.std(1).max() < 1e-6 < level.std(0).min()
        and upright.std(0).max() < 1e-6 < upright.std(1).min()
    )
    assert torch.allclose(slanted[1:, :-1], slanted[:-1, 1:], atol=0.01)


def test_textures_differ_from_each_other_and_half_of_each_is_light():
    scene = replace(draw_scenes(200, 1).with_shape(5), place=torch.full((200, 2), -50.0))
    spectra = []
    for texture in range(KINDS):
        tones = luma(render(scene.with_texture(texture)))
        light = (tones - scene.tones[:, 0, None, None]) / (scene.tones[:, 1] - scene.tones[:, 0])[
            :, None, None
        ]
        assert 0.25 < float(light.mean()) < 0.75 and light.flatten(1).std(1).min() > 0.1
        spectra.append(torch.fft.rfft2(light - light.mean((1, 2), keepdim=True)).abs().mean(0))
    for a in range(KINDS):
        for b in range(a):
            alike = torch.cosine_similarity(spectra[a].flatten(), spectra[b].flatten(), dim=0)
            assert float(alike) < 0.95, f"{TEXTURES[a]} and {TEXTURES[b]} have one spectrum"


def test_shape_and_background_never_come_closer_than_the_contrast():
    """Measured on pixels: the middle of a disc against every pixel outside it."""
    scene = draw_scenes(1500, 6).with_shape(0)
    scene = replace(scene, place=torch.full((1500, 2), 16.0))
    tones = luma(render(scene))
    grid = torch.arange(SIDE) + 0.5 - 16
    away = torch.hypot(grid[None, :], grid[:, None])[None] > scene.size[:, None, None]
    middle = tones[:, 15, 15]
    gap = torch.where(away, (tones - middle[:, None, None]).abs(), math.inf).amin((1, 2))
    assert float(gap.min()) >= CONTRAST - 2 / 255
    assert (middle - scene.luma.double()).abs().max() < 2 / 255


def test_every_pixel_of_the_shape_lies_in_the_image():
    scene = draw_scenes(4000, 0)
    assert (
        (scene.place >= scene.size[:, None]) & (scene.place <= SIDE - scene.size[:, None])
    ).all()


def test_five_thousand_images_a_second():
    rates = []
    for seed in range(4):
        start = time.process_time()
        render(draw_scenes(1024, seed))
        rates.append(1024 / (time.process_time() - start))
    assert max(rates) > 5000


# By name


@pytest.mark.slow
def test_load_gives_biased_training_images_and_test_images_with_a_broken_cue():
    loaded = data.load("shapes:0.8")
    assert loaded.train.pixels.shape == (10240, 3, 32, 32) and loaded.test.pixels.shape == (
        2048,
        3,
        32,
        32,
    )
    assert torch.equal(loaded.train.pixels, render(draw_scenes(10240, 0, 0.8)))
    assert torch.equal(loaded.test.pixels, test_sets(2048, 0)["broken"].pixels)
    assert loaded.train.classes == SHAPES and loaded.augmentation == data.Augmentation(
        pad=4, flip=True
    )
    assert loaded.mean == pytest.approx(
        (loaded.train.pixels.double() / 255).mean((0, 2, 3)).tolist()
    )
    assert data.subset(loaded.train, 50, 0).labels.bincount().tolist() == [50] * KINDS


@pytest.mark.slow
def test_names_of_the_dial():
    images = {
        name: data.load(name).train.pixels[:64]
        for name in ("shapes", "shapes:0.95", "shapes:0.9:colour")
    }
    assert torch.equal(images["shapes"], images["shapes:0.95"])
    assert torch.equal(images["shapes:0.9:colour"], render(draw_scenes(64, 0, 0.9, "colour")))
    assert data.load("shapes", image_size=16).train.pixels.shape[1:] == (3, 16, 16)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("shapes:", "needs a bias after the colon"),
        ("shapes:much", "got 'much'"),
        ("shapes:1.2", "got '1.2'"),
        ("shapes:-0.1", "got '-0.1'"),
        ("shapes:nan", "got 'nan'"),
        ("shapes:0.9:color", "Did you mean 'colour'"),
        ("shapes:0.9:", "unknown cue ''"),
        ("shapes:0.9:colour:2", "unknown cue 'colour:2'"),
        ("shapes::colour", "got ''"),
    ],
)
def test_a_wrong_dial_is_refused(name, says):
    with pytest.raises(ValueError, match=says):
        data.load(name)
