"""The nineteen corruptions against their definitions, one image at a time on the CPU, and against a
library.

TOLERANCE says how far each may lie from the definition. The definitions are written from
make_cifar_c.py's formulas with the functions of NumPy, SciPy, colorsys and Pillow that correspond;
nothing of `catchup` computes them. Chance is
the same: the tests draw from the same generator in the documented order.
"""

import colorsys
import heapq
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from catchup.measures.corruptions import (
    CONSTANTS,
    CORRUPTIONS,
    EXTRA,
    FAMILIES,
    SEVERITIES,
    STANDARD,
    quantise,
)
from catchup.measures.corruptions.base import colour_like, grey
from catchup.measures.corruptions.filters import box_matrix, gaussian_matrix, zoom_matrix
from catchup.measures.corruptions.liquid import canny, chamfer, equalise
from catchup.measures.corruptions.weather import frost

# levels of 255: nearly every value, and the share of the values that may lie further off (by
# rounding)
TOLERANCE = {
    "gaussian_noise": (0.001, 0),
    "impulse_noise": (0.001, 0),
    "speckle_noise": (0.001, 0),
    "gaussian_blur": (0.001, 0),
    "defocus_blur": (0.001, 0),
    "zoom_blur": (0.001, 0),
    "glass_blur": (0.001, 0.003),
    "motion_blur": (0.001, 0.003),  # whole levels in between or at the end
    "snow": (0.01, 0.003),
    "fog": (0.01, 0),
    "brightness": (0.001, 0),
    "contrast": (0.001, 0),
    "saturate": (0.001, 0),
    "elastic_transform": (0.02, 0),
    "pixelate": (0.001, 0),
    "jpeg_compression": (0.001, 0),
    "spatter": (0.01, 0.003),
    "frost": (0.001, 0),  # frost: its formula, on given textures
    # shot_noise: by its moments and its grid, see test_shot_noise_…
}
PAIRS = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]


def some_images(count=3, side=(32, 32), seed=0, channels=3):
    """(count, C, H, W) float32 in [0, 1], of whole levels: blotches with sharp and soft edges,
    black and white among them.
    """
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(
        rng.normal(size=(count, channels, *side)), (0, 0.3, 2, 2), mode="wrap"
    )
    levels = np.clip(128 + 300 * smooth, 0, 255).round()
    levels[:, :, 3:7, 4:9] = 200
    levels[0, :, 10:14, 10:14] = 0
    levels[0, :, 20:24, 10:14] = 255
    return torch.from_numpy(levels / 255).float()


def dice(seed=5):
    return torch.Generator().manual_seed(seed)


def pictures(images):
    """One (H, W, C) float64 array per image, whole levels over 255."""
    return list((255 * images).round().permute(0, 2, 3, 1).double().numpy() / 255)


def grain(shape, scale=1.0, shift=0.0, generator=None):
    return (shift + scale * torch.randn(shape, generator=generator)).double().numpy()


def spread(shape, low, high, generator):
    return (low + (high - low) * torch.rand(shape, generator=generator)).double().numpy()


def whole(values):
    """uint8 by cutting off, in [0, 255]."""
    return np.floor(255 * np.asarray(values) + 1e-9)


# ---- the definitions ----


def gauss(image, sigma, **options):
    return ndimage.gaussian_filter(
        image, (sigma, sigma, 0)[: image.ndim], **{"mode": "nearest", **options}
    )


def middle_enlarged(image, factor):
    side = len(image)
    part = math.ceil(side / factor)
    top = (side - part) // 2
    image = ndimage.zoom(
        image[top : top + part, top : top + part], (factor, factor, 1)[: image.ndim], order=1
    )
    top = (len(image) - side) // 2
    return image[top : top + side, top : top + side]


def moved_slowly(image, radius, sigma, angle):
    weights = [math.exp(-i * i / (2 * sigma * sigma)) for i in range(2 * radius + 1)]
    result = np.zeros_like(image)
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    for i, weight in enumerate(weights):
        down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        ahead = image[
            np.clip(y + down, 0, image.shape[0] - 1), np.clip(x + right, 0, image.shape[1] - 1)
        ]
        result += weight / sum(weights) * ahead
    return result


def defined_noise(name, c, images, generator):
    if name == "impulse_noise":
        chance = torch.rand(images.shape, generator=generator).numpy()
        result = images.double().numpy().copy()
        result[chance < c] = 1
        result[chance < c / 2] = 0
        return result
    added = grain(images.shape, c, generator=generator)
    return images.double().numpy() + (added if name == "gaussian_noise" else images.numpy() * added)


def defined_defocus(image, c, _chance):
    radius, softness = c
    axis = np.arange(-8, 9)
    disk = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(float)
    edge = np.exp(-np.array([1, 0, 1]) / (2 * softness**2))
    kernel = ndimage.correlate(
        disk / disk.sum(), np.outer(edge, edge) / edge.sum() ** 2, mode="constant"
    )
    return np.stack([ndimage.correlate(image[..., k], kernel, mode="mirror") for k in range(3)], -1)


def defined_glass(image, c, steps):
    """The authors' loop with its exchange of two views: the pixel becomes its neighbour, and the
    neighbour stays.
    """
    x = whole(gauss(image, c[0]))
    for up, left in steps:
        for h in range(31, 1, -1):
            for w in range(31, 1, -1):
                a, b = (h, w), (h - up[h - 2, w - 2], w - left[h - 2, w - 2])
                x[a], x[b] = x[b], x[a]
    return gauss(x / 255, c[0])


def defined_snow(image, c, chance):
    layer, angle = chance
    layer = middle_enlarged(layer, c[2])
    layer = whole(np.clip(np.where(layer < c[3], 0, layer), 0, 1))
    layer = np.floor(moved_slowly(layer, c[4], c[5], angle) + 0.5)[..., None] / 255
    bright = (image @ [0.299, 0.587, 0.114])[..., None]
    image = c[6] * image + (1 - c[6]) * np.maximum(image, bright * 1.5 + 0.5)
    return image + layer + np.rot90(layer, 2)


def defined_fog(image, c, chance):
    """Diamond and square point by point, on a torus."""
    side, step, wobble, chance = 32, 32, 100.0, iter(chance)
    cloud = np.zeros((side, side))
    while step >= 2:
        half = step // 2
        for first, apart in (
            ((half, half), [(half, half), (half, -half), (-half, half), (-half, -half)]),
            ((0, half), [(half, 0), (-half, 0), (0, half), (0, -half)]),
            ((half, 0), [(half, 0), (-half, 0), (0, half), (0, -half)]),
        ):
            for y in range(first[0], side, step):
                for x in range(first[1], side, step):
                    near = sum(cloud[(y + a) % side, (x + b) % side] for a, b in apart)
                    cloud[y, x] = near / 4 + wobble * wobble * next(chance)
        step, wobble = half, wobble / c[1]
    cloud = (cloud - cloud.min()) / (cloud.max() - cloud.min())
    return (image + c[0] * cloud[..., None]) * image.max() / (image.max() + c[0])


def by_hsv(image, change):
    return np.array(
        [
            [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in row]
            for row in image
        ]
    )


def defined_elastic(image, c, chance):
    corners, fields = chance
    points = np.array([[26.0, 26], [26, 6], [6, 6]])
    targets = points + 32 * c[2] * corners
    # from target to source, x and y
    back = np.linalg.lstsq(np.c_[targets, np.ones(3)], points, rcond=None)[0]
    y, x = np.mgrid[:32, :32].astype(float)
    source = np.c_[x.ravel(), y.ravel(), np.ones(1024)] @ back
    places = [source[:, 1].reshape(32, 32), source[:, 0].reshape(32, 32)]
    image = np.stack(
        [ndimage.map_coordinates(image[..., k], places, order=1, mode="mirror") for k in range(3)],
        -1,
    )
    dx, dy = (
        32 * c[0] * (gauss(field, 32 * c[1], mode="reflect", truncate=3) if c[1] else field)
        for field in fields
    )
    return np.stack(
        [
            ndimage.map_coordinates(image[..., k], [y + dy, x + dx], order=1, mode="reflect")
            for k in range(3)
        ],
        -1,
    )


def defined_by_pillow(name, image, c):
    picture = Image.fromarray(whole(image).astype(np.uint8))
    if name == "pixelate":
        return (
            np.array(picture.resize((int(32 * c),) * 2, Image.BOX).resize((32, 32), Image.BOX))
            / 255
        )
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=c)
    return np.array(Image.open(file)) / 255


def slow_canny(levels):
    """Edges, with a walk from the strong ones to the weak ones."""
    padded = np.pad(levels, 1, mode="edge")
    side = np.array([1, 2, 1])
    dx, dy, size = (np.zeros((len(levels) + 2,) * 2) for _ in range(3))
    for y in range(1, len(levels) + 1):
        for x in range(1, len(levels) + 1):
            near = padded[y - 1 : y + 2, x - 1 : x + 2]
            dx[y, x], dy[y, x] = side @ (near[:, 2] - near[:, 0]), (near[2] - near[0]) @ side
            size[y, x] = abs(dx[y, x]) + abs(dy[y, x])
    kept = np.zeros(size.shape, bool)
    for y in range(1, len(levels) + 1):
        for x in range(1, len(levels) + 1):
            m, slope = size[y, x], abs(dy[y, x]) / max(abs(dx[y, x]), 1e-9)
            if slope < math.tan(math.pi / 8):
                crest = m > size[y, x - 1] and m >= size[y, x + 1]
            elif slope > math.tan(3 * math.pi / 8):
                crest = m > size[y - 1, x] and m >= size[y + 1, x]
            else:
                s = 1 if dx[y, x] * dy[y, x] >= 0 else -1
                crest = m > size[y - 1, x - s] and m > size[y + 1, x + s]
            kept[y, x] = crest and m > 50
    found = kept & (size > 150)
    todo = list(zip(*found.nonzero()))
    while todo:
        y, x = todo.pop()
        for a, b in np.argwhere(
            kept[y - 1 : y + 2, x - 1 : x + 2] & ~found[y - 1 : y + 2, x - 1 : x + 2]
        ) + (y - 1, x - 1):
            found[a, b] = True
            todo.append((a, b))
    return found[1:-1, 1:-1]


def slow_distance(edges):
    """Dijkstra over the steps of a 5 x 5 chamfer mask, in whole 65536ths as OpenCV has them, cut
    off at 20.
    """
    lengths = {(0, 1): 1, (1, 1): 91750 / 65536, (1, 2): 143976 / 65536}
    distance = np.where(edges, 0.0, np.inf)
    queue = [(0.0, y, x) for y, x in np.argwhere(edges).tolist()]
    while queue:
        far, y, x = heapq.heappop(queue)
        for a in range(-2, 3):
            for b in range(-2, 3):
                step = lengths.get(tuple(sorted((abs(a), abs(b)))))
                if (
                    step
                    and 0 <= y + a < len(edges)
                    and 0 <= x + b < len(edges)
                    and distance[y + a, x + b] > far + step
                ):
                    distance[y + a, x + b] = far + step
                    heapq.heappush(queue, (far + step, y + a, x + b))
    return np.minimum(distance, 20)


def slow_equalised(values):
    """OpenCV's rule: the smallest value to 0, the largest to 255, the others by how many are below
    or equal.
    """
    present, counts = np.unique(values, return_counts=True)
    if len(present) == 1:
        return values
    above = np.cumsum(counts) - counts[0]
    return np.rint(255 * above / above[-1])[np.searchsorted(present, values)]


def mean3(values):
    return ndimage.uniform_filter(values, 3, mode="mirror")


def defined_spatter(image, c, drawn):
    liquid = gauss(drawn, c[2])
    if c[5]:
        cover = gauss((liquid > c[3]).astype(float), c[4])
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return image * (1 - cover) + cover * np.array([63, 42, 20]) / 255
    # what is brighter than white wraps round in eight bits
    levels = whole(np.where(liquid < c[3], 0, liquid)) % 256
    raised = slow_equalised(np.floor(mean3(slow_distance(slow_canny(levels))) + 1e-7))
    relief = ndimage.correlate(
        raised, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]), mode="mirror"
    )
    lit = levels * np.rint(mean3(np.clip(relief, 0, 255)))
    return image + c[4] * (lit / lit.max())[..., None] * np.array([175, 238, 238]) / 255


def chance_of(name, c, count, generator):
    """What each image gets of the generator, in the documented order."""
    if name == "glass_blur":
        rounds = [
            torch.randint(0, 2, (2, count, 30, 30), generator=generator).numpy()
            for _ in range(c[2])
        ]
        return [[(up[k], left[k]) for up, left in rounds] for k in range(count)]
    if name == "motion_blur":
        return spread((count,), -45, 45, generator)
    if name == "snow":
        flakes = grain((count, 1, 32, 32), c[1], c[0], generator)[:, 0]
        return list(zip(flakes, spread((count,), -135, -45, generator)))
    if name == "fog":
        return spread((count, 1023), -1, 1, generator)
    if name == "spatter":
        return grain((count, 1, 32, 32), c[1], c[0], generator)[:, 0]
    if name == "elastic_transform":
        corners = spread((count, 3, 2), -1, 1, generator)
        return list(zip(corners, spread((count, 2, 32, 32), -1, 1, generator)))
    return [None] * count


DEFINED = {
    "gaussian_blur": lambda image, c, _: gauss(image, c),
    "defocus_blur": defined_defocus,
    "glass_blur": defined_glass,
    "motion_blur": (
        lambda image, c, angle: np.floor(255 * moved_slowly(image, *c, angle) + 0.5) / 255
    ),
    "zoom_blur": (
        lambda image, c, _: (
            (image + sum(middle_enlarged(image, z) for z in np.arange(1, c, 0.01)))
            / (len(np.arange(1, c, 0.01)) + 1)
        )
    ),
    "snow": defined_snow,
    "fog": defined_fog,
    "brightness": lambda image, c, _: by_hsv(image, lambda h, s, v: (h, s, min(v + c, 1))),
    "saturate": lambda image, c, _: by_hsv(
        image, lambda h, s, v: (h, min(max(s * c[0] + c[1], 0), 1), v)
    ),
    "contrast": lambda image, c, _: (image - image.mean((0, 1))) * c + image.mean((0, 1)),
    "elastic_transform": defined_elastic,
    "spatter": defined_spatter,
    "pixelate": lambda image, c, _: defined_by_pillow("pixelate", image, c),
    "jpeg_compression": lambda image, c, _: defined_by_pillow("jpeg_compression", image, c),
}


def defined(name, images, severity, generator):
    """(B, C, H, W) float64: the definition."""
    c = CONSTANTS[name][severity - 1]
    if name in ("gaussian_noise", "impulse_noise", "speckle_noise"):
        return defined_noise(name, c, images, generator).clip(0, 1)
    chance = chance_of(name, c, len(images), generator)
    return (
        np.stack(
            [DEFINED[name](*pair) for pair in zip(pictures(images), [c] * len(images), chance)]
        )
        .transpose(0, 3, 1, 2)
        .clip(0, 1)
    )


def within(name, ours, theirs, tolerance=None):
    limit, share = tolerance or TOLERANCE[name]
    apart = 255 * np.abs(np.asarray(ours, dtype=float) - theirs)
    return (apart > limit).mean() <= share


# ---- the tests ----


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,severity", [pair for pair in PAIRS if pair[0] not in ("shot_noise", "frost")]
)
def test_every_corruption_is_its_definition(name, severity):
    images = some_images(2)
    before = images.clone()
    ours, theirs = (
        CORRUPTIONS[name](images, severity, dice()),
        defined(name, images, severity, dice()),
    )
    assert within(name, ours, theirs), 255 * np.abs(ours.numpy() - theirs).max()
    assert not within(name, images, theirs)  # and it does something
    assert torch.equal(images, before)


def test_shot_noise_is_poisson():
    """Values lie on the grid of whole photons; mean and variance of a count are its rate (four
    standard errors).
    """
    for severity, photons in zip(SEVERITIES, CONSTANTS["shot_noise"]):
        level = torch.full((4, 3, 32, 32), 0.25)
        counts = CORRUPTIONS["shot_noise"](level, severity, dice()).double() * photons
        assert (counts - counts.round()).abs().max() < 1e-3
        n, rate = counts.numel(), 0.25 * photons
        assert abs(counts.mean() - rate) < 4 * (rate / n) ** 0.5
        assert abs(counts.var() / rate - 1) < 4 * ((2 + 1 / rate) / n) ** 0.5
    assert CORRUPTIONS["shot_noise"](torch.zeros(1, 3, 8, 8), 5, dice()).max() == 0


def test_frost_is_the_weighted_sum_with_a_cut_of_a_given_texture():
    # every cut can be told apart
    ramp = torch.arange(40 * 50).view(1, 40, 50).expand(3, -1, -1) / 2000
    white = torch.full((3, 33, 60), 255, dtype=torch.uint8)
    images = some_images(8)
    for severity, (weight, opacity) in zip(SEVERITIES, CONSTANTS["frost"]):
        pane = (
            frost(torch.zeros_like(images), severity, dice(), textures=[ramp, white]).numpy()
            / opacity
        )
        starts = np.rint(2000 * pane[:, 0, 0, 0]).astype(int)
        assert (starts == 2000).any() and (starts < 2000).any()
        for start, one in zip(starts, pane):
            cut = (
                np.ones((32, 32))
                if start == 2000
                else ramp[0].numpy()[start // 50 :, start % 50 :][:32, :32]
            )
            assert np.abs(one - cut).max() < 1e-6
        both = frost(images, severity, dice(), textures=[ramp, white])
        assert within("frost", both, (weight * images.double().numpy() + opacity * pane).clip(0, 1))


def test_the_synthetic_frost_has_the_statistics_it_claims():
    pane = frost(torch.zeros(600, 3, 32, 32), 1, dice()) / 0.2
    assert (pane.mean(dim=(0, 2, 3)) - torch.tensor([0.565, 0.648, 0.694])).abs().max() < 0.02
    bright = pane.mean(dim=1)
    assert abs(bright.mean(dim=(1, 2)).std() - 0.151) < 0.02
    assert abs(bright.std(dim=(1, 2)).mean() - 0.088) < 0.008
    window = torch.hann_window(32)[:, None] * torch.hann_window(32)
    power = (
        torch.fft.fft2((bright - bright.mean(dim=(1, 2), keepdim=True)) * window)
        .abs()
        .square()
        .mean(0)
    )
    frequency = torch.hypot(*torch.meshgrid(2 * [32 * torch.fft.fftfreq(32)], indexing="ij"))
    rings = range(2, 15)
    rows = [
        power[(frequency >= k - 0.5) & (frequency < k + 0.5)].mean().log().item() for k in rings
    ]
    assert abs(np.polyfit(np.log(rings), rows, 1)[0] - -0.94) < 0.2


def test_impulses_come_in_equal_numbers_and_their_stated_share():
    for severity, amount in zip(SEVERITIES, CONSTANTS["impulse_noise"]):
        result = CORRUPTIONS["impulse_noise"](torch.full((20, 3, 32, 32), 0.5), severity, dice())
        for value in (0, 1):
            share = (result == value).double().mean()
            assert abs(share - amount / 2) < 4 * (amount / 2 / result.numel()) ** 0.5


def test_the_pieces_of_spatter_one_by_one():
    rng = np.random.default_rng(2)
    levels = ndimage.gaussian_filter(rng.normal(size=(6, 24, 24)), (0, 1.2, 1.2)) * 250 + 60
    levels = levels.clip(0, 255).round()
    tensor = torch.from_numpy(levels).float()[:, None]
    edges = canny(tensor)
    assert all(np.array_equal(ours[0], slow_canny(one)) for ours, one in zip(edges.numpy(), levels))
    assert 0.02 < edges.float().mean() < 0.5
    sparse = torch.from_numpy(rng.random((6, 1, 24, 24)) < 0.01)
    sparse[0] = False  # no edge at all: as far as distances go
    for ours, one in zip(chamfer(sparse).numpy(), sparse.numpy()):
        assert np.abs(ours[0] - slow_distance(one[0])).max() < 1e-3
    values = torch.from_numpy(rng.integers(3, 20, (4, 50)))
    values[1] = 7
    assert np.array_equal(
        equalise(values).numpy(), np.stack([slow_equalised(row) for row in values.numpy()])
    )


@pytest.mark.parametrize("side,sigma", [(32, 0.4), (32, 1), (9, 3.2), (8, 6.4)])
@pytest.mark.parametrize("border", ["nearest", "reflect"])
def test_gaussian_matrix_is_scipys_filter(side, sigma, border):
    theirs = ndimage.gaussian_filter1d(np.eye(side), sigma, axis=0, mode=border)
    assert np.abs(gaussian_matrix(side, sigma, border) - theirs).max() < 1e-12
    assert np.array_equal(gaussian_matrix(side, 0.0, border), np.eye(side))


@pytest.mark.parametrize("side", [8, 15, 32, 33, 64])
def test_zoom_and_box_matrices_are_scipy_and_pillow(side):
    for factor in [1.0, 1.25, 1.75, 2.25, *np.arange(1, 1.26, 0.01)]:
        assert (
            np.abs(zoom_matrix(side, factor) - middle_enlarged_line(np.eye(side), factor)).max()
            < 1e-12
        )
    for share in CONSTANTS["pixelate"]:
        few = int(side * share)
        picture = Image.fromarray(np.arange(side, dtype=np.float32)[None].repeat(2, 0) ** 2)
        theirs = np.array(picture.resize((few, 2), Image.BOX))[0]
        assert np.abs(box_matrix(side, few) @ np.arange(side) ** 2.0 - theirs).max() < 1e-3


def middle_enlarged_line(columns, factor):
    side = len(columns)
    part = math.ceil(side / factor)
    top = (side - part) // 2
    large = ndimage.zoom(columns[top : top + part], (factor, 1), order=1)
    top = (len(large) - side) // 2
    return large[top : top + side]


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (2, 3, 20, 33), (1, 3, 224, 224)])
def test_every_size_works_and_stays_in_range(name, shape):
    images = some_images(shape[0], shape[2:], channels=shape[1])
    severity = 3 if name == "spatter" else 5
    result = CORRUPTIONS[name](images, severity, dice())
    assert result.shape == images.shape and result.dtype == torch.float32 and result.is_contiguous()
    assert result.min() >= 0 and result.max() <= 1 and result.data_ptr() != images.data_ptr()
    if shape[2] < 200:
        # the same dice, the same images
        assert torch.equal(result, CORRUPTIONS[name](images, severity, dice()))


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in CORRUPTIONS
        if name not in ("frost", "saturate", "jpeg_compression") and not name.endswith("noise")
    ],
)
def test_a_grey_image_is_corrupted_as_the_same_one_in_three_channels(name):
    """Noise is drawn per channel, JPEG codes them otherwise, and spatter and frost have colours:
    brightness then.
    """
    one = some_images(2, channels=1)
    for severity in (2, 5):
        single, three = (
            CORRUPTIONS[name](images, severity, dice())
            for images in (one, one.expand(-1, 3, -1, -1))
        )
        if name == "spatter":
            # water clips in some channels only
            assert (single - grey(three)).abs().max() < 1e-5 or severity == 2
        else:
            assert (single - three).abs().max() < 1e-6


def test_harder_is_further_away():
    """But for elastic transform and saturation, whose numbers change in kind from one severity to
    the next.
    """
    images = some_images(20)
    for name in set(CORRUPTIONS) - {
        "elastic_transform",
        "saturate",
        "spatter",
        "frost",
        "glass_blur",
        "snow",
    }:
        apart = [
            float((CORRUPTIONS[name](images, severity, dice()) - images).abs().mean())
            for severity in SEVERITIES
        ]
        assert apart == sorted(apart), name


def test_the_registry_is_the_papers_list():
    assert (
        list(CORRUPTIONS)
        == [*STANDARD, *EXTRA]
        == list(
            FAMILIES["noise"]
            + FAMILIES["blur"]
            + FAMILIES["weather"]
            + FAMILIES["digital"]
            + FAMILIES["extra"]
        )
    )
    assert len(STANDARD) == 15 and len(CORRUPTIONS) == 19 and set(CONSTANTS) == set(CORRUPTIONS)
    assert all(len(numbers) == 5 for numbers in CONSTANTS.values())
    assert all(
        name == function.__name__ and function.__doc__ for name, function in CORRUPTIONS.items()
    )


def test_quantised_cuts_off_and_keeps_every_whole_level():
    levels = torch.arange(256)
    assert torch.equal(quantise((levels / 255)[None]), levels[None].byte())
    assert torch.equal(
        quantise(torch.tensor([0.999, 0.5, 0.0039])), torch.tensor([254, 127, 0], dtype=torch.uint8)
    )


def test_liquid_that_is_not_there_changes_nothing():
    from catchup.measures.corruptions.liquid import apply_spatter

    images = some_images()
    assert torch.equal(apply_spatter(images, torch.zeros(3, 1, 32, 32), (0.7, 0.7, 0.5, 0)), images)


def test_black_and_grey_pixels_have_no_hue():
    black, middle = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.5)
    assert torch.allclose(CORRUPTIONS["brightness"](black, 5, dice()), torch.tensor(0.3))
    assert torch.equal(CORRUPTIONS["saturate"](middle, 3, dice()), middle)
    reddish = CORRUPTIONS["saturate"](middle, 5, dice())[0, :, 0, 0]
    assert torch.allclose(reddish, torch.tensor([0.5, 0.4, 0.4]))
    assert torch.allclose(colour_like((1.0, 0.0, 0.0), middle[:, :1]), torch.tensor(0.299))


@pytest.mark.parametrize(
    "images,severity,generator,word",
    [
        (torch.rand(2, 3, 32, 32), 0, torch.Generator(), "severity"),
        (torch.rand(2, 3, 32, 32), True, torch.Generator(), "severity"),
        (torch.rand(2, 3, 32, 32), 1.5, torch.Generator(), "severity"),
        (torch.rand(2, 3, 7, 32), 1, torch.Generator(), "at least 8"),
        (torch.rand(2, 4, 32, 32), 1, torch.Generator(), "4 channels"),
        (torch.rand(3, 32, 32), 1, torch.Generator(), "float32"),
        (torch.rand(2, 3, 32, 32).double(), 1, torch.Generator(), "float32"),
        (torch.rand(2, 3, 32, 32) + 0.5, 1, torch.Generator(), "before normalisation"),
        (torch.full((2, 3, 32, 32), float("nan")), 1, torch.Generator(), "before normalisation"),
        (torch.rand(2, 3, 32, 32), 1, None, "Generator"),
    ],
)
def test_bad_arguments_are_named(images, severity, generator, word):
    for name in ("gaussian_noise", "contrast", "spatter"):
        with pytest.raises(ValueError, match=word):
            CORRUPTIONS[name](images, severity, generator)


@pytest.mark.parametrize("textures", [[], [torch.rand(3, 32, 40)], [torch.rand(1, 64, 64)]])
def test_bad_textures_are_named(textures):
    with pytest.raises(ValueError, match="texture"):
        frost(torch.rand(2, 3, 32, 32), 1, dice(), textures=textures)


# ---- the library, where it is installed ----

# levels, and the share of values further off; its own departures from CIFAR-C are named behind
LIBRARY = {
    "gaussian_noise": (0.001, 0),
    "speckle_noise": (0.001, 0),
    "gaussian_blur": (0.001, 0),
    "defocus_blur": (0.001, 0),
    "contrast": (0.001, 0),
    "brightness": (0.001, 0),
    "saturate": (0.001, 0),
    "jpeg_compression": (0.001, 0),
    "fog": (0.02, 0),
    "pixelate": (0.001, 0),
    "glass_blur": (0.001, 0.003),
    "motion_blur": (0.501, 0),  # it does not round
    "spatter": (0.01, 0.003),
    # it neither cuts the flakes to whole levels nor trims what it enlarges: severities 1 and 2
    "snow": (4, 0.1),
}


def library_chance(monkeypatch, name, c, chance):
    """NumPy's global dice replaced by what our generator gave this image."""
    if name == "glass_blur":
        from imagecorruptions import corruptions as library

        monkeypatch.setattr(
            library,
            "_shuffle_pixels_njit_glass_blur",
            library._shuffle_pixels_njit_glass_blur.py_func,
        )
        steps = iter(
            [
                (-int(left[h - 2, w - 2]), -int(up[h - 2, w - 2]))
                for up, left in chance
                for h in range(31, 1, -1)
                for w in range(31, 1, -1)
            ]
        )
        monkeypatch.setattr(np.random, "randint", lambda *_, size: np.array(next(steps)))
        monkeypatch.setattr(np.random, "seed", lambda _: None)
    if name in ("gaussian_noise", "speckle_noise", "spatter"):
        monkeypatch.setattr(np.random, "normal", lambda **_: chance)
    if name == "snow":
        monkeypatch.setattr(np.random, "normal", lambda **_: chance[0])
        monkeypatch.setattr(np.random, "uniform", lambda *_: chance[1])
    if name == "motion_blur":
        monkeypatch.setattr(np.random, "uniform", lambda *_: chance)
    if name == "fog":
        left = list(chance)
        monkeypatch.setattr(
            np.random,
            "uniform",
            lambda low, high, shape: (
                high * np.array([left.pop(0) for _ in range(math.prod(shape))]).reshape(shape)
            ),
        )


@pytest.mark.parametrize("name", LIBRARY)
def test_the_library_agrees(name, monkeypatch):
    pytest.importorskip(
        "imagecorruptions", reason="the library imagecorruptions-imaug is not installed"
    )
    from benchmarks.corruptions import reference_functions

    images, function = some_images(), reference_functions()[name]
    for severity in SEVERITIES[:2] if name == "snow" else SEVERITIES:
        c, generator = CONSTANTS[name][severity - 1], dice()
        ours = CORRUPTIONS[name](images, severity, dice()).permute(0, 2, 3, 1).double().numpy()
        if name in ("gaussian_noise", "speckle_noise"):
            chance = grain(images.shape, c, generator=generator).transpose(0, 2, 3, 1)
        else:
            chance = chance_of(name, c, len(images), generator)
        for ours_one, image, given in zip(ours, pictures(images), chance):
            with monkeypatch.context() as patch:
                library_chance(patch, name, c, given)
                theirs = (
                    np.asarray(
                        function(Image.fromarray(np.rint(255 * image).astype(np.uint8)), severity)
                    )
                    / 255
                )
            assert within(name, ours_one, theirs, LIBRARY[name]), (
                severity,
                255 * np.abs(ours_one - theirs).max(),
            )


def test_the_synthetic_frost_resembles_the_photographs():
    library = pytest.importorskip(
        "imagecorruptions", reason="the library imagecorruptions-imaug is not installed"
    )
    from pathlib import Path

    import cv2

    files = sorted((Path(library.__file__).parent / "frost").glob("frost[1-5].*"))
    shrunk = [
        cv2.resize(cv2.imread(str(file)), (0, 0), fx=0.2, fy=0.2)[..., ::-1] for file in files
    ]
    textures = [torch.from_numpy(one.copy()).permute(2, 0, 1) for one in shrunk]
    black = torch.zeros(1000, 3, 32, 32)
    ours, theirs = (frost(black, 1, dice(), textures=given) / 0.2 for given in (None, textures))
    assert len(files) == 5
    assert (ours.mean(dim=(0, 2, 3)) - theirs.mean(dim=(0, 2, 3))).abs().max() < 0.03
    for measure in (
        lambda pane: pane.mean(dim=(1, 2, 3)).std(),
        lambda pane: pane.mean(1).std(dim=(1, 2)).mean(),
    ):
        assert abs(measure(ours) / measure(theirs) - 1) < 0.15
