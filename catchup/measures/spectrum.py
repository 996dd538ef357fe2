"""Eigenpairs and trace of a symmetric matrix that is known only by its product with a vector.

Sources: Lanczos, 1950, with full reorthogonalisation (Parlett, "The symmetric eigenvalue problem",
1980, chapter 13); Hutchinson, 1990 (the trace).

Why not SciPy's eigsh: it says nothing of a pair that has not converged, it needs at least 20
products before it looks, and every product would go through the host's memory. Here the residuals
are looked at after each product; eigsh is what the tests compare with.

Where it misleads: a residual bounds how far the value is from an eigenvalue of this sample; it says
nothing of another sample. Lanczos from one start finds one direction of an eigenvalue that is there
several times.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..utils.choices import check_whole, pick

WHICH = ("algebraic", "magnitude")


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
