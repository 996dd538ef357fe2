"""Generated colour images of a shape on a textured background, with a dial for how often the
background agrees.

Every cause of an image is a number in a `Scene`, and `render` turns scenes into pixels without any
chance of its own. So one cause can be changed while all others stay (`with_shape`, `with_texture`,
`with_tint`), which photographs never allow. The class is the shape. One attribute of the
background, its texture or its tint, is the *cue*: in a share ρ of the training images it is the
class's own, in the rest it is that of another class, uniformly. ρ = 1 leaves the cue and the shape
undistinguished, ρ = 1/8 makes them independent. The other attribute never says anything.

The luma of a shape always differs from both tones of its background by at least `CONTRAST`,
whatever the hues.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from ...utils.choices import check_whole, pick
from ..colour import LUMA
from ..images import Images

# each beside the most alike
SHAPES = ("disc", "square", "triangle", "star", "plus", "bar", "crescent", "ring")
TEXTURES = (
    "level stripes",
    "blobs",
    "waves",
    "rings",
    "slanted stripes",
    "dots",
    "checks",
    "upright stripes",
)
KINDS = 8  # shapes, textures and tints; texture k and tint k are those of shape k
CUES = ("texture", "colour")
SIDE = 32  # pixels
BLOCK = 1024  # images drawn from one generator
TEST_START = 2**40  # where in the stream the test images begin
CONTRAST = 0.12  # smallest difference of luma between a shape and either tone of its background
WAVES = 6  # plane waves in the blobs


@dataclass(frozen=True, eq=False)
class Scene:
    """The causes of N images. Lengths in pixels, x to the right, y down; hues in turns; lumas and
    shares in [0, 1].

    Args:
        shape, texture, tint: (N,) int64 in [0, 8): what is shown, the pattern behind it, the hue of
            the pattern.
        place: (N, 2) centre of the shape.
        size: (N,) radius of the circle around it.
        angle: (N,) its turn in radians.
        hue, luma: (N,) of the shape.
        tones: (N, 2) lumas of the background, dark and light.
        shade: (N, 2) how far the hue of each tone is off its tint.
        strength: (N, 3) saturation of the shape and the two tones, as a share of what the luma
            allows.
        pitch: (N,) period of the pattern.
        tilt: (N,) its turn in radians.
        phase: (N, 2) its shift in periods.
        grain: (N, 6, 3) direction, frequency and phase of the blobs' plane waves, uniform in [0,
            1).
    Raises:
        ValueError: if the lengths differ, or an id is no int64 in [0, 8).
    """

    shape: Tensor
    texture: Tensor
    tint: Tensor
    place: Tensor
    size: Tensor
    angle: Tensor
    hue: Tensor
    luma: Tensor
    tones: Tensor
    shade: Tensor
    strength: Tensor
    pitch: Tensor
    tilt: Tensor
    phase: Tensor
    grain: Tensor

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"all causes need one length, got {lengths}")
        for name in ("shape", "texture", "tint"):
            ids = getattr(self, name)
            if ids.dtype != torch.int64 or ids.ndim != 1 or not ((ids >= 0) & (ids < KINDS)).all():
                raise ValueError(
                    f"{name} must be (N,) int64 in [0, {KINDS}), got {ids.dtype} {tuple(ids.shape)}"
                    + (f" up to {int(ids.max())}" if ids.numel() else "")
                )

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: slice | Tensor) -> "Scene":
        """The scenes at `index`: a slice, or (K,) int64."""
        return Scene(*(getattr(self, field.name)[index] for field in fields(self)))

    def with_shape(self, ids: Tensor | int) -> "Scene":
        """The same scenes showing other shapes, all else equal. ids: one, or (N,), in [0, 8).
        ValueError as `Scene`.
        """
        return replace(self, shape=self._ids(ids))

    def with_texture(self, ids: Tensor | int) -> "Scene":
        """The same scenes on other textures, in the same colours. ids and errors as for
        `with_shape`.
        """
        return replace(self, texture=self._ids(ids))

    def with_tint(self, ids: Tensor | int) -> "Scene":
        """The same scenes on the same textures in other hues. ids and errors as for
        `with_shape`.
        """
        return replace(self, tint=self._ids(ids))

    def with_cue(self, cue: str, ids: Tensor | int) -> "Scene":
        """`with_texture` or `with_tint`, as `cue` is "texture" or "colour"."""
        return {"texture": self.with_texture, "colour": self.with_tint}[pick("cue", cue, CUES)](ids)

    def _ids(self, ids: Tensor | int) -> Tensor:
        ids = torch.as_tensor(ids)
        return ids.expand(len(self)) if ids.ndim == 0 else ids


def draw_scenes(
    n: int, seed: int, rho: float = 0.95, cue: str = "texture", start: int = 0
) -> Scene:
    """Images `start` … `start + n - 1` of the endless stream of a seed.

    Image i of a seed is the same whatever n and start. Over ρ only the cue changes, and an image
    whose cue agrees at one ρ agrees at every larger one. Every block of 1 024 holds each shape 128
    times.

    Args:
        n: ≥ 1.
        seed, start: ≥ 0.
        rho: share of images whose cue is the class's own, in [0, 1]; 1/8 makes cue and class
            independent.
        cue: "texture" or "colour" (the tint of the background).
    Raises:
        ValueError: if n, seed, start or rho is out of range, or the cue unknown.
    """
    pick("cue", cue, CUES)
    check_whole(n=n)
    check_whole(0, seed=seed, start=start)
    if not 0 <= rho <= 1:
        raise ValueError(f"rho must lie in [0, 1], got {rho}")
    drawn = [_draw_block(seed, block) for block in range(start // BLOCK, -(-(start + n) // BLOCK))]
    kept = slice(start % BLOCK, start % BLOCK + n)
    scenes, chance, other = (_join(part)[kept] for part in zip(*drawn))
    attributes = torch.where(chance < rho, scenes.shape, (scenes.shape + other) % KINDS)
    return scenes.with_cue(cue, attributes)


def render(scene: Scene) -> Tensor:
    """The images of scenes: (N, 3, 32, 32) uint8, antialiased. Pure: the same scene gives the same
    pixels.
    """
    starts = range(0, len(scene), BLOCK)
    return torch.cat([_render(scene[start : start + BLOCK]) for start in starts])


def images_of(scene: Scene) -> Images:
    """The rendered scenes, labelled by their shape."""
    return Images(render(scene), scene.shape, SHAPES)


def test_sets(n: int, seed: int, cue: str = "texture") -> dict[str, Images]:
    """Three test sets of the same n scenes, which differ in the cue alone, so that they are paired
    image by image.

    Args:
        n: ≥ 1.
        seed: ≥ 0; test images never occur in a training set of fewer than 2**40 images.
        cue: "texture" or "colour".
    Returns:
        "kept": the cue is always the class's own. "broken": it is independent of the class
        (uniform, so one image in eight agrees by chance). "reversed": it is always that of the next
        class in `SHAPES` (of the disc after the ring), which looks somewhat alike.
    Raises:
        ValueError: as `draw_scenes`.
    """
    broken = draw_scenes(n, seed, 1 / KINDS, cue, TEST_START)
    return {
        "kept": images_of(broken.with_cue(cue, broken.shape)),
        "broken": images_of(broken),
        "reversed": images_of(broken.with_cue(cue, (broken.shape + 1) % KINDS)),
    }


# pytest would take it for a test
test_sets.__test__ = False  # type: ignore[attr-defined]


# Chance


def _draw_block(seed: int, block: int) -> tuple[Scene, Tensor, Tensor]:
    """The scenes of one block with both background attributes uniform; (BLOCK,) in [0, 1) and
    (BLOCK,) in [1, 8).
    """
    state = np.random.SeedSequence((seed, block)).generate_state(1, np.uint64)[0]
    rng = torch.Generator().manual_seed(int(state >> 1))

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(BLOCK, *shape, generator=rng)

    def choice(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (BLOCK,), generator=rng)

    shape = torch.randperm(BLOCK, generator=rng) % KINDS
    texture, tint = choice(0, KINDS), choice(0, KINDS)
    size, tones = uniform(6, 10), torch.stack([uniform(0.32, 0.44), uniform(0.56, 0.68)], dim=1)
    place = size[:, None] + (SIDE - 2 * size[:, None]) * uniform(0, 1, 2)
    luma = torch.where(choice(0, 2) == 0, uniform(0.06, 0.2), uniform(0.8, 0.94))
    scene = Scene(
        shape,
        texture,
        tint,
        place,
        size,
        uniform(0, 2 * math.pi),
        uniform(0, 1),
        luma,
        tones,
        uniform(-1 / 32, 1 / 32, 2),
        uniform(0.4, 1, 3),
        uniform(5, 8),
        uniform(-0.15, 0.15),
        uniform(0, 1, 2),
        uniform(0, 1, WAVES, 3),
    )
    return scene, torch.rand(BLOCK, generator=rng, dtype=torch.float64), choice(1, KINDS)


def _join(parts: Sequence[Scene] | Sequence[Tensor]) -> Scene | Tensor:
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    columns = ([getattr(part, field.name) for part in parts] for field in fields(Scene))
    return Scene(*map(torch.cat, columns))


# Pixels


def _render(scene: Scene) -> Tensor:
    # (N, 1, H, W), 0 where dark, 1 where light
    pattern = draw_each(_TEXTURES, scene.texture, scene)[:, None]
    # (N, 1, H, W), share of the pixel that the shape covers
    inside = draw_each(SHAPE_DRAWINGS, scene.shape, scene)[:, None]
    dark, light = (
        _colour(scene.tint / KINDS + scene.shade[:, i], scene.tones[:, i], scene.strength[:, 1 + i])
        for i in (0, 1)
    )
    figure = _colour(scene.hue, scene.luma, scene.strength[:, 0])
    ground = torch.lerp(dark, light, pattern)
    return torch.lerp(ground, figure, inside).mul_(255).round_().to(torch.uint8)


def draw_each(drawings: Sequence[Callable[[Scene], Tensor]], ids: Tensor, scene: Scene) -> Tensor:
    """(N, H, W): of every scene the drawing of its own id."""
    drawn = torch.empty(len(scene), SIDE, SIDE)
    for kind, drawing in enumerate(drawings):
        index = (ids == kind).nonzero()[:, 0]
        if len(index):
            drawn[index] = drawing(scene[index])
    return drawn


def _colour(hue: Tensor, luma: Tensor, strength: Tensor) -> Tensor:
    """(N, 3, 1, 1) in [0, 1]: the colour of that hue and exactly that luma, of a share of the
    possible saturation.
    """
    # (N, 3)
    pure = ((hue[:, None] * 6 + torch.tensor([0.0, 4.0, 2.0])) % 6 - 3).abs().sub(1).clamp(0, 1)
    away = pure - (pure @ torch.tensor(LUMA))[:, None]  # no luma of its own
    room = torch.where(away > 0, 1 - luma[:, None], luma[:, None]) / away.abs().clamp(min=1e-6)
    colour = luma[:, None] + away * room.amin(1, keepdim=True) * strength[:, None]
    return colour.clamp(0, 1)[:, :, None, None]


def _axes(scene: Scene, centre: Tensor | float, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Two (N, H, W): coordinates of the pixel centres from `centre`, along axes turned by
    `angle`.
    """
    grid = torch.arange(SIDE) + 0.5
    centre = torch.as_tensor(centre, dtype=torch.float32).expand(len(scene), 2)
    x = grid[None, None, :] - centre[:, 0, None, None]
    y = grid[None, :, None] - centre[:, 1, None, None]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return x * cos + y * sin, y * cos - x * sin


def _coverage(distance: Tensor) -> Tensor:
    """Share of a pixel inside, from the signed distance of its centre to the edge, < 0 inside."""
    return (0.5 - distance).clamp(0, 1)


def _bands(coordinate: Tensor, pitch: Tensor) -> Tensor:
    """(N, H, W): stripes of half a period each across a coordinate in pixels, antialiased."""
    return _coverage((((coordinate / pitch) % 1 - 0.5).abs() - 0.25) * pitch)


def _pattern_axes(scene: Scene, turn: float) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates of the pattern turned by `turn` and its own tilt, shifted by its phase; and the
    pitch, (N, 1, 1).
    """
    pitch = scene.pitch[:, None, None]
    u, v = _axes(scene, 0.0, turn + scene.tilt)
    across, along = scene.phase.T[:, :, None, None] * pitch
    return u + across, v + along, pitch


def _stripes(turn: float) -> Callable[[Scene], Tensor]:
    def drawn(scene: Scene) -> Tensor:
        u, _, pitch = _pattern_axes(scene, turn)
        return _bands(u, pitch)

    return drawn


def _checks(scene: Scene) -> Tensor:
    u, v, pitch = _pattern_axes(scene, 0.0)
    across, along = _bands(u, 1.4 * pitch), _bands(v, 1.4 * pitch)
    return across + along - 2 * across * along


def _waves(scene: Scene) -> Tensor:
    u, v, pitch = _pattern_axes(scene, math.pi / 2)
    zigzag = ((v / (1.6 * pitch)) % 1 - 0.5).abs() * 3.2 * pitch  # slopes of ±2
    return _bands((u + zigzag) / math.sqrt(5), 0.75 * pitch)


def _dots(scene: Scene) -> Tensor:
    u, v, pitch = _pattern_axes(scene, 0.0)
    u, v = (((coordinate / pitch) % 1 - 0.5) * pitch for coordinate in (u, v))
    return _coverage(torch.hypot(u, v) - 0.3 * pitch)


def _rings(scene: Scene) -> Tensor:
    (u, v), pitch = _axes(scene, scene.phase * SIDE, scene.tilt), scene.pitch[:, None, None]
    return _bands(torch.hypot(u, v) + scene.grain[:, 0, 0, None, None] * pitch, pitch)


def _blobs(scene: Scene) -> Tensor:
    x, y = _axes(scene, 0.0, torch.zeros(len(scene)))
    total = torch.zeros(len(scene), SIDE, SIDE)
    for wave in range(WAVES):
        direction, frequency, phase = scene.grain[:, wave].T[:, :, None, None]
        # spread over the half circle, so that blobs are round
        turns = (direction + wave) * (math.pi / WAVES)
        number = 2 * math.pi * (0.5 + 0.4 * frequency) / scene.pitch[:, None, None]
        total += torch.cos((x * turns.cos() + y * turns.sin()) * number + 2 * math.pi * phase)
    return (0.5 + 0.6 * total).clamp(0, 1)


def _half_planes(u: Tensor, v: Tensor, directions: Sequence[float], distance: Tensor) -> Tensor:
    """Signed distance to the intersection of half planes with outward normals at these angles."""
    sides = [u * math.cos(turn) + v * math.sin(turn) for turn in directions]
    return torch.stack(sides).amax(0) - distance


def _shape_axes(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    return *_axes(scene, scene.place, scene.angle), scene.size[:, None, None]


def _disc(u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    return torch.hypot(u, v) - 0.85 * size


def _square(u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - size / math.sqrt(2)


def _triangle(u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    return _half_planes(u, v, [math.pi / 3, math.pi, -math.pi / 3], size / 2)


def _plus(u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    u, v, arm = u.abs(), v.abs(), 0.27 * size
    across, along = torch.maximum(u - 0.95 * size, v - arm), torch.maximum(v - 0.95 * size, u - arm)
    return torch.minimum(across, along)


def _ring(u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    return (torch.hypot(u, v) - 0.72 * size).abs() - 0.2 * size


def _star(u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    fifth = 2 * math.pi / 5
    radius, turn = torch.hypot(u, v), ((torch.atan2(v, u) / fifth + 0.5) % 1 - 0.5).abs() * fifth
    inner = 0.42
    # from a tip to the next notch
    x, y = inner * math.cos(fifth / 2) - 1, inner * math.sin(fifth / 2)
    length = math.hypot(x, y)
    return (radius * turn.cos() - size) * (y / length) - radius * turn.sin() * (x / length)


def _crescent(u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    bite = 0.75 * size - torch.hypot(u - 0.5 * size, v)
    return torch.maximum(torch.hypot(u, v) - 0.95 * size, bite)


def _bar(u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    return torch.maximum(u.abs() - 0.95 * size, v.abs() - 0.3 * size)


def _figure(distance: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Scene], Tensor]:
    return lambda scene: _coverage(distance(*_shape_axes(scene)))


SHAPE_DRAWINGS = tuple(
    map(_figure, (_disc, _square, _triangle, _star, _plus, _bar, _crescent, _ring))
)
_TEXTURES = (
    _stripes(math.pi / 2),
    _blobs,
    _waves,
    _rings,
    _stripes(math.pi / 4),
    _dots,
    _checks,
    _stripes(0.0),
)
