"""Curvature of the loss at a model's weights: Hessian-vector products, top eigenpairs, trace.

Sources: Pearlmutter, Neural Computation 1994 (the product without the matrix; here by
differentiating twice, backward); Yao, Gholami, Keutzer & Mahoney, IEEE Big Data 2020 (PyHessian),
which Kang, Kang & Kim, AAAI 2024, section 3.6 follow. How a matrix is searched by its products
stands in `spectrum.py`.

The loss is the mean cross-entropy, without weight decay, of images as they are stored: no
augmentation, no mixing. The model is in evaluation mode, so the statistics of BatchNorm are frozen.
The loss of a sample is then the mean of the losses of its images, and batches change memory, not
the result. A vector is flat, (P,): the parameters one after another in the order of
`model.named_parameters()`, frozen ones too.

Where it misleads: the numbers are those of a sample, and of training or of test images: compare
models on the same. Away from a minimum of this very loss (test images, a model not trained to the
end, or trained on mixed images) the Hessian has negative eigenvalues, and the largest in magnitude
may be one of them. Behind BatchNorm the scale of a weight changes nothing but its curvature:
weights twice as large have a quarter of it, so a model may look flat only because its weights are
large (Dinh et al., ICML 2017). ReLU has no curvature at its kink: that part of a finite step is not
in these numbers.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..data import Images
from ..data.augment import to_float
from ..hooks.layers import evaluating
from ..models.inference import PixelModel
from ..utils.choices import check_whole
from ..utils.progress import counter
from .spectrum import Eigenpairs, hutchinson, lanczos

BATCH = 100  # images differentiated at once


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


def _check_finite(values: Tensor, what: str) -> Tensor:
    """The values, unless one is not finite."""
    if not values.isfinite().all():
        raise ValueError(
            f"{what} is not finite: the model's weights or outputs are of no use, or the loss"
            " overflows"
        )
    return values
