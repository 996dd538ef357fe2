"""The loss around a model's weights: along lines, over planes, and how sharp the place is.

Sources: Li, Xu, Taylor, Studer & Goldstein, NeurIPS 2018 (random directions, filter by filter as
long as the weights); Yao, Gholami, Keutzer & Mahoney, IEEE Big Data 2020 (along the top
eigenvectors of the Hessian, of unit length), which Kang, Kang & Kim, AAAI 2024, section 3.6 and
Figures 3 and 7, follow: PreActResNet-18 on Tiny-ImageNet in Figure 7, and InputMixup as the
input-level partner of every method of Figure 3 but the baseline (`catchup:input_mix=mixup`). The
paper prints no number for them, and neither images nor radius.

The loss is the mean cross-entropy of images as they are stored, in evaluation mode: the statistics
of BatchNorm stay those of the unperturbed weights. The model is never written to: it is called with
other weights, functionally.

Where it misleads: behind BatchNorm a network computes the same with weights of any scale, but a
step of given length changes large weights less; filter normalisation takes this out of the random
directions, unit eigenvectors keep it, so read `weight_norm` beside them. Frozen statistics no
longer fit far from the weights; with statistics recomputed at each point the surface is another
one. One line or plane shows next to nothing of hundreds of thousands of dimensions, and a random
line little of the few directions in which the loss does curve. On training images the height at the
centre says how well they were learnt (a method that mixes labels learns them less by heart, which
alone looks flatter); on test images the centre is no minimum. A logarithmic axis makes an explosion
look like a slope, and a linear one hides everything beside it. Compare models of one architecture
on the same images, directions and radii.
"""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..data import Images
from ..data.augment import to_float
from ..hooks.layers import evaluating
from ..models.inference import PixelModel
from ..utils.choices import check_whole, pick
from ..utils.progress import bar
from ..utils.tensors import check_on_cpu
from .hessian import differentiable_weights, flatten, hessian_trace, split_vector, top_eigenpairs

ONE_DIMENSIONAL = ("zero", "norm")
PLANES = ("eigen", "random")


def random_direction(
    model: nn.Module, generator: torch.Generator, one_dimensional: str = "zero"
) -> Tensor:
    """A normal direction in which every filter is as long as that of the weights: d ← d ‖w‖ / ‖d‖,
    filter by filter.

    Source: Li et al., NeurIPS 2018, section 4. A filter is what stands under one index of the first
    axis: the weights of one output channel of a convolution, of one row of a linear layer. A filter
    of zeros gets zeros.

    Args:
        model: its parameters give shapes and lengths; all of one dtype.
        generator: on the CPU, so that a seed means the same direction on every device.
        one_dimensional: biases and the parameters of BatchNorm: "zero" leaves them alone, as Li et
            al.; "norm" gives each as a whole the length of the parameter.
    Returns:
        (P,), dtype and device of the parameters, in the order of `model.named_parameters()`.
    Raises:
        ValueError: if the generator is not on the CPU, `one_dimensional` is unknown, or the
            parameters do not fit.
    """
    pick("treatment of one-dimensional parameters", one_dimensional, ONE_DIMENSIONAL)
    check_on_cpu(generator)
    pieces = []
    for weight in differentiable_weights(model).values():
        drawn = torch.randn(weight.shape, generator=generator, dtype=weight.dtype).to(weight.device)
        if weight.ndim > 1:
            pieces.append(drawn * (_lengths(weight) / _lengths(drawn)))
        else:
            length = weight.norm() / drawn.norm() if one_dimensional == "norm" else 0
            pieces.append(drawn * length)
    return flatten(pieces)


def loss_line(
    model: PixelModel,
    images: Images,
    direction: Tensor,
    radii: Sequence[float],
    *,
    batch_size: int = 500,
    progress: bool = False,
) -> dict[str, list[float]]:
    """Loss and error with the weights θ + t d, for every t of `radii`.

    Args:
        model: from images in [0, 1] to logits, on the device of `images`; as it was afterwards,
            also after an error.
        images: the sample, never mixed or augmented.
        direction: d, (P,), finite, in the order of `model.named_parameters()`.
        radii: the steps t, finite.
        batch_size: images per forward pass, >= 1.
        progress: a bar on standard error.
    Returns:
        {"loss": mean cross-entropy in nats, "error": top-1 error in percent}, one number per
        radius. A loss that is not finite (the logits overflow) is inf; an image whose logits are
        not finite counts as an error.
    Raises:
        ValueError: if the direction does not fit the parameters, something is not finite, or there
            is no radius.
    """
    _check(radii, direction)
    points = _walk(
        model, images, (radius * direction for radius in radii), len(radii), batch_size, progress
    )
    return {"loss": [loss for loss, _ in points], "error": [error for _, error in points]}


def loss_surface(
    model: PixelModel,
    images: Images,
    first: Tensor,
    second: Tensor,
    radii: Sequence[float],
    *,
    batch_size: int = 500,
    progress: bool = False,
) -> dict[str, list[list[float]]]:
    """Loss and error with the weights θ + s d₁ + t d₂, for every s and t of `radii`: as many points
    as radii squared.

    Args:
        model, images, radii, batch_size, progress: as for `loss_line`.
        first, second: d₁ and d₂, (P,).
    Returns:
        {"loss", "error"} as of `loss_line`; the row is the step s along `first`, the column t along
        `second`.
    Raises:
        ValueError: as `loss_line`.
    """
    _check(radii, first, second)
    steps = (s * first + t * second for s in radii for t in radii)
    side = len(radii)
    points = _walk(model, images, steps, side**2, batch_size, progress)
    rows = {
        name: [point[which] for point in points] for which, name in enumerate(("loss", "error"))
    }
    return {
        name: [values[start : start + side] for start in range(0, side**2, side)]
        for name, values in rows.items()
    }


def measure_landscape(
    model: PixelModel,
    images: Images,
    *,
    n_images: int = 500,
    hessian_images: int = 100,
    n_eigen: int = 2,
    n_probes: int = 10,
    radius: float = 1.0,
    points: int = 21,
    grid_points: int = 0,
    plane: str = "eigen",
    which: str = "algebraic",
    seed: int = 0,
    progress: bool = False,
) -> dict:
    """What a minute or two tell of the loss around a model; see the top of this file for what they
    do not.

    The images are a balanced sample (see `balanced_sample`), the same for every model; those of the
    Hessian are among those of the lines. The random direction comes from the seed, too: the same
    for every model up to the lengths of its filters.

    Args:
        model, images, progress: as for `loss_line`.
        n_images: images of lines and surface; all, if there are no more.
        hessian_images: images of the Hessian, at most n_images: a product with it costs as much as
            many losses.
        n_eigen, which: eigenvalues, and at which end (`hessian.top_eigenpairs`).
        n_probes: random vectors for the trace, >= 2.
        radius: the largest step, > 0: in the random direction as a multiple of the weights' own
            length, along an eigenvector the distance itself.
        points: odd, >= 3, along each line; the one in the middle is the model itself.
        grid_points: 0, or odd, >= 3: points a side of the surface.
        plane: "eigen", spanned by the first two eigenvectors, or "random", by two random
            directions.
        seed: of the sample, of the directions and of the probes.
    Returns:
        Plain values: eigenvalues and residuals (lists), converged (bool), top_eigenvalue, trace,
        trace_se, weight_norm (‖θ‖), loss and error at the centre, line ({"radii", "random":
        {"loss", "error"}, "eigen": {…}}), surface (None, or {"radii", "directions", "loss",
        "error"}), sharpness, settings. Losses that are not finite are None. Sharpness is the
        largest rise of the loss over its centre along the line of the first eigenvector, nats: a
        lower bound of max over ‖ε‖ ≤ radius of L(θ + ε) − L(θ) (Foret et al., ICLR 2021); None if a
        loss there is not finite.
    Raises:
        ValueError: for a setting that is not so, before anything is computed; if the loss or its
            curvature at the weights themselves is not finite.
    """
    check_whole(n_images=n_images, hessian_images=hessian_images, n_eigen=n_eigen)
    check_whole(2, n_probes=n_probes)
    _check_grid(radius, points, grid_points, plane, n_eigen)
    seen = balanced_sample(images, n_images, seed)
    curved = balanced_sample(images, min(n_images, hessian_images), seed)
    pairs = top_eigenpairs(model, curved, n_eigen, seed=seed, which=which, progress=progress)
    total, deviation = hessian_trace(model, curved, n_probes, seed, progress=progress)
    generator = torch.Generator().manual_seed(seed)
    directions = {"random": random_direction(model, generator), "eigen": pairs.vectors[0]}
    radii = symmetric_radii(radius, points)
    lines = {
        name: loss_line(model, seen, direction, radii, progress=progress)
        for name, direction in directions.items()
    }
    grid = None
    if grid_points:
        second = pairs.vectors[1] if plane == "eigen" else random_direction(model, generator)
        side = symmetric_radii(radius, grid_points)
        heights = loss_surface(model, seen, directions[plane], second, side, progress=progress)
        grid = {"radii": side, "directions": plane, **_finite_or_none(heights)}
    middle, heights = points // 2, lines["eigen"]["loss"]
    settings: dict = {"n_images": len(seen), "hessian_images": len(curved)}
    settings |= {"n_eigen": n_eigen, "which": which, "n_probes": n_probes}
    settings |= {"products": pairs.products, "radius": radius, "points": points}
    settings |= {"grid_points": grid_points, "plane": plane, "seed": seed}
    return {
        "eigenvalues": list(pairs.values),
        "residuals": list(pairs.residuals),
        "converged": pairs.converged,
        "top_eigenvalue": pairs.values[0],
        "trace": total,
        "trace_se": deviation,
        "weight_norm": flatten(model.parameters()).norm().item(),
        "loss": heights[middle],
        "error": lines["eigen"]["error"][middle],
        "line": {"radii": radii, **_finite_or_none(lines)},
        "surface": grid,
        "sharpness": _finite_or_none(max(heights) - heights[middle]),
        "settings": settings,
    }


def balanced_sample(images: Images, n_images: int, seed: int) -> Images:
    """So many of the images, as balanced over the classes as they allow; a smaller sample lies
    inside a larger one.

    Where every class has them, n images of each are those of `catchup.data.subset(images, n,
    seed)`; what does not divide evenly, or what a small class cannot give, comes from other
    classes.

    Args:
        n_images: >= 1; all images, if there are no more.
        seed: any integer.
    Returns:
        The images, in their order.
    """
    labels = images.labels.cpu()
    mixed = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = mixed[labels[mixed].argsort(stable=True)]  # class by class, shuffled inside
    # of each image of `order` in its class
    rank = torch.cat([torch.arange(count) for count in labels.bincount().tolist()])
    taken = order[mixed][rank[mixed].argsort(stable=True)][:n_images]
    return images.take(taken.sort().values)


def symmetric_radii(radius: float, points: int) -> list[float]:
    """From −radius to radius in so many equal steps, symmetric, with an exact 0 in the middle if
    they are odd.
    """
    return [radius * (2 * place - points + 1) / (points - 1) for place in range(points)]


@torch.no_grad()
def _walk(
    model: PixelModel,
    images: Images,
    offsets: Iterable[Tensor],
    count: int,
    batch_size: int,
    progress: bool,
) -> list[tuple[float, float]]:
    """(loss, error) with every offset (P,) added to the weights."""
    weights, points = differentiable_weights(model), []
    with evaluating(model):
        for offset in bar(offsets, "landscape", "point", progress, total=count, leave=False):
            moved = {
                name: weights[name] + piece for name, piece in split_vector(model, offset).items()
            }
            points.append(_loss_and_error(model, moved, images, batch_size))
    return points


def _loss_and_error(
    model: PixelModel, weights: dict[str, Tensor], images: Images, batch_size: int
) -> tuple[float, float]:
    """Mean cross-entropy in nats, inf if it is not finite, and top-1 error in percent, with these
    weights.
    """
    dtype, total, wrong = next(iter(weights.values())).dtype, 0.0, 0
    for pixels, labels in zip(images.pixels.split(batch_size), images.labels.split(batch_size)):
        logits = functional_call(model, weights, (to_float(pixels).to(dtype),)).double()
        total += F.cross_entropy(logits, labels, reduction="sum").item()
        right = (logits.argmax(dim=1) == labels) & logits.isfinite().all(dim=1)
        wrong += len(labels) - int(right.sum())
    return total / len(images) if math.isfinite(total) else math.inf, 100 * wrong / len(images)


def _lengths(weight: Tensor) -> Tensor:
    """(filters, 1, …): the norm of everything under each index of the first axis."""
    return weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))


def _finite_or_none(value):
    """Numbers that are not finite as None, however nested: JSON knows neither inf nor NaN."""
    if isinstance(value, dict):
        return {key: _finite_or_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite_or_none(item) for item in value]
    return value if math.isfinite(value) else None


def _check(radii: Sequence[float], *directions: Tensor) -> None:
    """Raise unless there are finite radii and finite directions."""
    if len(radii) == 0 or not all(math.isfinite(radius) for radius in radii):
        raise ValueError(f"radii must be finite numbers, at least one, got {list(radii)}")
    for direction in directions:
        if not direction.isfinite().all():
            raise ValueError("a direction must be finite, got one with NaN or infinity")


def _check_grid(radius: float, points: int, grid_points: int, plane: str, n_eigen: int) -> None:
    """Raise for the first setting of lines and plane that cannot be."""
    pick("plane", plane, PLANES)
    check_whole(3, points=points)
    check_whole(0, grid_points=grid_points)
    if points % 2 == 0 or grid_points and (grid_points % 2 == 0 or grid_points < 3):
        raise ValueError(
            "points and grid_points must be odd, at least 3, so that the model itself is in the"
            f" middle (grid_points 0 leaves the surface out), got {points} and {grid_points}"
        )
    if not 0 < radius < math.inf:
        raise ValueError(f"radius must be a finite number greater than 0, got {radius}")
    if grid_points and plane == "eigen" and n_eigen < 2:
        raise ValueError(
            f"a surface along eigenvectors needs two of them, got n_eigen={n_eigen}; take"
            " plane='random'"
        )
