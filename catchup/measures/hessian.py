"""Curvature of the loss at a model's weights: Hessian-vector products, top eigenpairs, trace.

Sources: Pearlmutter, Neural Computation 1994 (the product without the matrix; here by
differentiating twice, backward); Lanczos, 1950, with full reorthogonalisation (Parlett, "The
symmetric eigenvalue problem", 1980, chapter 13); Hutchinson, 1990 (the trace); Yao, Gholami,
Keutzer & Mahoney, IEEE Big Data 2020 (PyHessian), which Kang, Kang & Kim, AAAI 2024, section 3.6
follow.

The loss is the mean cross-entropy, without weight decay, of images as they are stored: no
augmentation, no mixing. The model is in evaluation mode, so the statistics of BatchNorm are frozen.
The loss of a sample is then the mean of the losses of its images, and batches change memory, not
the result. A vector is flat, (P,): the parameters one after another in the order of
`model.named_parameters()`, frozen ones too.

Why not SciPy's eigsh: it says nothing of a pair that has not converged, it needs at least 20
products before it looks, and every product would go through the host's memory. Here the residuals
are looked at after each product; eigsh is what the tests compare with.

Where it misleads: the numbers are those of a sample, and of training or of test images: compare
models on the same. Away from a minimum of this very loss (test images, a model not trained to the
end, or trained on mixed images) the Hessian has negative eigenvalues, and the largest in magnitude
may be one of them. Behind BatchNorm the scale of a
weight changes nothing but its curvature: weights twice as large have a quarter of it, so a model
may look flat only because its weights are large (Dinh et al., ICML 2017). ReLU has no curvature at
its kink: that part of a finite step is not in these numbers. A residual bounds how far the value is
from an eigenvalue of this sample; it says nothing of another sample. Lanczos from one start finds
one direction of an eigenvalue that is there several times.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..data import Images
from ..data.augment import to_float
from ..hooks.layers import evaluating
from ..models.inference import PixelModel
from ..utils.choices import check_whole, pick
from ..utils.progress import counter

WHICH = ("algebraic", "magnitude")
BATCH = 100  # images differentiated at once


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Some eigenvalues of a symmetric matrix with their directions, and how well they are known.

    Args:
        values: k numbers, the top one first.
        vectors: (k, P), orthonormal rows.
        residuals: k numbers, ‖Hv − λv‖, computed from the product itself; an eigenvalue lies within
            this of the value.
        converged: whether every residual is at most the tolerance times the largest |value| found.
        products: how many products with the matrix it took.
    """

    values: tuple[float, ...]
    vectors: Tensor
    residuals: tuple[float, ...]
    converged: bool
    products: int


def hessian_vector_product(
    model: PixelModel, images: Images, vector: Tensor, batch_size: int = BATCH
) -> Tensor:
    """H v, with H the Hessian of the mean cross-entropy of `images` with respect to all parameters.

    Source: Pearlmutter, 1994; the gradient of gᵀv. Gradients and modes of the model stay as they
        are.

    Args:
        model: from images in [0, 1] to logits, on the device of `images`; its parameters of one
            dtype, float32 or float64, which is the precision of the result.
        images: the sample; never mixed or augmented.
        vector: (P,), dtype and device of the parameters.
        batch_size: images differentiated at once, >= 1; changes memory and time, not the result.
    Returns:
        (P,), like `vector`.
    Raises:
        ValueError: if the vector does not fit, the parameters are of another or of several dtypes,
            a BatchNorm has no statistics to freeze, or the product is not finite.
    """
    check_whole(batch_size=batch_size)
    weights = differentiable_weights(model)
    pieces = list(split_vector(model, vector).values())
    total = torch.zeros_like(vector)
    with evaluating(model), torch.enable_grad():
        for loss, leaves in _losses(model, images, weights, batch_size):
            slopes = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
            # gᵀv, a number
            along = sum((slope * piece).sum() for slope, piece in zip(slopes, pieces))
            total += flatten(torch.autograd.grad(along, leaves, materialize_grads=True))
    return _check_finite(total / len(images), "the product of Hessian and vector")


def weight_gradient(model: PixelModel, images: Images, batch_size: int = BATCH) -> Tensor:
    """(P,): gradient of the mean cross-entropy of `images`; arguments and errors as for
    `hessian_vector_product`.
    """
    check_whole(batch_size=batch_size)
    weights, total = differentiable_weights(model), 0.0
    with evaluating(model), torch.enable_grad():
        for loss, leaves in _losses(model, images, weights, batch_size):
            total = total + flatten(torch.autograd.grad(loss, leaves, materialize_grads=True))
    return _check_finite(total / len(images), "the gradient of the loss")


def top_eigenpairs(
    model: PixelModel,
    images: Images,
    k: int = 1,
    *,
    seed: int = 0,
    tol: float = 1e-2,
    max_iter: int = 40,
    which: str = "algebraic",
    batch_size: int = BATCH,
    progress: bool = False,
) -> Eigenpairs:
    """The top k eigenvalues of the Hessian and their directions; see the top of this file for what
    they do not say.

    Each direction points to where the loss rises: its product with the gradient of the same sample
    is not negative.

    Args:
        model, images, batch_size: as for `hessian_vector_product`.
        k: how many, 1 … P.
        seed: of the start vector, normal, drawn on the CPU.
        tol: pairs count as converged once every residual is at most `tol` times the largest |value|
            found, > 0.
        max_iter: the most products of the search, >= k; as many vectors of P numbers are kept in
            memory.
        which: "algebraic", the largest values; "magnitude", those of largest |λ|, as Yao et al.'s
            power iteration.
        progress: a bar on standard error.
    Returns:
        The pairs as far as they were found: look at `converged` and `residuals`.
    Raises:
        ValueError: as `hessian_vector_product`; for a setting that is not so.
    """
    weights = differentiable_weights(model)
    generator = torch.Generator().manual_seed(seed)
    example = flatten(weights.values())
    start = torch.randn(len(example), generator=generator, dtype=example.dtype).to(example.device)
    with _counting(max_iter + k, "Hessian", progress) as count:

        def apply(vector: Tensor) -> Tensor:
            return count(hessian_vector_product(model, images, vector, batch_size))

        pairs = lanczos(apply, start, k, which=which, tol=tol, max_iter=max_iter)
    slopes = pairs.vectors @ weight_gradient(model, images, batch_size)
    uphill = torch.where(slopes < 0, -1.0, 1.0).to(start.dtype)
    return replace(pairs, vectors=pairs.vectors * uphill[:, None])


def hessian_trace(
    model: PixelModel,
    images: Images,
    n_probes: int = 10,
    seed: int = 0,
    *,
    batch_size: int = BATCH,
    progress: bool = False,
) -> tuple[float, float]:
    """Trace of the Hessian and its standard error, by Hutchinson's estimator.

    Args:
        model, images, batch_size: as for `hessian_vector_product`.
        n_probes: random vectors, >= 2; the standard error falls with its square root.
        seed: of the vectors.
        progress: a bar on standard error.
    Returns:
        (mean, standard error) over the probes. The error is that of the probes alone, not of the
        sample of images.
    Raises:
        ValueError: as `hessian_vector_product`; if there are fewer than two probes.
    """
    check_whole(n_probes=n_probes)
    example = flatten(differentiable_weights(model).values())
    with _counting(n_probes, "trace", progress) as count:

        def apply(vector: Tensor) -> Tensor:
            return count(hessian_vector_product(model, images, vector, batch_size))

        return hutchinson(apply, example, n_probes, torch.Generator().manual_seed(seed))


def hutchinson(
    apply: Callable[[Tensor], Tensor], like: Tensor, n_probes: int, generator: torch.Generator
) -> tuple[float, float]:
    """Mean and standard error of zᵀAz over random vectors z of ±1 each: an unbiased estimate of the
    trace of A.

    Source: Hutchinson, 1990. The variance of one probe is 2 Σ_{i≠j} A_ij²: none for a diagonal
        matrix.

    Args:
        apply: (P,) -> (P,), the product with a symmetric matrix.
        like: (P,), dtype and device of the vectors.
        n_probes: >= 2.
        generator: on the CPU.
    Raises:
        ValueError: if there are fewer than two probes.
    """
    if n_probes < 2:
        raise ValueError(
            f"n_probes must be at least 2, or there is no standard error, got {n_probes}"
        )
    products = []
    for _ in range(n_probes):
        signs = 2.0 * torch.randint(2, (len(like),), generator=generator) - 1
        probe = signs.to(like.device, like.dtype)
        products.append(torch.dot(probe.double(), apply(probe).double()).item())
    mean = math.fsum(products) / n_probes
    variance = math.fsum((value - mean) ** 2 for value in products) / (n_probes - 1)
    return mean, math.sqrt(variance / n_probes)


def lanczos(
    apply: Callable[[Tensor], Tensor],
    start: Tensor,
    k: int = 1,
    *,
    which: str = "algebraic",
    tol: float = 1e-2,
    max_iter: int = 40,
) -> Eigenpairs:
    """The top k eigenpairs of a symmetric matrix that is known only by its product with a vector.

    Source: Lanczos, 1950; each new vector is made orthogonal to all before it, twice, so that no
    value appears twice. Where the start spans less than the whole space, a vector orthogonal to it
    goes on: k may be all of P.

    Args:
        apply: (P,) -> (P,), the product with the matrix.
        start: (P,) floating, not zero.
        k, which, tol, max_iter: as for `top_eigenpairs`. Once the search has ended, k more products
            give the residuals.
    Raises:
        ValueError: if a setting is not so.
    """
    pick("end of the spectrum", which, WHICH)
    _check_search(len(start), k, tol, max_iter)
    if not start.norm() > 0:
        raise ValueError("the start of a search must be a finite vector that is not zero")
    size, steps = len(start), min(max_iter, len(start))
    basis = start.new_empty(steps, size)
    diagonal, beside = [], []
    vector = start / start.norm()
    for step in range(steps):
        basis[step] = vector
        image = apply(vector)
        diagonal.append(torch.dot(image, vector).item())
        left = _orthogonal(image, basis[: step + 1])
        beside.append(left.norm().item())
        values, coordinates = _ritz(diagonal, beside[:-1], k, which)
        scale = max(map(abs, values.tolist()))
        if step + 1 >= k and (beside[-1] * coordinates[-1].abs() <= tol * scale).all():
            break
        if beside[-1] <= 10 * torch.finfo(start.dtype).eps * max(*map(abs, diagonal), *beside):
            beside[-1], left = 0.0, _orthogonal(_other(start, step), basis[: step + 1])
        vector = left / left.norm()
    vectors = coordinates.T.to(basis) @ basis[: len(diagonal)]
    return _with_residuals(apply, vectors, tol, len(diagonal))


def split_vector(model: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """A flat vector as {name of the parameter: piece of its shape}, without a copy.

    Raises:
        ValueError: if it is not (P,) with P the number of all parameters, or dtype or device differ
            from theirs.
    """
    named = dict(model.named_parameters())
    sizes = [parameter.numel() for parameter in named.values()]
    first = next(iter(named.values()))
    alike = (vector.dtype, vector.device) == (first.dtype, first.device)
    if vector.shape != (sum(sizes),) or not alike:
        raise ValueError(
            f"a vector of weights must be ({sum(sizes)},) {first.dtype} on {first.device}, got "
            f"{tuple(vector.shape)} {vector.dtype} on {vector.device}"
        )
    return {
        name: piece.view(parameter.shape)
        for (name, parameter), piece in zip(named.items(), vector.split(sizes))
    }


def flatten(pieces: Iterable[Tensor]) -> Tensor:
    """(P,): the pieces one after another, each read in the order of its indices whatever its memory
    layout.
    """
    return torch.cat([piece.detach().reshape(-1) for piece in pieces])


def differentiable_weights(model: nn.Module) -> dict[str, Tensor]:
    """{name: parameter, detached}, of a model whose loss on frozen statistics can be differentiated
    twice.

    Raises:
        ValueError: if there are no parameters, or of several dtypes or neither float32 nor float64,
            or if a BatchNorm keeps no running statistics (the images of a batch would then depend
            on one another).
    """
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    dtypes = {str(weight.dtype) for weight in weights.values()}
    if dtypes not in ({"torch.float32"}, {"torch.float64"}):
        raise ValueError(
            "the parameters must all be float32, or all float64 (model.double()), got "
            f"{', '.join(sorted(dtypes)) or 'none'}"
        )
    for name, part in model.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
            raise ValueError(
                f"{name} is a BatchNorm without running statistics, so there are none to freeze and"
                " the loss would depend on how the images are batched"
            )
    return weights


def _losses(
    model: PixelModel, images: Images, weights: dict[str, Tensor], batch_size: int
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """For every batch its summed cross-entropy and the leaves it depends on: the weights, which
    nothing else knows.
    """
    dtype = next(iter(weights.values())).dtype
    for pixels, labels in zip(images.pixels.split(batch_size), images.labels.split(batch_size)):
        leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        logits = functional_call(model, leaves, (to_float(pixels).to(dtype),))
        yield F.cross_entropy(logits, labels, reduction="sum"), list(leaves.values())


@contextmanager
def _counting(total: int, name: str, progress: bool) -> Iterator[Callable[[Tensor], Tensor]]:
    """A function that moves a bar on by one and hands its argument on."""
    with counter(total, name, "product", progress, leave=False) as update:

        def count(product: Tensor) -> Tensor:
            update(1)
            return product

        yield count


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor:
    """What of the vector (P,) is orthogonal to the orthonormal rows of the basis (m, P); twice is
    enough (Parlett).
    """
    for _ in range(2):
        vector = vector - (basis @ vector) @ basis
    return vector


def _other(start: Tensor, step: int) -> Tensor:
    """Another random vector, where the matrix has taken the start no further; of unit length, like
    the start.
    """
    dice = torch.Generator().manual_seed(step)
    drawn = torch.randn(len(start), generator=dice, dtype=start.dtype)
    return (drawn / drawn.norm()).to(start.device)


def _ritz(diagonal: list[float], beside: list[float], k: int, which: str) -> tuple[Tensor, Tensor]:
    """The top k (or fewer) eigenvalues of the tridiagonal matrix, and its eigenvectors (m, k),
    float64 on the CPU.
    """
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        edge = torch.diag(torch.tensor(beside, dtype=torch.float64), 1)
        matrix = matrix + edge + edge.T
    values, vectors = torch.linalg.eigh(matrix)
    sizes = values if which == "algebraic" else values.abs()
    order = sizes.argsort(descending=True, stable=True)[:k]
    return values[order], vectors[:, order]


def _with_residuals(
    apply: Callable[[Tensor], Tensor], vectors: Tensor, tol: float, products: int
) -> Eigenpairs:
    """The pairs with values and residuals from the product itself: rounding shows in them, too."""
    values, residuals = [], []
    for vector in vectors:
        image = apply(vector)
        values.append((torch.dot(vector, image) / torch.dot(vector, vector)).item())
        residuals.append((image - values[-1] * vector).norm().item())
    converged = max(residuals) <= tol * max(map(abs, values))
    return Eigenpairs(tuple(values), vectors, tuple(residuals), converged, products + len(vectors))


def _check_search(size: int, k: int, tol: float, max_iter: int) -> None:
    """Raise for settings of a search that cannot be."""
    check_whole(k=k, max_iter=max_iter)
    if k > min(size, max_iter):
        raise ValueError(
            f"k must be at most the {size} parameters and max_iter, got k={k} and"
            f" max_iter={max_iter}"
        )
    if not 0 < tol < 1:
        raise ValueError(f"tol must lie in (0, 1), got {tol}")


def _check_finite(values: Tensor, what: str) -> Tensor:
    """The values, unless one is not finite."""
    if not values.isfinite().all():
        raise ValueError(
            f"{what} is not finite: the model's weights or outputs are of no use, or the loss"
            " overflows"
        )
    return values
